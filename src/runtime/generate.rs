//! Text from a model, one token at a time, with a key/value cache.

use burn::tensor::{Tensor, TensorData};
use lowrank_kernels::LowRankBackend;

use super::learner::to_host;
use crate::adapters::random::Stream;
use crate::models::{Model, ModelConfig};
use crate::nn::{LayerCache, NewTokens, Pass, Views};
use crate::{Error, Result};

/// How the next token is chosen: the likeliest, or drawn when `temperature` is above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    pub max_new_tokens: usize,
    pub temperature: f64,
    pub seed: u64,
    /// Tokens that end the text; they are not part of it.
    pub stop: Vec<u32>,
}

/// Where texts of a model start and end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// What a decoder beside an encoder starts with.
    decoder_start: Option<u32>,
    max_positions: usize,
}

impl Bounds {
    pub fn of(config: &ModelConfig) -> Self {
        let decoder_start = config.architecture.family().decoder_start();
        Self { decoder_start, max_positions: config.positions() }
    }
}

/// New tokens after `prompt`; of a model with an encoder, which reads the prompt, all that its decoder says.
pub(super) fn generate<B: LowRankBackend>(
    model: &Model<B>,
    views: &Views,
    prompt: &[u32],
    sampling: &Sampling,
    bounds: Bounds,
    on_token: &mut dyn FnMut(u32) -> bool,
    device: &B::Device,
) -> Result<Vec<u32>> {
    if prompt.is_empty() {
        return Err(Error::input("the prompt has no tokens").into());
    }
    let mut cache: Vec<Option<LayerCache<B>>> = vec![None; views.of_layer.len()];
    let (mut new, mut fresh, before) = match bounds.decoder_start {
        None => (NewTokens::new(0, prompt.len(), views, device), prompt.to_vec(), prompt.len()),
        Some(start) => (NewTokens::pair(prompt.len(), views, device), [prompt, &[start]].concat(), 1),
    };
    let mut said = Vec::new();
    let draws = Stream::new(sampling.seed, "generate");
    let room = bounds.max_positions.saturating_sub(before);
    for draw in (0..sampling.max_new_tokens.min(room) as u64).map(|i| draws.unit(i)) {
        let input: Vec<i32> = fresh.iter().map(|&id| id as i32).collect();
        let hidden = model.cached_blocks(Tensor::from_data(TensorData::from(&input[..]), device), &new, &mut cache);
        let last = hidden.narrow(0, fresh.len() - 1, 1);
        let logits = to_host(model.head(last, Pass::EVAL).reshape([-1]))?;
        let token = choose(&logits, sampling.temperature, draw);
        if sampling.stop.contains(&token) || !on_token(token) {
            break;
        }
        said.push(token);
        new = NewTokens::new(before + said.len() - 1, 1, views, device);
        fresh = vec![token];
    }
    Ok(said)
}

/// `draw` is uniform in [0, 1).
fn choose(logits: &[f32], temperature: f64, draw: f64) -> u32 {
    let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
    if temperature <= 0.0 {
        return best as u32;
    }
    let weight = |logit: f32| (f64::from(logit - logits[best]) / temperature).exp();
    let mut left = draw * logits.iter().map(|&logit| weight(logit)).sum::<f64>();
    for (i, &logit) in logits.iter().enumerate() {
        left -= weight(logit);
        if left < 0.0 {
            return i as u32;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_follows_the_weights() {
        let logits = [0.0, (3.0f32).ln(), f32::NEG_INFINITY];
        assert_eq!(choose(&logits, 0.0, 0.9), 1);
        let drawn: Vec<u32> = [0.1, 0.24, 0.26, 0.99].map(|draw| choose(&logits, 1.0, draw)).to_vec();
        assert_eq!(drawn, [0, 0, 1, 1]);
    }
}
