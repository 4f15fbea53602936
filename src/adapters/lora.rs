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
//! are looked up instead of multiplied.

#![allow(non_snake_case)]

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use lowrank_kernels::{LowRank, LowRankBackend, low_rank, path_hash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::method::{Method, Start, dropped, field};
use super::{AdapterConfig, Findings, ModuleKind, Selected, Shared, Spec, Update, method_config, random};
use crate::Result;
use crate::error::InputError;
use crate::nn::{Embedding, Linear, Pass};
use crate::tensors::{HostTensor, HostTensors};

method_config! {
    pub struct LoraConfig: scaled {
        /// How A and B start.
        pub init: LoraInit = LoraInit::Default,
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// A uniform in ±1/sqrt(in), B zero (PEFT's `true`).
    #[default]
    Default,
    /// A normal with deviation 1/rank, B zero.
    Gaussian,
    /// A and B from the halves of one orthogonal matrix (even ranks only).
    Orthogonal,
}

impl Spec for LoraConfig {
    fn shared(&self) -> Shared {
        self.shared()
    }

    fn validate(&self, found: &mut Findings) {
        if self.init == LoraInit::Orthogonal
            && let Some(odd) = self.rank_pattern.values().chain([&self.rank]).find(|rank| *rank % 2 == 1)
        {
            let what = "orthogonal initialisation halves the rank, so it must be even";
            found.push("init", InputError::new(what).found(odd));
        }
    }

    fn chooses_start(&self) -> bool {
        self.init != LoraInit::Default
    }

    fn export(&self, values: HostTensors, _: &[Selected]) -> Result<(AdapterConfig, HostTensors)> {
        Ok((self.clone().into(), values))
    }
}

/// `scaling · B · A` as a change of the weight as it is stored, `[rows, cols]`; on an embedding that is `(B · A)ᵀ`.
pub fn product(site: &Selected, values: &HostTensors) -> Result<Update> {
    let (a, b) = (field(values, &site.path, "lora_A")?, field(values, &site.path, "lora_B")?);
    let (left, right) = match site.kind {
        ModuleKind::Embedding => (transposed(a), transposed(b)),
        _ => (b.values.clone(), a.values.clone()),
    };
    Ok(Update { left, right, rank: site.rank, cols: site.cols, scaling: site.scaling as f32, magnitude: None })
}

/// Values of a matrix, columns first.
fn transposed(matrix: &HostTensor) -> Vec<f32> {
    let cols = matrix.shape.last().copied().unwrap_or(0);
    (0..cols).flat_map(|col| matrix.values.iter().skip(col).step_by(cols)).copied().collect()
}

/// A `[r, in]` and B `[out, r]` as LoRA starts them; on an embedding A is the zero side.
pub(super) fn start<B: LowRankBackend>(site: &Selected, init: LoraInit, start: &Start<'_, B>) -> [Vec<f32>; 2] {
    let (r, [out, cols]) = (site.rank, site.outputs_and_inputs());
    let stream = start.stream(site);
    match (site.kind, init) {
        (ModuleKind::Embedding, _) => [vec![0.0; r * cols], stream.normal(out * r, 1.0)],
        (_, LoraInit::Default) => [stream.uniform(r * cols, 1.0 / (cols as f64).sqrt()), vec![0.0; out * r]],
        (_, LoraInit::Gaussian) => [stream.normal(r * cols, 1.0 / r as f64), vec![0.0; out * r]],
        (_, LoraInit::Orthogonal) => random::orthogonal_pair(&stream, r, out, cols).into(),
    }
}

#[derive(Module, Debug)]
pub struct Lora<B: Backend> {
    /// `[r, in]`
    pub lora_A: Param<Tensor<B, 2>>,
    /// `[out, r]`
    pub lora_B: Param<Tensor<B, 2>>,
    pub scaling: f64,
    pub dropout: f64,
    /// Names this layer's dropout masks.
    layer: u64,
}

impl<B: LowRankBackend> Method<B> for Lora<B> {
    type Config = LoraConfig;

    fn new(site: &Selected, config: &LoraConfig, fresh: &mut Start<'_, B>) -> Result<Self> {
        let [a, b] = start(site, config.init, fresh);
        let (r, [out, cols]) = (site.rank, site.outputs_and_inputs());
        Ok(Self {
            lora_A: fresh.param(a, [r, cols]),
            lora_B: fresh.param(b, [out, r]),
            scaling: site.scaling,
            dropout: config.dropout,
            layer: path_hash(&site.path),
        })
    }

    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        let y = base.base(x.clone());
        let x = dropped(x, self.dropout, self.layer, pass);
        y + low_rank(x, LowRank::product(self.lora_A.val(), self.lora_B.val(), self.scaling))
    }

    fn embed(&self, ids: Tensor<B, 1, Int>, base: &Embedding<B>) -> Tensor<B, 2> {
        embed(ids, base, self.lora_A.val(), self.lora_B.val(), self.scaling)
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
    use burn::tensor::TensorData;
    use lowrank_kernels::DropoutKey;

    use super::*;
    use crate::adapters::fixtures::{B, assert_close, golden, linear, param, tensor};
    use crate::nn::{Storage, Weight};
    use crate::recipe::BaseDtype;

    fn lora(tensors: &HostTensors, [a, b]: [&str; 2], scaling: f64) -> Lora<B> {
        Lora { lora_A: param(tensors, a), lora_B: param(tensors, b), scaling, dropout: 0.0, layer: 1 }
    }

    #[test]
    fn a_linear_layer_equals_peft_forward_and_in_every_gradient() {
        let cases = [
            ("linear_a_lora", 2.0),
            ("linear_a_lora_nobias", 2.0),
            ("linear_a_lora_rslora", 4.0),
            ("linear_b_lora", 5.0 / 3.0),
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
        // The ids are i64, which the tensor reader has no use for.
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/embedding_lora.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let values = |name: &str| -> Vec<f32> {
            file.tensor(name)
                .unwrap()
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect()
        };
        let host = |name: &str, shape: [usize; 2]| {
            (name.to_string(), crate::tensors::HostTensor { shape: shape.to_vec(), values: values(name) })
        };
        let golden = HostTensors::from([
            host("weight", [11, 8]),
            host("lora_embedding_A", [3, 11]),
            host("lora_embedding_B", [8, 3]),
            host("grad_lora_embedding_A", [3, 11]),
            host("grad_lora_embedding_B", [8, 3]),
            host("g", [8, 8]),
            host("y", [8, 8]),
        ]);
        let ids: Vec<i32> = file.tensor("x").unwrap().data().chunks_exact(8).map(|b| i32::from(b[0])).collect();
        let storage = Storage::<B>::new(BaseDtype::F32, &Default::default());
        let base = Embedding { weight: storage.weight(values("weight"), [11, 8]), adapter: None };
        let lora = lora(&golden, ["lora_embedding_A", "lora_embedding_B"], 2.0);
        let y = lora.embed(Tensor::from_data(TensorData::from(&ids[..]), &Default::default()), &base);
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
            let pass = Pass { dropout: Some(DropoutKey { seed: 5, step, micro: 0 }) };
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
