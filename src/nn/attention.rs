//! Causal self-attention with grouped queries, rotary positions and a key/value cache.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::{
    AttentionLayout, Heads, LowRankBackend, PositionTensors, Positions, attend, join_heads, split_heads,
};

use super::{Linear, Pass, rotary_tables};
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

/// Keys and values seen so far, `[batch, kv_heads, seen, head_dim]`.
#[derive(Clone, Debug)]
pub struct LayerCache<B: Backend> {
    keys: Tensor<B, 4>,
    values: Tensor<B, 4>,
}

/// Positions of the new tokens of one row, whose earlier ones are in a cache.
#[derive(Clone, Debug)]
pub struct NewTokens<B: Backend> {
    at: PositionTensors<B>,
    len: usize,
}

/// Shape, rotations and visibility of one batch, shared by all layers.
pub fn positions(batch: &Batch, frequencies: &[f32]) -> Positions {
    let (cos, sin) = rotary_tables(&batch.position, frequencies);
    Positions { batch: batch.rows, len: batch.len, cos, sin, segment: batch.segment.clone() }
}

impl<B: Backend> NewTokens<B> {
    /// `len` tokens from position `start` on.
    pub fn new(start: usize, len: usize, frequencies: &[f32], device: &B::Device) -> Self {
        let position: Vec<i32> = (start as i32..).take(len).collect();
        let (cos, sin) = rotary_tables(&position, frequencies);
        let positions = Positions { batch: 1, len, cos, sin, segment: vec![1; len] };
        Self { at: positions.tensors(device), len }
    }
}

impl<B: LowRankBackend> Attention<B> {
    /// `[batch × len, hidden] → [batch × len, hidden]`.
    pub fn forward(&self, x: Tensor<B, 2>, layout: &AttentionLayout<B>, pass: Pass) -> Tensor<B, 2> {
        let q = self.q_proj.forward(x.clone(), pass);
        let k = self.k_proj.forward(x.clone(), pass);
        let v = self.v_proj.forward(x, pass);
        let heads = Heads { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim };
        self.o_proj.forward(layout.attention(q, k, v, heads), pass)
    }

    /// The same for the new tokens of one row, `[len, hidden] → [len, hidden]`; extends `cache`. Several tokens at once
    /// are only right where the cache is empty; a single one sees all of it.
    pub fn cached(&self, x: Tensor<B, 2>, new: &NewTokens<B>, cache: &mut Option<LayerCache<B>>) -> Tensor<B, 2> {
        let shape = [1, new.len];
        let q = split_heads(self.q_proj.forward(x.clone(), Pass::EVAL), shape, self.heads);
        let k = split_heads(self.k_proj.forward(x.clone(), Pass::EVAL), shape, self.kv_heads);
        let v = split_heads(self.v_proj.forward(x, Pass::EVAL), shape, self.kv_heads);
        let (q, k) = (new.at.rotate(q), new.at.rotate(k));
        let (k, v) = match cache.take() {
            Some(old) => (Tensor::cat(vec![old.keys, k], 2), Tensor::cat(vec![old.values, v], 2)),
            None => (k, v),
        };
        *cache = Some(LayerCache { keys: k.clone(), values: v.clone() });
        let y = if new.len == 1 { attend(q, k, v, None) } else { new.at.attend(q, k, v) };
        self.o_proj.forward(join_heads(y), Pass::EVAL)
    }
}
