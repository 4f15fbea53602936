//! DoRA (Liu et al. 2024, arXiv 2402.09353), equations 5 and 11: the length of every row of the weight trains apart from its direction.
//!
//! ```text
//!     V = W + s B A,    y = b + c ⊙ V x,    c = m / ‖V‖           ‖V‖ [out]: lengths of V's rows, held constant going back
//!
//!     x ──┬─▶ W (frozen, out × in) ──────────▶ (+) ──▶ c ──▶ (+ b) ──▶ y
//!         └─▶ A (r × in) ──▶ s ──▶ B (out × r) ─┘
//! ```
//!
//! m starts as ‖V‖, so y is the base's. While x̃ drops entries of x, the base below c sees them dropped too, as in PEFT:
//! y = b + W (x − x̃) + c ⊙ V x̃. With a start that factorises W (see [`LoraInit`]) W is W − s B₀ A₀ throughout.
//!
//! The lengths come without V, which has the size of W: with W Aᵀ `[out, r]` and A Aᵀ `[r, r]`
//!
//! ```text
//!     ‖V_i‖² = ‖W_i‖² + ⟨B_i, 2 s (W Aᵀ)_i + s² (B A Aᵀ)_i⟩
//! ```
//!
//! and ‖W_i‖² is a constant. Between forward and backward V x (n × out) is kept beside what LoRA keeps. A row of V that is zero has no
//! direction: it stays zero.

#![allow(non_snake_case)]

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use lowrank_kernels::{LowRankBackend, scale_columns};

use super::lora::{self, Lora, START};
use super::method::{Method, Start, dropped, field};
use super::peft::Part;
use super::stacked::{doubled, stacked};
use super::{AdapterConfig, Findings, Lengths, LoraInit, ModuleKind, Selected, Shared, Spec, Update, method_config};
use crate::Result;
use crate::error::InputError;
use crate::nn::{Embedding, Linear, Pass, Weight};
use crate::tensors::HostTensors;

method_config! {
    pub struct DoraConfig: scaled {
        /// How A and B start.
        pub init: LoraInit = LoraInit::Default,
    }
}

impl Spec for DoraConfig {
    fn shared(&self) -> Shared {
        self.shared()
    }

    fn validate(&self, found: &mut Findings) {
        self.init.validate(&self.shared(), found);
    }

    fn chooses_start(&self) -> bool {
        self.init != LoraInit::Default
    }

    fn loftq(&self) -> Option<u16> {
        self.init.loftq()
    }

    fn refuses(&self, site: &Selected) -> Option<InputError> {
        self.init.refuses(site)
    }

    fn frozen_parameters(&self, selected: &[Selected]) -> usize {
        let start = if self.init.factorises() { 1 } else { 0 };
        let of = |site: &Selected| start * site.rank * (site.rows + site.cols) + site.outputs_and_inputs()[0];
        selected.iter().map(of).sum()
    }

    fn fields(&self, site: &Selected) -> Vec<(&'static str, Vec<usize>)> {
        let [out, _] = site.outputs_and_inputs();
        let mut fields = lora::fields(site);
        fields.push(("lora_magnitude_vector", vec![out]));
        fields
    }

    fn retained(&self, site: &Selected) -> usize {
        site.rank + site.cols + site.rows
    }

    fn saved_as(&self, _: usize) -> AdapterConfig {
        let saved = Self { init: self.init.saved(), ..self.clone() };
        if self.init.factorises() { saved.with(doubled(self.shared())).into() } else { saved.into() }
    }

    /// As for LoRA; V and so m stay what they are.
    fn export(&self, values: HostTensors, selected: &[Selected]) -> Result<(AdapterConfig, HostTensors)> {
        let values = if self.init.factorises() { stacked(values, selected, START, [1.0, -1.0])? } else { values };
        Ok((self.saved_as(0), values))
    }

    fn parts(&self, site: &Selected) -> Vec<(Part, Vec<usize>)> {
        let [out, _] = site.outputs_and_inputs();
        let mut parts = lora::parts(site);
        parts.push((Part::Magnitude, vec![out]));
        parts
    }

    fn update(&self, site: &Selected, values: &HostTensors) -> Result<Update> {
        let m = field(values, &site.path, "lora_magnitude_vector")?.values.clone();
        let magnitude = match site.kind {
            ModuleKind::Embedding => Lengths::Columns(m),
            _ => Lengths::Rows(m),
        };
        Ok(Update { magnitude: Some(magnitude), ..lora::product(site, values)? })
    }
}

#[derive(Module, Debug)]
pub struct Dora<B: Backend> {
    /// A and B. A field called `adapter` leaves no trace in the paths of parameters.
    pub adapter: Lora<B>,
    /// m `[out]`
    pub lora_magnitude_vector: Param<Tensor<B, 1>>,
    /// ‖W_i‖² `[out]`
    squares: Tensor<B, 1>,
}

impl<B: LowRankBackend> Method<B> for Dora<B> {
    type Config = DoraConfig;

    fn new(site: &Selected, config: &DoraConfig, fresh: &mut Start<'_, B>) -> Result<Self> {
        let adapter = Lora::start(site, config.init, config.dropout, fresh)?;
        let (weight, [out, _]) = (fresh.weight, site.outputs_and_inputs());
        let m = fresh.param(vec![0.0; out], [out]);
        let is_embedding = site.kind == ModuleKind::Embedding;
        let squares = squares(weight, if is_embedding { 0 } else { 1 });
        let mut dora = Self { adapter, lora_magnitude_vector: m, squares };
        let lengths = if is_embedding { dora.column_lengths(weight) } else { dora.row_lengths(weight) };
        dora.lora_magnitude_vector = Param::from_tensor(lengths.detach());
        Ok(dora)
    }

    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        let Lora { dropout, layer, .. } = self.adapter;
        let kept = dropped(x.clone(), dropout, layer, pass);
        let v = self.adapter.product(kept.clone(), &base.weight);
        let y = scale_columns(v, self.scale(self.row_lengths(&base.weight)));
        base.biased(match pass.dropout {
            Some(_) if dropout > 0.0 => {
                let lost = x - kept;
                let y = y + base.weight.matmul(lost.clone());
                self.adapter.start_term(lost).into_iter().fold(y, |y, start| y + start)
            }
            _ => y,
        })
    }

    fn embed(&self, ids: Tensor<B, 1, Int>, base: &Embedding<B>) -> Tensor<B, 2> {
        let scale = self.scale(self.column_lengths(&base.weight));
        scale_columns(self.adapter.embed(ids, base), scale)
    }
}

impl<B: LowRankBackend> Dora<B> {
    /// c `[out]`
    fn scale(&self, lengths: Tensor<B, 1>) -> Tensor<B, 1> {
        let zero = lengths.clone().equal_elem(0.0);
        self.lora_magnitude_vector.val() / lengths.mask_fill(zero, 1.0)
    }

    /// ‖V‖ `[out]` of a linear layer.
    fn row_lengths(&self, weight: &Weight<B>) -> Tensor<B, 1> {
        self.lengths(|a| weight.matmul(a))
    }

    /// ‖V‖ `[out]` of an embedding, whose stored weight is Wᵀ.
    fn column_lengths(&self, weight: &Weight<B>) -> Tensor<B, 1> {
        self.lengths(|a| weight.matmul_transposed(a))
    }

    /// ‖V‖ `[out]`, where `project` takes `A [r, in]` to `A Wᵀ [r, out]`. Nothing here has a gradient.
    fn lengths(&self, project: impl Fn(Tensor<B, 2>) -> Tensor<B, 2>) -> Tensor<B, 1> {
        let (s, [a, b]) = (self.adapter.scaling, self.adapter.whole_product());
        let gram = a.clone().matmul(a.clone().transpose());
        let inner = project(a).transpose().mul_scalar(2.0 * s) + b.clone().matmul(gram).mul_scalar(s * s);
        let change = (b * inner).sum_dim(1).reshape([-1]);
        // Rounding can take the sum below zero where the correction undoes a row.
        (self.squares.clone() + change).clamp_min(0.0).sqrt()
    }
}

/// Sums of squares of a stored weight along `dim`, of some rows at a time.
fn squares<B: LowRankBackend>(weight: &Weight<B>, dim: usize) -> Tensor<B, 1> {
    const ROWS: usize = 1024;
    let [rows, _] = weight.shape();
    let part = |from: usize| {
        let ids = Tensor::arange(from as i64..(from + ROWS).min(rows) as i64, &weight.device());
        weight.rows(ids).detach().powi_scalar(2).sum_dim(dim).reshape([-1])
    };
    let parts = (0..rows).step_by(ROWS).map(part);
    if dim == 1 {
        Tensor::cat(parts.collect(), 0)
    } else {
        parts.reduce(|sum, part| sum + part).unwrap_or_else(|| part(0))
    }
}

#[cfg(test)]
mod tests;
