//! Causal attention with rotary positions and grouped queries, in plain tensor operations, and the interface of
//! backends that have kernels for it.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData, activation};

use crate::{LowRankBackend, TrainBackend};

/// Heads of one layer; queries are `heads / kv_heads` to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// What all layers of one forward share, on the host.
#[derive(Debug)]
pub struct Positions {
    pub batch: usize,
    pub len: usize,
    /// Cosine and sine of every rotation, `[batch × len, head_dim / 2]`.
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    /// Tokens see earlier tokens of their own segment, `[batch × len]`; a segment is one run of tokens.
    pub segment: Vec<i32>,
    /// Tokens see no more than so many, themselves included.
    pub window: Option<usize>,
}

/// The same, as tensors.
#[derive(Clone, Debug)]
pub struct PositionTensors<B: Backend> {
    /// `[batch, 1, len, head_dim / 2]`
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
    /// Added to the scores, `[batch, 1, len, len]`.
    mask: Tensor<B, 4>,
}

/// Kernels of a backend: `q [n, heads × head_dim]`, `k` and `v [n, kv_heads × head_dim]` for `n = batch × len`,
/// before rotation, to `[n, heads × head_dim]`; and its gradients to `q`, `k` and `v`.
pub struct FusedAttention<B: Backend> {
    pub forward: AttentionForward<B>,
    pub backward: AttentionBackward<B>,
}

pub type Qkv<B> = [FloatTensor<B>; 3];
pub type AttentionForward<B> = fn(Qkv<B>, Heads, &Arc<Positions>) -> FloatTensor<B>;
/// Takes the gradient to the result beside what the forward took.
pub type AttentionBackward<B> = fn(Qkv<B>, FloatTensor<B>, Heads, &Arc<Positions>) -> Qkv<B>;

/// Low enough that its exponential is 0, high enough to stay finite when scores are added.
const HIDDEN: f32 = -1e30;

impl Positions {
    /// First position that each token sees, within its own row of the batch.
    pub fn first_seen(&self) -> Vec<usize> {
        let mut first = vec![0; self.segment.len()];
        for row in (0..self.segment.len()).step_by(self.len.max(1)) {
            for i in 1..self.len {
                let same = self.segment[row + i] == self.segment[row + i - 1];
                first[row + i] = if same { first[row + i - 1] } else { i };
            }
        }
        if let Some(window) = self.window {
            let oldest = |at: usize| (at % self.len + 1).saturating_sub(window);
            first.iter_mut().enumerate().for_each(|(at, first)| *first = (*first).max(oldest(at)));
        }
        first
    }

    pub fn tensors<B: Backend>(&self, device: &B::Device) -> PositionTensors<B> {
        let (batch, len) = (self.batch, self.len);
        let mut mask = vec![HIDDEN; batch * len * len];
        for (at, first) in self.first_seen().into_iter().enumerate() {
            mask[at * len + first..=at * len + at % len].fill(0.0);
        }
        let rotation = |values: &[f32]| {
            let shape = [batch, 1, len, values.len() / (batch * len)];
            Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
        };
        let mask = Tensor::from_data(TensorData::new(mask, [batch, 1, len, len]), device);
        PositionTensors { cos: rotation(&self.cos), sin: rotation(&self.sin), mask }
    }
}

impl<B: Backend> PositionTensors<B> {
    /// Rotates `x [batch, heads, len, head_dim]` in Hugging Face's half-split layout (Su et al. 2021).
    pub fn rotate(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let half = x.dims()[3] / 2;
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        Tensor::cat(vec![first, b * cos + a * sin], 3)
    }

    /// [`attend`] with every token seeing what it may.
    pub fn attend(&self, q: Tensor<B, 4>, k: Tensor<B, 4>, v: Tensor<B, 4>) -> Tensor<B, 4> {
        attend(q, k, v, Some(&self.mask))
    }
}

/// `q [batch, heads, len, d]` over `k` and `v [batch, kv_heads, keys, d]`. Queries of one group share their keys and
/// values: they are rows of one product, nothing is repeated.
pub fn attend<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Option<&Tensor<B, 4>>,
) -> Tensor<B, 4> {
    let [batch, heads, len, dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let rows = heads / kv_heads * len;
    let q = q.mul_scalar(1.0 / (dim as f64).sqrt()).reshape([batch, kv_heads, rows, dim]);
    let scores = q.matmul(k.transpose()).reshape([batch, heads, len, keys]);
    let scores = match mask {
        Some(mask) => scores + mask.clone(),
        None => scores,
    };
    let weights = activation::softmax(scores, 3).reshape([batch, kv_heads, rows, keys]);
    weights.matmul(v).reshape([batch, heads, len, dim])
}

/// `[batch × len, heads × d] → [batch, heads, len, d]`.
pub fn split_heads<B: Backend>(x: Tensor<B, 2>, [batch, len]: [usize; 2], heads: usize) -> Tensor<B, 4> {
    let dim = x.dims()[1] / heads;
    x.reshape([batch, len, heads, dim]).swap_dims(1, 2)
}

/// `[batch, heads, len, d] → [batch × len, heads × d]`.
pub fn join_heads<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 2> {
    let [batch, heads, len, dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch * len, heads * dim])
}

/// Where a forward's positions live: on the host for backends with kernels, as tensors for the others.
#[derive(Clone, Debug)]
pub enum AttentionLayout<B: Backend> {
    Host(Arc<Positions>),
    Device(PositionTensors<B>, [usize; 2]),
}

impl<B: TrainBackend> AttentionLayout<B> {
    /// The same for the backend that is differentiated.
    pub fn inner(&self) -> AttentionLayout<B::InnerBackend> {
        match self {
            Self::Host(positions) => AttentionLayout::Host(positions.clone()),
            Self::Device(at, shape) => {
                let [cos, sin, mask] = [&at.cos, &at.sin, &at.mask].map(|tensor| tensor.clone().inner());
                AttentionLayout::Device(PositionTensors { cos, sin, mask }, *shape)
            }
        }
    }
}

impl<B: LowRankBackend> AttentionLayout<B> {
    pub fn new(positions: Positions, device: &B::Device) -> Self {
        match B::fused_attention() {
            Some(_) => Self::Host(Arc::new(positions)),
            None => Self::Device(positions.tensors(device), [positions.batch, positions.len]),
        }
    }

    /// `q [n, heads × d]`, `k` and `v [n, kv_heads × d]`, before rotation, to `[n, heads × d]`.
    pub fn attention(&self, q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>, heads: Heads) -> Tensor<B, 2> {
        match (self, B::fused_attention()) {
            (Self::Host(positions), Some(fused)) => {
                let qkv = [q, k, v].map(|x| x.into_primitive().tensor());
                let y = (fused.forward)(qkv, heads, positions);
                Tensor::from_primitive(burn::tensor::TensorPrimitive::Float(y))
            }
            (Self::Host(positions), None) => {
                let tensors = positions.tensors(&q.device());
                plain(&tensors, [positions.batch, positions.len], q, k, v, heads)
            }
            (Self::Device(tensors, shape), _) => plain(tensors, *shape, q, k, v, heads),
        }
    }
}

fn plain<B: Backend>(
    at: &PositionTensors<B>,
    shape: [usize; 2],
    q: Tensor<B, 2>,
    k: Tensor<B, 2>,
    v: Tensor<B, 2>,
    heads: Heads,
) -> Tensor<B, 2> {
    let q = at.rotate(split_heads(q, shape, heads.heads));
    let k = at.rotate(split_heads(k, shape, heads.kv_heads));
    join_heads(at.attend(q, k, split_heads(v, shape, heads.kv_heads)))
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::{assert_close, gradient, on_cpu_backends, values};

    on_cpu_backends!(kernels_equal_plain_operations);

    /// Rows whose second text begins anywhere, and whose tokens see all of their text or a window of it.
    fn example(len: usize, window: Option<usize>, dim: usize) -> Positions {
        const BATCH: usize = 2;
        let angle = |i: usize| (i / (dim / 2) % len) as f32 / (1 + i % (dim / 2)) as f32;
        let rotation = |of: fn(f32) -> f32| (0..BATCH * len * dim / 2).map(|i| of(angle(i))).collect();
        let segment = (0..BATCH * len).map(|at| i32::from(at % len > len * (1 + at / len) / 3)).collect();
        Positions { batch: BATCH, len, cos: rotation(f32::cos), sin: rotation(f32::sin), segment, window }
    }

    /// Lengths below and above what a kernel takes at a time.
    fn kernels_equal_plain_operations<A: TrainBackend>() {
        let shapes = [(4, 2), (2, 2), (3, 1)].map(|(heads, kv_heads)| Heads { heads, kv_heads, head_dim: 6 });
        for (heads, len) in shapes.into_iter().flat_map(|heads| [1, 31, 100].map(|len| (heads, len))) {
            for window in [None, Some(40)] {
                let at = example(len, window, heads.head_dim);
                let [n, q, kv] = [at.batch * len, heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim];
                let qkv = [(q, 0.9), (kv, 0.7), (kv, 0.3)];
                let qkv = qkv.map(|(width, step)| values::<A, 2>([n, width], step).mul_scalar(2.0).require_grad());
                let ([q, k, v], tensors) = (qkv.clone(), at.tensors(&Default::default()));
                let theirs = plain(&tensors, [at.batch, len], q, k, v, heads);
                let [q, k, v] = qkv.clone();
                let ours = AttentionLayout::Host(Arc::new(at)).attention(q, k, v, heads);
                assert_close(ours.clone().inner(), theirs.clone().inner());
                let [ours, theirs] = [ours, theirs].map(gradient);
                for x in &qkv {
                    assert_close(x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
                }
            }
        }
    }
}
