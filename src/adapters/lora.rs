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
use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::{LowRankBackend, dropout_mask, path_hash};

use super::random::{self, Stream};
use super::{LoraConfig, LoraInit, ModuleKind, Selected};
use crate::nn::{Embedding, Linear, Pass};

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

impl<B: LowRankBackend> Lora<B> {
    /// A fresh pair for `site`; random parts depend on `seed` and the path alone.
    pub fn new(site: &Selected, config: &LoraConfig, seed: u64, device: &B::Device) -> Self {
        let r = site.rank;
        let (out, cols) =
            if site.kind == ModuleKind::Embedding { (site.cols, site.rows) } else { (site.rows, site.cols) };
        let stream = Stream::new(seed, &site.path);
        let (a, b) = match (site.kind, config.init) {
            (ModuleKind::Embedding, _) => (vec![0.0; r * cols], stream.normal(out * r, 1.0)),
            (_, LoraInit::Default) => (stream.uniform(r * cols, 1.0 / (cols as f64).sqrt()), vec![0.0; out * r]),
            (_, LoraInit::Gaussian) => (stream.normal(r * cols, 1.0 / r as f64), vec![0.0; out * r]),
            (_, LoraInit::Orthogonal) => random::orthogonal_pair(&stream, r, out, cols),
        };
        let param = |values, shape| Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device));
        Self {
            lora_A: param(a, [r, cols]),
            lora_B: param(b, [out, r]),
            scaling: site.scaling,
            dropout: config.dropout,
            layer: path_hash(&site.path),
        }
    }

    /// `[n, in] → [n, out]`.
    pub fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        let y = base.base(x.clone());
        let down = self.drop(x, pass).matmul(self.lora_A.val().transpose());
        y + down.mul_scalar(self.scaling).matmul(self.lora_B.val().transpose())
    }

    /// `[n] → [n, hidden]`.
    pub fn embed(&self, ids: Tensor<B, 1, Int>, base: &Embedding<B>) -> Tensor<B, 2> {
        let y = base.base(ids.clone());
        let down = self.lora_A.val().select(1, ids).transpose();
        y + down.mul_scalar(self.scaling).matmul(self.lora_B.val().transpose())
    }

    fn drop(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        match pass.dropout {
            Some(key) if self.dropout > 0.0 => {
                let mask = dropout_mask(x.dims(), self.dropout, key.layer(self.layer), &x.device());
                x * mask
            }
            _ => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::module::ParamId;
    use burn::tensor::backend::Backend;
    use lowrank_kernels::DropoutKey;
    use lowrank_kernels::testing::TestAutodiff;

    use super::*;
    use crate::nn::{Storage, Weight};
    use crate::recipe::BaseDtype;
    use crate::tensors::{HostTensors, decode};

    type B = TestAutodiff;

    fn golden(name: &str) -> HostTensors {
        let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        decode(&std::fs::read(&path).unwrap(), Path::new(&path)).unwrap()
    }

    fn tensor<const D: usize>(tensors: &HostTensors, name: &str) -> Tensor<B, D> {
        let host = &tensors[name];
        Tensor::from_data(TensorData::new(host.values.clone(), host.shape.clone()), &Default::default())
    }

    fn param(tensors: &HostTensors, name: &str) -> Param<Tensor<B, 2>> {
        Param::initialized(ParamId::new(), tensor(tensors, name)).set_require_grad(true)
    }

    #[track_caller]
    fn assert_close<T: Backend, const D: usize>(found: Tensor<T, D>, expected: &HostTensors, name: &str) {
        let found = found.into_data().to_vec::<f32>().unwrap();
        let expected = &expected[name].values;
        assert_eq!(found.len(), expected.len(), "{name}");
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-5, "{name} differs by {worst}");
    }

    fn linear(tensors: &HostTensors) -> Linear<B> {
        let storage = Storage::<B>::new(BaseDtype::F32, &Default::default());
        let weight = &tensors["weight"];
        let bias = tensors.get("bias").map(|bias| storage.vector(bias.values.clone()));
        Linear::new(storage.weight(weight.values.clone(), [weight.shape[0], weight.shape[1]]), bias)
    }

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
