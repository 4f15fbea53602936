//! Dropout masks from a counter instead of a stream: no generator state to save, no order to keep.

use burn::tensor::{Shape, TensorData};

use crate::splitmix::next as mix;

/// What a mask depends on besides the layer and the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    pub seed: u64,
    pub step: u64,
    /// Index of the forward inside an accumulated step.
    pub micro: u64,
}

impl DropoutKey {
    /// The key of one layer's mask; `layer` is [`path_hash`] of its path.
    pub fn layer(self, layer: u64) -> u64 {
        [self.step, self.micro, layer].into_iter().fold(mix(self.seed), |key, part| mix(key ^ part))
    }
}

/// FNV-1a of a module path.
pub fn path_hash(path: &str) -> u64 {
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

pub(crate) fn draw(shape: Shape, p: f64, key: u64) -> TensorData {
    let keep = (1.0 / (1.0 - p)) as f32;
    let threshold = (p * (1u64 << 53) as f64) as u64;
    let values: Vec<f32> =
        (0..shape.num_elements() as u64).map(|i| if mix(key ^ i) >> 11 < threshold { 0.0 } else { keep }).collect();
    TensorData::new(values, shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_keeps_the_expectation_and_depends_on_the_key() {
        let draw = |key| super::draw(Shape::new([100, 100]), 0.3, key).to_vec::<f32>().unwrap();
        let mean = draw(1).iter().sum::<f32>() / 1e4;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn keys_differ_by_every_part() {
        let key = DropoutKey { seed: 1, step: 2, micro: 3 };
        let others = [DropoutKey { seed: 2, ..key }, DropoutKey { step: 3, ..key }, DropoutKey { micro: 4, ..key }];
        assert!(others.iter().all(|other| other.layer(7) != key.layer(7)));
        assert_ne!(key.layer(path_hash("a")), key.layer(path_hash("b")));
    }
}
