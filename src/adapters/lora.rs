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
        let (out, cols) = if site.kind == ModuleKind::Embedding { (site.cols, site.rows) } else { (site.rows, site.cols) };
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
