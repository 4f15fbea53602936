//! LoRA (Hu et al. 2021, arXiv 2106.09685), equation 3:
//!
//! ```text
//!     y = W x + b  +  s · B (A drop(x))          s = alpha / r, or alpha / sqrt(r) with rslora
//!
//!     x ──▶ W (frozen, out × in) ────────────▶ (+) ──▶ y
//!     └───▶ A (r × in) ──▶ s ──▶ B (out × r) ───┘
//! ```
//!
//! A and B train, W never does, and B·A is never formed. On an embedding x is one-hot: A's columns
//! are looked up instead of multiplied. With a start that factorises W ([`LoraInit::factorises`]) the base loses what A and B
//! start from, as one frozen term of its own, which needs no x going back and sees x whole where the other sees it dropped:
//!
//! ```text
//!     y = W x + b  +  s · (B A drop(x) − B₀ A₀ x)
//! ```
//!
//! Both products are equal at the start and taken from each other before W x is added, so y is the base's, to f32 rounding.

#![allow(non_snake_case)]

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use lowrank_kernels::{LowRank, LowRankBackend, low_rank, path_hash};

use super::method::{Method, Start, dropped, drops, field};
use super::peft::Part;
use super::stacked::{doubled, stacked};
use super::{AdapterConfig, Findings, LoraInit, ModuleKind, Selected, Shared, Spec, Update, init, method_config};
use crate::Result;
use crate::error::InputError;
use crate::linalg::transposed;
use crate::nn::{Embedding, Linear, Pass, Weight};
use crate::tensors::HostTensors;

method_config! {
    pub struct LoraConfig: scaled {
        /// How A and B start.
        pub init: LoraInit = LoraInit::Default,
    }
}

/// The fields that hold A₀ and B₀.
pub(super) const START: [&str; 2] = ["start_A", "start_B"];

impl Spec for LoraConfig {
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
        let start = |site: &Selected| site.rank * (site.rows + site.cols);
        if self.init.factorises() { selected.iter().map(start).sum() } else { 0 }
    }

    /// PEFT would look for a changed base under a start that factorises: what is saved is a plain product over the original.
    fn saved_as(&self, _: usize) -> AdapterConfig {
        let saved = Self { init: self.init.saved(), ..self.clone() };
        if self.init.factorises() { saved.with(doubled(self.shared())).into() } else { saved.into() }
    }

    fn export(&self, values: HostTensors, selected: &[Selected]) -> Result<(AdapterConfig, HostTensors)> {
        let values = if self.init.factorises() { stacked(values, selected, START, [1.0, -1.0])? } else { values };
        Ok((self.saved_as(0), values))
    }
}

/// A and B.
pub(super) fn fields(site: &Selected) -> Vec<(&'static str, Vec<usize>)> {
    let [out, cols] = site.outputs_and_inputs();
    vec![("lora_A", vec![site.rank, cols]), ("lora_B", vec![out, site.rank])]
}

/// A and B in PEFT's file.
pub(super) fn parts(site: &Selected) -> Vec<(Part, Vec<usize>)> {
    let [out, cols] = site.outputs_and_inputs();
    let [a, b] = match site.kind {
        ModuleKind::Embedding => [Part::EmbeddingA, Part::EmbeddingB],
        _ => [Part::LoraA, Part::LoraB],
    };
    vec![(a, vec![site.rank, cols]), (b, vec![out, site.rank])]
}

/// `scaling · B · A` as a change of the weight as it is stored, `[rows, cols]`; on an embedding that is `(B · A)ᵀ`.
pub fn product(site: &Selected, values: &HostTensors) -> Result<Update> {
    let (a, b) = (field(values, &site.path, "lora_A")?, field(values, &site.path, "lora_B")?);
    let (left, right) = match site.kind {
        ModuleKind::Embedding => (transposed(&a.values, site.rows), transposed(&b.values, site.rank)),
        _ => (b.values.clone(), a.values.clone()),
    };
    Ok(Update { left, right, rank: site.rank, cols: site.cols, scaling: site.scaling as f32, magnitude: None })
}

#[derive(Module, Debug)]
pub struct Lora<B: Backend> {
    /// `[r, in]`
    pub lora_A: Param<Tensor<B, 2>>,
    /// `[out, r]`
    pub lora_B: Param<Tensor<B, 2>>,
    /// A₀ and B₀ of a start that factorises the weight: frozen.
    pub start_A: Option<Param<Tensor<B, 2>>>,
    pub start_B: Option<Param<Tensor<B, 2>>>,
    pub scaling: f64,
    pub dropout: f64,
    /// Names this layer's dropout masks.
    pub(super) layer: u64,
}

impl<B: LowRankBackend> Method<B> for Lora<B> {
    type Config = LoraConfig;

    fn new(site: &Selected, config: &LoraConfig, fresh: &mut Start<'_, B>) -> Result<Self> {
        Self::start(site, config.init, config.dropout, fresh)
    }

    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        if self.start_A.is_none() && pass.meter.is_none() && !drops(self.dropout, pass) {
            return base.base_with(x, self.trained_term(), pass);
        }
        let y = base.base(x.clone());
        let kept = dropped(x.clone(), self.dropout, self.layer, pass);
        let correction = self.correction(kept, x);
        pass.measure(self.layer, &correction);
        y + correction
    }

    fn embed(&self, ids: Tensor<B, 1, Int>, base: &Embedding<B>) -> Tensor<B, 2> {
        embed(ids, base, self.lora_A.val(), self.lora_B.val(), self.scaling)
    }
}

impl<B: LowRankBackend> Lora<B> {
    pub(super) fn start(site: &Selected, init: LoraInit, dropout: f64, fresh: &Start<'_, B>) -> Result<Self> {
        let [a, b] = init::start(site, init, fresh)?;
        let (r, [out, cols]) = (site.rank, site.outputs_and_inputs());
        let start = |values: &[f32], shape| init.factorises().then(|| fresh.frozen(values.to_vec(), shape));
        Ok(Self {
            start_A: start(&a, [r, cols]),
            start_B: start(&b, [out, r]),
            lora_A: fresh.param(a, [r, cols]),
            lora_B: fresh.param(b, [out, r]),
            scaling: site.scaling,
            dropout,
            layer: path_hash(&site.path),
        })
    }

    /// `W x + s · (B A − B₀ A₀) x`, without a bias.
    pub(super) fn product(&self, x: Tensor<B, 2>, weight: &Weight<B>) -> Tensor<B, 2> {
        match self.start_A {
            None => weight.matmul_with(x, self.trained_term()),
            // Fresh terms that undo each other do so before they are added.
            Some(_) => weight.matmul(x.clone()) + self.correction(x.clone(), x),
        }
    }

    /// `s · (B A kept − B₀ A₀ x)`: `kept` is x with entries dropped.
    pub(super) fn correction(&self, kept: Tensor<B, 2>, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let trained = low_rank(kept, self.trained_term());
        match self.start_term(x) {
            Some(start) => trained + start,
            None => trained,
        }
    }

    fn trained_term(&self) -> LowRank<B> {
        LowRank::product(self.lora_A.val(), self.lora_B.val(), self.scaling)
    }

    /// `− s · B₀ A₀ x`, after a start that factorises the weight.
    pub(super) fn start_term(&self, x: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        let (a, b) = (self.start_A.as_ref()?, self.start_B.as_ref()?);
        Some(low_rank(x, LowRank::product(a.val(), b.val(), -self.scaling)))
    }

    /// A and B whose scaled product is all that the adapter adds to W, without gradient: `[A; A₀]` and `[B, −B₀]` after such a start.
    pub(super) fn whole_product(&self) -> [Tensor<B, 2>; 2] {
        let (a, b) = (self.lora_A.val().detach(), self.lora_B.val().detach());
        match (&self.start_A, &self.start_B) {
            (Some(a0), Some(b0)) => [Tensor::cat(vec![a, a0.val()], 0), Tensor::cat(vec![b, b0.val().neg()], 1)],
            _ => [a, b],
        }
    }
}

/// Table lookup and correction `[n, hidden]`: x is one-hot, so A's columns are looked up instead of multiplied.
pub(super) fn embed<B: LowRankBackend>(
    ids: Tensor<B, 1, Int>,
    base: &Embedding<B>,
    a: Tensor<B, 2>,
    b: Tensor<B, 2>,
    scaling: f64,
) -> Tensor<B, 2> {
    let y = base.base(ids.clone());
    y + a.select(1, ids).transpose().mul_scalar(scaling).matmul(b.transpose())
}

#[cfg(test)]
mod tests {
    use lowrank_kernels::DropoutKey;

    use super::*;
    use crate::adapters::fixtures::{B, assert_close, embedding, golden, golden_embedding, linear, param, tensor};
    use crate::nn::Weight;

    fn lora(tensors: &HostTensors, [a, b]: [&str; 2], scaling: f64) -> Lora<B> {
        let (lora_A, lora_B) = (param(tensors, a), param(tensors, b));
        Lora { lora_A, lora_B, start_A: None, start_B: None, scaling, dropout: 0.0, layer: 1 }
    }

    #[test]
    fn a_linear_layer_equals_peft_forward_and_in_every_gradient() {
        let cases = [
            ("linear_a_lora", 2.0),
            ("linear_a_lora_nobias", 2.0),
            ("linear_a_lora_rslora", 4.0),
            ("linear_b_lora", 5.0 / 3.0),
            ("linear_b_lora_nobias", 5.0 / 3.0),
            ("linear_b_lora_rslora", 5.0 / 3f64.sqrt()),
            // As PEFT starts them.
            ("init_a_default", 2.0),
            ("init_a_gaussian", 2.0),
            ("init_a_orthogonal", 2.0),
            ("init_b_default", 5.0 / 3.0),
            ("init_b_gaussian", 5.0 / 3.0),
            ("init_b_orthogonal", 5.0 / 4.0),
        ];
        for (name, scaling) in cases {
            let golden = golden(name);
            let (base, lora) = (linear(&golden), lora(&golden, ["lora_A", "lora_B"], scaling));
            let x = tensor::<2>(&golden, "x").require_grad();
            let y = lora.forward(x.clone(), &base, Pass::EVAL);
            let grads = (y.clone() * tensor(&golden, "g")).sum().backward();
            assert_close(y.inner(), &golden, "y");
            assert_close(x.grad(&grads).unwrap(), &golden, "grad_x");
            assert_close(lora.lora_A.grad(&grads).unwrap(), &golden, "grad_lora_A");
            assert_close(lora.lora_B.grad(&grads).unwrap(), &golden, "grad_lora_B");
            let Weight::Dense(weight) = &base.weight else { unreachable!() };
            assert!(weight.grad(&grads).is_none(), "the frozen weight has no gradient");
        }
    }

    #[test]
    fn an_embedding_equals_peft_forward_and_in_every_gradient() {
        let (golden, ids) = golden_embedding("embedding_lora");
        let base = embedding(&golden);
        let lora = lora(&golden, ["lora_embedding_A", "lora_embedding_B"], 2.0);
        let y = lora.embed(ids, &base);
        let grads = (y.clone() * tensor(&golden, "g")).sum().backward();
        assert_close(y.inner(), &golden, "y");
        assert_close(lora.lora_A.grad(&grads).unwrap(), &golden, "grad_lora_embedding_A");
        assert_close(lora.lora_B.grad(&grads).unwrap(), &golden, "grad_lora_embedding_B");
    }

    #[test]
    fn the_expectation_over_dropout_masks_is_the_branch_without_dropout() {
        let golden = golden("linear_a_lora");
        let base = linear(&golden);
        let lora = Lora { dropout: 0.4, ..lora(&golden, ["lora_A", "lora_B"], 2.0) };
        let x = tensor::<2>(&golden, "x");
        let draws = 4000;
        let mut sum = vec![0f64; 80];
        for step in 0..draws {
            let pass = Pass { dropout: Some(DropoutKey { seed: 5, step, micro: 0 }), ..Pass::EVAL };
            let y = lora.forward(x.clone(), &base, pass).into_data().to_vec::<f32>().unwrap();
            sum.iter_mut().zip(y).for_each(|(sum, y)| *sum += f64::from(y));
        }
        let expected = &golden["y"].values;
        let worst =
            sum.iter().zip(expected).map(|(sum, y)| (sum / draws as f64 - f64::from(*y)).abs()).fold(0.0, f64::max);
        // The branch is of order one; the mean of 4000 draws is within a few hundredths.
        assert!(worst < 0.15, "{worst}");
        let evaluated = lora.forward(x, &base, Pass::EVAL);
        assert_close(evaluated.inner(), &golden, "y");
    }

    #[test]
    fn doubling_alpha_doubles_the_update_exactly() {
        let golden = golden("linear_a_lora_nobias");
        let update = |scaling| {
            let mut zero = golden.clone();
            zero["weight"].values.fill(0.0);
            let lora = lora(&golden, ["lora_A", "lora_B"], scaling);
            lora.forward(tensor(&golden, "x"), &linear(&zero), Pass::EVAL).into_data().to_vec::<f32>().unwrap()
        };
        assert_eq!(update(2.0), update(1.0).iter().map(|y| 2.0 * y).collect::<Vec<_>>());
    }
}
