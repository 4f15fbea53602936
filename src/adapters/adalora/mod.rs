//! AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): the correction has the form of a singular value decomposition (equation 3), and
//! a budget of triplets (row of A, entry of E, column of B) moves to the modules where they matter.
//!
//! ```text
//!     y = W x + b  +  s · B (E ⊙ (A drop(x)))          s = alpha / (init_rank + 1e-5)
//!
//!     x ──▶ W (frozen, out × in) ───────────────────────▶ (+) ──▶ y
//!     └───▶ A (r × in) ──▶ E (r) ──▶ s ──▶ B (out × r) ───┘
//!            Q             Λ               P       in the paper's letters
//! ```
//!
//! A, E and B train. A triplet is taken away by setting its entry of E to zero, and its scale stays that of `init_rank`.
//! `allocator` says how many stay and which, `importance` how much each matters, `orthogonality` keeps A and B near
//! orthonormal, `rule` does the three around an optimizer step. Where paper and PEFT differ, this is PEFT's arithmetic.

#![allow(non_snake_case)]

mod allocator;
mod export;
mod importance;
mod orthogonality;
#[cfg(test)]
mod planted;
mod rule;
#[cfg(test)]
mod tests;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use indexmap::IndexMap;
use lowrank_kernels::{LowRank, LowRankBackend, path_hash};

use super::method::{Method, Rule, Start, corrected};
use super::peft::Part;
use super::{AdapterConfig, Findings, Selected, Shared, Spec, Update, lora, method_config};
use crate::Result;
use crate::error::InputError;
use crate::nn::{Linear, Pass};
use crate::tensors::HostTensors;

/// Deviation of the normal values that A and B start with.
const DEVIATION: f64 = 0.02;
/// Added to the rank that the scale is divided by.
const EPSILON: f64 = 1e-5;

method_config! {
    pub struct AdaLoraConfig: plain {
        /// Rank that every module starts with.
        pub init_rank: usize = 12,
        /// Mean rank of the modules in the end.
        pub target_rank: usize = 8,
        /// The correction is scaled by alpha / init_rank, whatever the rank has become.
        pub alpha: f64 = 16.0,
        /// Optimizer steps before the budget starts to shrink.
        pub warmup_steps: usize = 0,
        /// Optimizer steps at the end that train the ranks found.
        pub final_steps: usize = 0,
        /// Steps between two allocations of the budget.
        pub interval: usize = 1,
        /// Decay of the running mean of importances.
        pub beta1: f64 = 0.85,
        /// Decay of the running mean of how much importances vary.
        pub beta2: f64 = 0.85,
        /// Weight of the distance of A and B from orthonormal ones.
        pub orth_weight: f64 = 0.5,
        #[serde(skip)]
        pub outcome: Outcome = Outcome::default(),
    }
}

/// What PEFT's file says of a run beside its settings; no recipe has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
    /// Which of the `init_rank` triplets are left, by `PATH.lora_E`; a module that is not listed has all of them.
    pub rank_pattern: IndexMap<String, Vec<bool>>,
}

impl AdaLoraConfig {
    /// This method with the choice of modules of another.
    pub fn with(self, shared: Shared) -> Self {
        self.with_scope(shared)
    }

    /// `s`; an alpha of 0 or less stands for `init_rank`, as in PEFT.
    fn scaling(&self) -> f64 {
        let rank = self.init_rank as f64;
        (if self.alpha > 0.0 { self.alpha } else { rank }) / (rank + EPSILON)
    }
}

impl Spec for AdaLoraConfig {
    fn shared(&self) -> Shared {
        Shared { rank: self.init_rank, alpha: self.alpha, ..self.scope() }
    }

    fn rank_key(&self) -> &'static str {
        "init_rank"
    }

    fn validate(&self, found: &mut Findings) {
        found.size("target_rank", self.target_rank, 1);
        if self.target_rank > self.init_rank {
            let error = InputError::new("the budget can only shrink: `target_rank` is above `init_rank`");
            found.push("target_rank", error.found(self.target_rank).expected(format!("at most {}", self.init_rank)));
        }
        found.size("warmup_steps", self.warmup_steps, 0);
        found.size("final_steps", self.final_steps, 0);
        found.size("interval", self.interval, 1);
        let below_one = |beta: f64| beta >= 0.0 && (beta as f32) < 1.0;
        found.number("beta1", self.beta1, below_one, "0 or more, below 1");
        found.number("beta2", self.beta2, below_one, "0 or more, below 1");
        found.number("orth_weight", self.orth_weight, |weight| weight >= 0.0, "0 (off) or more");
    }

    fn plan(&mut self, steps: usize, found: &mut Findings) {
        self.outcome.total_steps = steps;
        if self.warmup_steps.saturating_add(self.final_steps) >= steps {
            let error = InputError::new("`warmup_steps` and `final_steps` leave no step in which the budget shrinks");
            let error = error.found(format!("{} and {}", self.warmup_steps, self.final_steps));
            found.push("warmup_steps", error.expected(format!("together less than the {steps} steps of the run")));
        }
    }

    fn refuses_lora_plus(&self) -> Option<&'static str> {
        Some("E is neither A nor B, and no paper says at which rate it trains")
    }

    fn adapts_embeddings(&self) -> bool {
        false
    }

    fn fit(&self, mut selected: Vec<Selected>) -> Result<Vec<Selected>, InputError> {
        let mut pattern = self.outcome.rank_pattern.clone();
        for site in &mut selected {
            site.scaling = self.scaling();
            if let Some(kept) = pattern.shift_remove(&export::pattern_key(site)) {
                site.rank = kept.iter().filter(|kept| **kept).count();
            }
        }
        match pattern.keys().next() {
            None => Ok(selected),
            Some(stray) => {
                Err(InputError::new("names no module that the adapter adapts").key("rank_pattern").found(stray))
            }
        }
    }

    fn fields(&self, site: &Selected) -> Vec<(&'static str, Vec<usize>)> {
        let mut fields = lora::fields(site);
        fields.push(("lora_E", vec![site.rank, 1]));
        fields
    }

    /// The ranks of single modules are known after a run; all of them together, the budget, before.
    fn saved_as(&self, _: usize) -> AdapterConfig {
        Self { init_rank: self.target_rank, ..self.clone() }.into()
    }

    fn export(&self, values: HostTensors, selected: &[Selected]) -> Result<(AdapterConfig, HostTensors)> {
        let (outcome, values) = export::survivors(&self.outcome, values, selected)?;
        Ok((Self { outcome, ..self.clone() }.into(), values))
    }

    fn parts(&self, site: &Selected) -> Vec<(Part, Vec<usize>)> {
        let (r, [out, cols]) = (site.rank, site.outputs_and_inputs());
        vec![(Part::AdaA, vec![r, cols]), (Part::AdaE, vec![r, 1]), (Part::AdaB, vec![out, r])]
    }

    fn update(&self, site: &Selected, values: &HostTensors) -> Result<Update> {
        export::product(site, values)
    }
}

#[derive(Module, Debug)]
pub struct AdaLora<B: Backend> {
    /// `[r, in]`, Q of the paper.
    pub lora_A: Param<Tensor<B, 2>>,
    /// `[r, 1]`, the diagonal of Λ.
    pub lora_E: Param<Tensor<B, 2>>,
    /// `[out, r]`, P of the paper.
    pub lora_B: Param<Tensor<B, 2>>,
    pub scaling: f64,
    pub dropout: f64,
    /// Names this layer's dropout masks.
    layer: u64,
}

impl<B: LowRankBackend> Method<B> for AdaLora<B> {
    type Config = AdaLoraConfig;

    fn new(site: &Selected, config: &AdaLoraConfig, start: &mut Start<'_, B>) -> Result<Self> {
        let (r, [out, cols], stream) = (site.rank, site.outputs_and_inputs(), start.stream(site));
        Ok(Self {
            lora_A: start.param(stream.part(0).normal(r * cols, DEVIATION), [r, cols]),
            lora_E: start.param(vec![0.0; r], [r, 1]),
            lora_B: start.param(stream.part(1).normal(out * r, DEVIATION), [out, r]),
            scaling: site.scaling,
            dropout: config.dropout,
            layer: path_hash(&site.path),
        })
    }

    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        let (down, mid, up) = (self.lora_A.val(), self.lora_E.val().reshape([-1]), self.lora_B.val());
        let term = LowRank { down, mid: Some(mid), up, post: None, scale: self.scaling };
        corrected(x, base, term, (self.dropout, self.layer), pass)
    }

    fn rule(config: &AdaLoraConfig, selected: &[Selected], total_steps: usize) -> Option<Box<dyn Rule<B>>> {
        // An adapter that was read from a file is not trained any further.
        (total_steps > 0).then(|| Box::new(rule::Allocation::new(config, selected, total_steps)) as Box<dyn Rule<B>>)
    }
}
