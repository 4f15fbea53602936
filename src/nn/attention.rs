//! Causal self-attention with grouped queries, rotary positions and a key/value cache.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation};
use lowrank_kernels::LowRankBackend;

use super::{Linear, Pass, Rotary};
use crate::data::Batch;

#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    pub q_proj: Linear<B>,
    pub k_proj: Linear<B>,
    pub v_proj: Linear<B>,
    pub o_proj: Linear<B>,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// Shape, rotary tables and mask of one batch, shared by all layers.
#[derive(Clone, Debug)]
pub struct Layout<B: Backend> {
    pub batch: usize,
    pub len: usize,
    rotary: Rotary<B>,
    /// Added to the scores, `[batch, 1, len, keys]`; absent when every key may be seen.
    mask: Option<Tensor<B, 4>>,
}

/// Keys and values seen so far, `[batch, kv_heads, seen, head_dim]`.
#[derive(Clone, Debug)]
pub struct LayerCache<B: Backend> {
    pub keys: Tensor<B, 4>,
    pub values: Tensor<B, 4>,
}

impl<B: Backend> Layout<B> {
    /// Tokens see earlier tokens of their own segment.
    pub fn new(batch: &Batch, frequencies: &[f32], device: &B::Device) -> Self {
        let (rows, len) = (batch.rows, batch.len);
        let mut mask = vec![HIDDEN; rows * len * len];
        for (row, segments) in batch.segment.chunks_exact(len).enumerate() {
            for query in 0..len {
                let visible = (0..=query).filter(|&key| segments[key] == segments[query]);
                visible.for_each(|key| mask[(row * len + query) * len + key] = 0.0);
            }
        }
        let mask = Tensor::from_data(TensorData::new(mask, [rows, 1, len, len]), device);
        let rotary = Rotary::new(&batch.position, [rows, len], frequencies, device);
        Self { batch: rows, len, rotary, mask: Some(mask) }
    }

    /// One new token at `position`, which sees everything in the cache.
    pub fn next_token(position: usize, frequencies: &[f32], device: &B::Device) -> Self {
        let rotary = Rotary::new(&[position as i32], [1, 1], frequencies, device);
        Self { batch: 1, len: 1, rotary, mask: None }
    }
}

/// Low enough that its exponential is 0, high enough to stay finite when scores are added.
const HIDDEN: f32 = -1e30;

impl<B: LowRankBackend> Attention<B> {
    /// `[batch × len, hidden] → [batch × len, hidden]`; extends `cache` when there is one.
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        layout: &Layout<B>,
        cache: Option<&mut Option<LayerCache<B>>>,
        pass: Pass,
    ) -> Tensor<B, 2> {
        let q = self.split(self.q_proj.forward(x.clone(), pass), self.heads, layout);
        let k = self.split(self.k_proj.forward(x.clone(), pass), self.kv_heads, layout);
        let v = self.split(self.v_proj.forward(x, pass), self.kv_heads, layout);
        let (q, k) = (layout.rotary.apply(q), layout.rotary.apply(k));
        let (k, v) = match cache {
            Some(cache) => extend(cache, k, v),
            None => (k, v),
        };
        let y = self.attend(q, k, v, layout).swap_dims(1, 2);
        let y = y.reshape([layout.batch * layout.len, self.heads * self.head_dim]);
        self.o_proj.forward(y, pass)
    }

    /// `[batch × len, heads × head_dim] → [batch, heads, len, head_dim]`.
    fn split(&self, x: Tensor<B, 2>, heads: usize, layout: &Layout<B>) -> Tensor<B, 4> {
        x.reshape([layout.batch, layout.len, heads, self.head_dim]).swap_dims(1, 2)
    }

    /// Queries of one group share their keys and values: they are rows of one product, nothing is repeated.
    fn attend(&self, q: Tensor<B, 4>, k: Tensor<B, 4>, v: Tensor<B, 4>, layout: &Layout<B>) -> Tensor<B, 4> {
        let (batch, len, keys) = (layout.batch, layout.len, k.dims()[2]);
        let grouped = [batch, self.kv_heads, self.heads / self.kv_heads * len, self.head_dim];
        let q = q.mul_scalar(1.0 / (self.head_dim as f64).sqrt()).reshape(grouped);
        let scores = q.matmul(k.transpose()).reshape([batch, self.heads, len, keys]);
        let scores = match &layout.mask {
            Some(mask) => scores + mask.clone(),
            None => scores,
        };
        let weights = activation::softmax(scores, 3).reshape([batch, self.kv_heads, grouped[2], keys]);
        weights.matmul(v).reshape([batch, self.heads, len, self.head_dim])
    }
}

fn extend<B: Backend>(
    cache: &mut Option<LayerCache<B>>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
) -> (Tensor<B, 4>, Tensor<B, 4>) {
    let (keys, values) = match cache.take() {
        Some(old) => (Tensor::cat(vec![old.keys, k], 2), Tensor::cat(vec![old.values, v], 2)),
        None => (k, v),
    };
    *cache = Some(LayerCache { keys: keys.clone(), values: values.clone() });
    (keys, values)
}
