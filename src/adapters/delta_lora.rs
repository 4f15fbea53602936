//! Delta-LoRA (Zi et al. 2023, arXiv 2309.02411), section 4.1: after K steps W moves along with the product B·A,
//!
//! ```text
//!     W ← W + λ s · (B'A' − BA)          at step K + 1 and after, BA and B'A' before and after the step
//! ```
//!
//! With a constant λ the moves telescope, so that W need not be written:
//!
//! ```text
//!     y = W x + b  +  s · B (A x)  +  λ s · (B A − B_K A_K) x          B_K A_K: the product right after step K
//!
//!     x ──▶ W (frozen) ────────────────────────────────▶ (+) ──▶ y
//!     ├───▶ A ──▶ s ──▶ B ────────────────────────────────┤
//!     └───▶ [A; A_K] ──▶ λ s ──▶ [B  −B_K] (detached) ────┘       from step K + 1 on
//! ```
//!
//! The gradient reaches A and B through the LoRA term alone, and x through all terms. The base may be of any storage and be
//! shared; the trained adapter is a product of rank 2r: ΔW = s · [(1+λ)B  −λB_K] · [A; A_K].

#![allow(non_snake_case)]

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::{LowRank, LowRankBackend, low_rank};

use super::method::{Method, Moment, Start};
use super::stacked::{check_ranks, doubled, stacked};
use super::{AdapterConfig, Findings, LoraConfig, LoraInit, Selected, Shared, Spec, init, method_config};
use crate::Result;
use crate::nn::{Linear, Pass};
use crate::tensors::HostTensors;

#[cfg(test)]
mod tests;

/// A_K and B_K in checkpoints.
const SNAPSHOT: [&str; 2] = ["snapshot_A", "snapshot_B"];

method_config! {
    pub struct DeltaLoraConfig: scaled {
        /// How far W moves for each move of s·B·A (the paper's λ); with 0 this is LoRA.
        pub lambda: f64 = 2.0,
        /// Optimizer steps before W starts to move (the paper's K).
        pub start_step: usize = 500,
    }
}

impl Spec for DeltaLoraConfig {
    fn shared(&self) -> Shared {
        self.shared()
    }

    fn validate(&self, found: &mut Findings) {
        let usable = |lambda: f64| lambda >= 0.0 && (lambda as f32).is_finite();
        found.number("lambda", self.lambda, usable, "0 or more");
        if self.dropout > 0.0 {
            let what = "with dropout the gradient of B·A is not the gradient of W, which Delta-LoRA takes it for";
            found.contradiction("dropout", what, "leave `dropout` out");
        }
        check_ranks(&self.shared(), found);
    }

    fn adapts_embeddings(&self) -> bool {
        false
    }

    /// The snapshot.
    fn frozen_parameters(&self, selected: &[Selected]) -> usize {
        selected.iter().map(|site| site.rank * (site.rows + site.cols)).sum()
    }

    fn warnings(&self, total_steps: usize) -> Vec<String> {
        let (first, last) = (self.start_step, total_steps);
        let never =
            format!("adapter.delta_lora.start_step is {first} and the run ends at step {last}: this is plain LoRA");
        if first >= last && self.lambda > 0.0 { vec![never] } else { Vec::new() }
    }

    /// Plain LoRA: of rank r until the snapshot is taken, of rank 2r from then on.
    fn saved_as(&self, total_steps: usize) -> AdapterConfig {
        let taken = self.lambda > 0.0 && total_steps >= self.start_step;
        LoraConfig::default().with(if taken { doubled(self.shared()) } else { self.shared() }).into()
    }

    fn export(&self, mut values: HostTensors, selected: &[Selected]) -> Result<(AdapterConfig, HostTensors)> {
        if self.lambda > 0.0 && is_taken(&values) {
            let lambda = self.lambda as f32;
            let values = stacked(values, selected, SNAPSHOT, [1.0 + lambda, -lambda])?;
            return Ok((LoraConfig::default().with(doubled(self.shared())).into(), values));
        }
        values.retain(|path, _| !is_snapshot(path));
        Ok((LoraConfig::default().with(self.shared()).into(), values))
    }
}

fn is_snapshot(path: &str) -> bool {
    SNAPSHOT.iter().any(|name| path.rsplit('.').next() == Some(name))
}

/// The snapshot is zero until step K, and A starts away from zero.
fn is_taken(values: &HostTensors) -> bool {
    let mut snapshots = values.iter().filter(|(path, _)| is_snapshot(path));
    snapshots.any(|(_, tensor)| tensor.values.iter().any(|value| *value != 0.0))
}

#[derive(Module, Debug)]
pub struct DeltaLora<B: Backend> {
    /// `[r, in]`
    pub lora_A: Param<Tensor<B, 2>>,
    /// `[out, r]`
    pub lora_B: Param<Tensor<B, 2>>,
    /// A right after step K, and zero before; frozen.
    pub snapshot_A: Param<Tensor<B, 2>>,
    /// B right after step K, and zero before; frozen.
    pub snapshot_B: Param<Tensor<B, 2>>,
    pub scaling: f64,
    pub lambda: f64,
    pub start_step: usize,
    /// Optimizer steps behind the adapter.
    step: usize,
}

impl<B: LowRankBackend> Method<B> for DeltaLora<B> {
    type Config = DeltaLoraConfig;

    fn new(site: &Selected, config: &DeltaLoraConfig, fresh: &mut Start<'_, B>) -> Result<Self> {
        let [a, b] = init::start(site, LoraInit::Default, fresh)?;
        let (r, [out, cols]) = (site.rank, site.outputs_and_inputs());
        let mut adapter = Self {
            lora_A: fresh.param(a, [r, cols]),
            lora_B: fresh.param(b, [out, r]),
            snapshot_A: fresh.frozen(vec![0.0; r * cols], [r, cols]),
            snapshot_B: fresh.frozen(vec![0.0; out * r], [out, r]),
            scaling: site.scaling,
            lambda: config.lambda,
            start_step: config.start_step,
            step: 0,
        };
        if config.start_step == 0 {
            adapter.take_snapshot();
        }
        Ok(adapter)
    }

    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        let product = LowRank::product(self.lora_A.val(), self.lora_B.val(), self.scaling);
        let y = base.base_with(x.clone(), product, pass);
        match self.moved() {
            Some(moved) => y + low_rank(x, moved),
            None => y,
        }
    }

    /// A checkpoint brings its snapshot along.
    fn at_step(&mut self, step: usize, moment: Moment) {
        self.step = step;
        if moment == Moment::Stepped && step == self.start_step {
            self.take_snapshot();
        }
    }
}

impl<B: LowRankBackend> DeltaLora<B> {
    /// `λ s (B A − B_K A_K)`, how far W has moved; none while that is nowhere.
    fn moved(&self) -> Option<LowRank<B>> {
        if self.lambda == 0.0 || self.step <= self.start_step {
            return None;
        }
        let down = Tensor::cat(vec![detached(&self.lora_A), self.snapshot_A.val()], 0);
        let up = Tensor::cat(vec![detached(&self.lora_B), self.snapshot_B.val().neg()], 1);
        Some(LowRank::product(down, up, self.lambda * self.scaling))
    }

    fn take_snapshot(&mut self) {
        self.snapshot_A = self.snapshot_A.clone().map(|_| detached(&self.lora_A));
        self.snapshot_B = self.snapshot_B.clone().map(|_| detached(&self.lora_B));
    }
}

/// The values, which no gradient reaches; burn's `detach` alone would make a new leaf that wants one.
fn detached<B: Backend>(param: &Param<Tensor<B, 2>>) -> Tensor<B, 2> {
    param.val().detach().set_require_grad(false)
}
