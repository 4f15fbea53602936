//! Where a run stands between two optimizer steps, apart from tensors.

use serde::{Deserialize, Serialize};

/// Everything but moments and weights that the next step depends on, so that resuming is bit-exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Optimizer steps taken, skipped ones included.
    pub step: usize,
    pub epoch: usize,
    /// Index of the next batch in the epoch's order.
    pub cursor: usize,
    pub seed: u64,
    pub tokens_seen: u64,
    pub best: Option<Best>,
    /// Step of the last complete evaluation.
    pub evaluated: Option<usize>,
    /// Optimizer steps the run is to take.
    pub total_steps: usize,
    /// Steps whose loss or gradient was not finite: in all, and since the last good one.
    pub skipped_total: usize,
    pub skipped_in_a_row: usize,
    /// Of training, over all processes that worked on the run.
    #[serde(with = "exact")]
    pub elapsed_seconds: f64,
    pub hashes: Hashes,
    pub device: String,
    pub threads: usize,
}

/// The lowest evaluation loss so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    #[serde(with = "exact")]
    pub loss: f64,
    pub step: usize,
    /// Of the files in `best/`.
    pub sha256: String,
}

/// sha256, in hexadecimal, of what must not change under a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hashes {
    pub base: String,
    pub data: String,
    pub tokenizer: String,
    /// [`fingerprint`](super::fingerprint) of the recipe.
    pub recipe: String,
    /// Of the adapter that training started from, where it did. Not compared on resume: it is not needed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
}

/// A float as its shortest decimal text. Rust reads that back to the same bits, infinities and NaN included, where
/// serde_json's own numbers have no NaN and may come back one bit off.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:?}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_come_back_bit_for_bit() {
        // A full-period generator over all bit patterns: normal, subnormal and special.
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        let mut values = vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324, f64::MAX, 0.1];
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            values.push(f64::from_bits(bits));
        }
        for loss in values {
            let text = serde_json::to_string(&Best { loss, step: 1, sha256: String::new() }).unwrap();
            let back: Best = serde_json::from_str(&text).unwrap();
            assert!(back.loss.to_bits() == loss.to_bits() || (back.loss.is_nan() && loss.is_nan()), "{text}");
        }
    }

    #[test]
    fn counters_come_back_whole() {
        let state = TrainState { seed: u64::MAX, tokens_seen: (1 << 53) + 1, ..TrainState::default() };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<TrainState>(&text).unwrap(), state);
    }
}
