//! How far the outputs of a merged model are from those of the model that was trained.

use std::path::Path;

use super::Target;
use super::artifact::{attach_adapter, attach_none};
use super::inputs::setting;
use crate::adapters::merge::Merged;
use crate::adapters::peft::PeftAdapter;
use crate::data::{self, Answer, Batch, Sequence, collate};
use crate::models::{ModelConfig, Opened, Stored};
use crate::recipe::{BaseCompute, BaseStorage, Recipe};
use crate::runtime::{BaseSpec, Learner};
use crate::{Error, Result};

/// Rows that are read, and tokens of each: enough to see a difference, few enough to keep their logits.
const ROWS: usize = 8;
const TOKENS: usize = 64;

/// What both models read.
pub struct Probe {
    batches: Vec<Batch>,
    /// `8 held-out rows, 412 tokens`
    pub what: String,
}

impl Probe {
    /// The first held-out rows of a run, or its first training rows where none are held out; where there is no run, or
    /// its data cannot be read any more, fixed tokens.
    pub fn of(recipe: Option<&Recipe>, opened: &Opened) -> Self {
        let load = |recipe: &Recipe| {
            let setting = setting(recipe.task, &recipe.head, opened);
            data::load(&recipe.data, &setting, &opened.tokenizer, Path::new(""))
        };
        let splits = recipe.map(load);
        match splits {
            Some(Ok(splits)) => match splits.eval {
                Some(eval) => Self::new(&eval.sequences, "held-out rows"),
                None => Self::new(&splits.train.sequences, "training rows"),
            },
            Some(Err(error)) => {
                let reason = error.to_string();
                let reason = reason.lines().next().unwrap_or_default();
                Self::new(
                    &fixed(&opened.config),
                    &format!("rows of fixed tokens, the run's data not being there ({reason})"),
                )
            }
            None => Self::new(&fixed(&opened.config), "rows of fixed tokens"),
        }
    }

    fn new(sequences: &[Sequence], what: &str) -> Self {
        let start = |sequence: &Sequence| {
            let mut sequence = sequence.clone();
            sequence.truncate(TOKENS);
            collate(&[&sequence], 0)
        };
        let batches: Vec<Batch> = sequences.iter().take(ROWS).map(start).collect();
        let tokens: usize = batches.iter().map(Batch::tokens).sum();
        Self { what: format!("{} {what}, {tokens} tokens", batches.len()), batches }
    }
}

/// Tokens all over the vocabulary.
fn fixed(config: &ModelConfig) -> Vec<Sequence> {
    let len = TOKENS.min(config.positions());
    let id = |i: usize| (i * 7919 % config.vocab_size) as u32;
    let start = config.architecture.family().decoder_start();
    let row = |row: usize| {
        let ids: Vec<u32> = (0..len).map(|i| id(row * TOKENS + i + 1)).collect();
        // A decoder beside an encoder reads the same.
        let answer = start.map_or(Answer::Tokens, |start| Answer::Text([&[start], &ids[..]].concat()));
        Sequence { ids, trained: vec![true; len], document: vec![0; len], answer, ..Sequence::default() }
    };
    (0..ROWS).map(row).collect()
}

/// The outputs of a trained model.
pub struct Fidelity<'a> {
    target: &'a Target,
    probe: &'a Probe,
    vocab: usize,
    /// Of each batch, `[tokens, vocab]`.
    logits: Vec<Vec<f32>>,
}

/// Of a model's outputs from the trained model's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Largest difference of a logit.
    pub max_logit: f64,
    /// Mean over tokens of the Kullback-Leibler divergence of the next token's distribution from the trained
    /// model's, in nats.
    pub mean_kl: f64,
}

impl<'a> Fidelity<'a> {
    /// Runs `adapter` over `base`, computing in f32.
    pub fn of(
        target: &'a Target,
        config: &ModelConfig,
        base: &Stored<'_>,
        adapter: &PeftAdapter,
        probe: &'a Probe,
    ) -> Result<Self> {
        let storage = BaseStorage { compute: BaseCompute::F32, ..base.storage() };
        let loaded = target.runtime.load(target.index, &BaseSpec { config, weights: base, storage, loftq: None })?;
        let learner = attach_adapter(loaded.as_ref(), &adapter.0, adapter.1.clone())?;
        let logits = probe.batches.iter().map(|batch| learner.logits(batch)).collect::<Result<_>>()?;
        Ok(Self { target, probe, vocab: config.vocab_size, logits })
    }

    /// Runs a merged model, none of which needs to lie on a disk.
    pub fn difference(&self, model: &Merged<'_>) -> Result<Difference> {
        let spec = BaseSpec { config: model.config(), weights: model, storage: BaseStorage::default(), loftq: None };
        let learner = attach_none(self.target.runtime.load(self.target.index, &spec)?.as_ref())?;
        self.compare(learner.as_ref())
    }

    fn compare(&self, learner: &dyn Learner) -> Result<Difference> {
        let (mut difference, mut tokens) = (Difference::default(), 0);
        for (batch, trained) in self.probe.batches.iter().zip(&self.logits) {
            let found = learner.logits(batch)?;
            for (trained, found) in trained.chunks(self.vocab).zip(found.chunks(self.vocab)) {
                let gaps = trained.iter().zip(found).map(|(a, b)| f64::from((a - b).abs()));
                difference.max_logit = gaps.fold(difference.max_logit, f64::max);
                difference.mean_kl += divergence(trained, found);
                tokens += 1;
            }
        }
        difference.mean_kl /= f64::from(tokens.max(1));
        match difference.mean_kl.is_finite() {
            true => Ok(difference),
            false => Err(Error::Failed("the merged model's outputs are not finite".into())),
        }
    }
}

/// Σ p · (ln p − ln q) in nats, of the distributions that two rows of logits stand for.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_total, q_total) = (log_sum_exp(p), log_sum_exp(q));
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - p_total, f64::from(*q) - q_total);
        p.exp() * (p - q)
    };
    let sum: f64 = p.iter().zip(q).map(term).sum();
    // Rounding may take a sum of next to nothing below it.
    if sum < 0.0 { 0.0 } else { sum }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
    largest + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_by_hand() {
        // p = (1/2, 1/2), q = (3/4, 1/4), both with a shift that softmax does not see.
        let (p, q) = ([5.0, 5.0], [3f32.ln() - 2.0, -2.0]);
        let expected = 0.5 * (0.5f64 / 0.75).ln() + 0.5 * (0.5f64 / 0.25).ln();
        assert!((divergence(&p, &q) - expected).abs() < 1e-7);
        assert_eq!(divergence(&q, &q), 0.0);
        assert!(divergence(&p, &[f32::NAN, 0.0]).is_nan());
    }
}
