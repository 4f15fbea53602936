//! The operations of lowrank that burn does not have, as one trait over burn's backends.
//!
//! Every operation has a default body of plain tensor operations, so a new backend is one empty
//! `impl`; a backend that wants speed overrides a body. The trait and its implementations live in
//! this one crate because of the orphan rule.

mod attention;
mod autodiff;
pub mod bf16;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod cpu;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod cpu_attention;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod cpu_cross_entropy;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod cpu_head;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod cpu_heads;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod cpu_norm;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod cpu_scale;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod cpu_swiglu;
#[cfg(feature = "cube")]
mod cube;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod exp;
#[cfg(feature = "flex")]
mod flex;
pub mod four_bit;
mod frozen;
#[cfg(feature = "fusion")]
mod fusion;
mod head;
pub mod host;
mod mask;
#[cfg(any(feature = "ndarray", feature = "flex"))]
mod matrix;
#[cfg(feature = "ndarray")]
mod ndarray;
mod norm;
mod ops;
mod recompute;
mod scale;
pub mod splitmix;
mod swiglu;
mod term;
#[cfg(feature = "testing")]
pub mod testing;

pub use attention::{
    AttentionLayout, FusedAttention, Heads, PositionTensors, Positions, Qkv, attend, join_heads, split_heads,
};
#[cfg(feature = "cube")]
#[doc(hidden)]
pub use cube::sources;
pub use frozen::{BlockScales, Compute, FourBit, FrozenWeight, Side};
pub use head::{HEAD_TOKENS, head_loss};
pub use mask::{DropoutKey, path_hash};
pub use norm::rms_norm;
pub use ops::{cross_entropy, dropout, frozen_matmul, frozen_rows, plain_frozen_matmul};
pub use scale::scale_columns;
pub use swiglu::swiglu;
pub use term::{Factors, LowRank, frozen_low_rank, frozen_low_rank_unread, low_rank, take_retained_bytes};

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::{Device, FloatTensor, IntTensor};
use burn::tensor::{Int, Shape, Tensor, TensorMetadata, TensorPrimitive, activation};

/// A [`LowRankBackend`] that differentiates one.
pub trait TrainBackend: LowRankBackend + AutodiffBackend<InnerBackend: LowRankBackend> {}

impl<B: LowRankBackend + AutodiffBackend<InnerBackend: LowRankBackend>> TrainBackend for B {}

/// A burn backend with the operations that lowrank needs beyond burn's own.
pub trait LowRankBackend: Backend {
    /// Whether [`Self::frozen_matmul`] can multiply packed weights in these numbers on `device`.
    fn computes_in(compute: Compute, _device: &Device<Self>) -> bool {
        compute == Compute::F32
    }

    /// `x [n, in] · Wᵀ → [n, out]` ([`Side::Forward`]) or `g [n, out] · W → [n, in]` ([`Side::Backward`])
    /// for a frozen `W [out, in]`. The gradient goes to `x` alone and nothing is kept for it but `W` itself.
    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        weight.plain_product(x, side)
    }

    /// [`Self::frozen_matmul`] and `a · b` for `a [n, r]` and `b` of r rows, on top of each other.
    fn frozen_matmul_plus(
        x: FloatTensor<Self>,
        weight: FrozenWeight<Self>,
        side: Side,
        [a, b]: [FloatTensor<Self>; 2],
    ) -> FloatTensor<Self> {
        Self::float_add(Self::frozen_matmul(x, weight, side), Self::thin_matmul(a, b))
    }

    /// Rows `ids [n]` of a frozen `W [rows, cols]`, as f32 `[n, cols]`. No gradient.
    fn frozen_rows(weight: FrozenWeight<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        weight.rows(ids)
    }

    /// Inverted-dropout mask: 0 with probability `p`, else `1 / (1 - p)`. Element `i` depends on
    /// `key` and `i` alone, so every backend and every resumed run draws the same mask.
    fn dropout_mask(shape: Shape, p: f64, key: u64, device: &Device<Self>) -> FloatTensor<Self> {
        Self::float_from_data(mask::draw(shape, p, key), device)
    }

    /// `x` times its dropout mask. The mask is drawn again for the backward pass instead of being kept.
    fn dropout(x: FloatTensor<Self>, p: f64, key: u64) -> FloatTensor<Self> {
        let mask = Self::dropout_mask(x.shape(), p, key, &Self::float_device(&x));
        Self::float_mul(x, mask)
    }

    /// Summed negative log-likelihood `[1]` of `targets [n]` under `logits [n, vocab]`, and its
    /// gradient to the logits `softmax - onehot`, `[n, vocab]`.
    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let logits = Tensor::<Self, 2>::from_primitive(TensorPrimitive::Float(logits));
        let targets = Tensor::<Self, 1, Int>::from_primitive(targets).unsqueeze_dim::<2>(1);
        let log_p = activation::log_softmax(logits, 1);
        let loss = log_p.clone().gather(1, targets.clone()).sum().neg();
        let minus_one = Tensor::ones(targets.dims(), &log_p.device()).neg();
        let grad = log_p.exp().scatter(1, targets, minus_one, burn::tensor::IndexingUpdateOp::Add);
        (loss.into_primitive().tensor(), grad.into_primitive().tensor())
    }

    /// Summed negative log-likelihood `[1]` of `targets [n]` under the logits `hidden [n, hidden] · Wᵀ` of a frozen
    /// `W [vocab, hidden]`. Logits exist for some tokens at a time; between forward and backward `[n, hidden]` is kept.
    fn head_loss(hidden: FloatTensor<Self>, weight: FrozenWeight<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        head::loss::<Self>(hidden, weight, targets)
    }

    /// [`Self::head_loss`] and its gradient to `hidden`, `[n, hidden]`.
    fn head_loss_and_gradient(
        hidden: FloatTensor<Self>,
        weight: FrozenWeight<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        head::loss_and_gradient::<Self>(hidden, weight, targets)
    }

    /// `x / sqrt(mean(x²) + eps) ⊙ weight` of the rows of `x [n, hidden]`. Between forward and backward `x` alone is kept;
    /// whoever needs the result again has it computed again.
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        norm::forward::<Self>(x, weight, eps)
    }

    /// Gradient of [`Self::rms_norm`] to `x`, from the gradient to its result.
    fn rms_norm_input_gradient(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        norm::input_gradient::<Self>(x, weight, grad, eps)
    }

    /// Gradient of [`Self::rms_norm`] to its weight.
    fn rms_norm_weight_gradient(x: FloatTensor<Self>, grad: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        norm::weight_gradient::<Self>(x, grad, eps)
    }

    /// `silu(gate) ⊙ up`. Between forward and backward both are kept; whoever needs the result again has it computed again.
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::forward::<Self>(gate, up)
    }

    /// Gradients of [`Self::swiglu`] to `gate` and `up`.
    fn swiglu_gradients(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        swiglu::gradients::<Self>(gate, up, grad)
    }

    /// `x ⊙ c` for a factor `c [cols]` of each column of `x [n, cols]`. Between forward and backward x is kept; whoever needs the
    /// result again has it computed again.
    fn scale_columns(x: FloatTensor<Self>, c: FloatTensor<Self>) -> FloatTensor<Self> {
        scale::forward::<Self>(x, c)
    }

    /// Gradients of [`Self::scale_columns`] to `x` and `c`.
    fn scale_columns_gradients(
        x: FloatTensor<Self>,
        c: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        scale::gradients::<Self>(x, c, grad)
    }

    /// A low-rank term `scale · post ⊙ up(mid ⊙ down(x))` of `x [n, in]`, `[n, out]`. Between forward and backward
    /// `down(x) [n, r]` is kept, and `x` only where `down` trains and `x` is not computed again.
    fn low_rank(x: FloatTensor<Self>, factors: Factors<Self>) -> FloatTensor<Self> {
        term::expand::<Self>(term::project::<Self>(x, &factors), &factors).into_primitive().tensor()
    }

    /// `x [n, in] · Wᵀ` and [`Self::low_rank`] of the same x on top of each other, `[n, out]`. The gradients to x of both are
    /// taken together as well; what is kept is what [`Self::low_rank`] keeps.
    fn frozen_low_rank(x: FloatTensor<Self>, weight: FrozenWeight<Self>, factors: Factors<Self>) -> FloatTensor<Self> {
        let h = term::project::<Self>(x.clone(), &factors);
        term::expand_onto::<Self>(x, weight, h, &factors)
    }

    /// [`Self::frozen_low_rank`] where only the gradients are wanted: the result has the shape and may be anything.
    fn frozen_low_rank_unread(
        x: FloatTensor<Self>,
        weight: FrozenWeight<Self>,
        _factors: Factors<Self>,
    ) -> FloatTensor<Self> {
        term::unread::<Self>(&x, &weight)
    }

    /// `a [m, k] · b [k, n]`, where `m`, `k` or `n` is a rank: the products that [`Self::low_rank`] is made of.
    fn thin_matmul(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(a, b)
    }

    /// Kernels of causal attention, where the backend has them; elsewhere plain operations do it.
    fn fused_attention() -> Option<FusedAttention<Self>> {
        None
    }
}
