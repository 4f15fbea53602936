//! Causal self-attention with grouped queries.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::{Heads, LowRankBackend};

use super::{At, Linear, Pass, RmsNorm};

#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    pub q_proj: Linear<B>,
    pub k_proj: Linear<B>,
    pub v_proj: Linear<B>,
    pub o_proj: Linear<B>,
    /// Over each head of the queries, before rotation (Henry et al. 2020).
    pub q_norm: Option<RmsNorm<B>>,
    pub k_norm: Option<RmsNorm<B>>,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    #[module(skip)]
    pub form: AttentionForm,
}

/// In what the attention of a family differs from Llama's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionForm {
    /// The scores are divided by its root; by that of `head_dim` where there is none.
    pub scale: Option<f64>,
    pub pairs: Pairs,
}

/// Which two dimensions of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// One of the first half and one of the second.
    Halves,
    /// Neighbours.
    Neighbours,
}

impl Default for AttentionForm {
    fn default() -> Self {
        Self { scale: None, pairs: Pairs::Halves }
    }
}

impl<B: LowRankBackend> Attention<B> {
    /// `[n, hidden] → [n, hidden]`.
    pub fn forward(&self, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let q = self.arranged(self.q_proj.forward(x.clone(), pass), self.q_norm.as_ref());
        let k = self.arranged(self.k_proj.forward(x.clone(), pass), self.k_norm.as_ref());
        let v = self.v_proj.forward(x, pass);
        let q = match self.form.scale {
            Some(scale) => q.mul_scalar((self.head_dim as f64 / scale).sqrt()),
            None => q,
        };
        let heads = Heads { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim };
        self.o_proj.forward(at.attention(q, k, v, heads), pass)
    }

    /// Queries or keys as they are rotated. Scores do not change when the dimensions of both are reordered alike.
    fn arranged(&self, x: Tensor<B, 2>, norm: Option<&RmsNorm<B>>) -> Tensor<B, 2> {
        let x = match norm {
            Some(norm) => norm.per_head(x),
            None => x,
        };
        match self.form.pairs {
            Pairs::Halves => x,
            Pairs::Neighbours => {
                let [n, all] = x.dims();
                x.reshape([n * all / self.head_dim, self.head_dim / 2, 2]).swap_dims(1, 2).reshape([n, all])
            }
        }
    }
}
