//! Backward passes by hand: gradients to activations only, nothing dense kept for frozen weights.

use std::sync::Arc;

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::{Device, FloatTensor, IntTensor};
use burn::tensor::{Shape, Tensor, TensorMetadata, TensorPrimitive};
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_autodiff::{Autodiff, NodeId};

use crate::norm::RmsNorm;
use crate::recompute::{Repeatable, repeatable};
use crate::scale::ScaleColumns;
use crate::swiglu::SwiGlu;
use crate::term::{self, Wanted};
use crate::{Compute, Factors, FrozenWeight, FusedAttention, Heads, LowRankBackend, Positions, Qkv, Side, head};

#[derive(Debug)]
struct FrozenMatmul;

impl<B: LowRankBackend> Backward<B, 1> for FrozenMatmul {
    type State = (FrozenWeight<B>, Side);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (weight, side) = ops.state;
        if let [Some(x)] = ops.parents {
            grads.register::<B>(x.id, B::frozen_matmul(grad, weight, side.flipped()));
        }
    }
}

/// `down · x` where anything but `down` trains, where burn has x if `down` does, and the columns of x.
#[derive(Clone, Debug)]
struct Kept<B: LowRankBackend> {
    /// What the term was put on top of.
    base: Option<FrozenWeight<B>>,
    h: Option<FloatTensor<B>>,
    x: Option<NodeId>,
    cols: usize,
    factors: Factors<B>,
}

#[derive(Debug)]
struct LowRankTerm;

impl<B: LowRankBackend> Backward<B, 5> for LowRankTerm {
    type State = Kept<B>;

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, values: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let Kept { base, h, x, cols, factors } = ops.state;
        let x = x.map(|x| values.retrieve_node_output::<FloatTensor<B>>(x));
        let [px, pdown, pmid, pup, ppost] = ops.parents;
        let wanted = Wanted {
            x: px.is_some().then_some(cols),
            down: pdown.is_some(),
            mid: pmid.is_some(),
            up: pup.is_some(),
            post: ppost.is_some(),
        };
        let found = term::gradients::<B>(grad.clone(), h.map(term::wrap::<B, 2>), x, &factors, wanted);
        let x = found.x.map(|halves| match base {
            Some(weight) => B::frozen_matmul_plus(grad, weight, Side::Backward, halves),
            None => {
                let [a, b] = halves;
                B::thin_matmul(a, b)
            }
        });
        let parts = [(px, x), (pdown, found.down), (pmid, found.mid), (pup, found.up), (ppost, found.post)];
        for (parent, grad) in parts {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

/// Probability and key: enough to draw the mask again.
#[derive(Clone, Copy, Debug)]
struct Dropout {
    p: f64,
    key: u64,
}

impl<B: LowRankBackend> Backward<B, 1> for Dropout {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        if let [Some(x)] = ops.parents {
            grads.register::<B>(x.id, B::dropout(grad, self.p, self.key));
        }
    }
}

impl<B: LowRankBackend> Repeatable<B, 1> for Dropout {
    fn run(self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        B::dropout(x, self.p, self.key)
    }

    fn state(self, _: &[FloatTensor<B>; 1]) {}
}

#[derive(Debug)]
struct CrossEntropy;

impl<B: LowRankBackend> Backward<B, 1> for CrossEntropy {
    /// Gradient of the loss to the logits.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let scale = Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(grads.consume::<B>(&ops.node)));
        let grad = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(ops.state));
        if let [Some(logits)] = ops.parents {
            grads.register::<B>(logits.id, (grad * scale.unsqueeze()).into_primitive().tensor());
        }
    }
}

#[derive(Debug)]
struct Attention;

impl<B: LowRankBackend> Backward<B, 3> for Attention {
    /// q, k and v; the weights are computed again.
    type State = (Qkv<B>, Heads, Arc<Positions>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (qkv, heads, positions) = ops.state;
        let fused = B::fused_attention().expect("the forward was fused");
        let parts = (fused.backward)(qkv, grad, heads, &positions);
        for (parent, part) in ops.parents.into_iter().zip(parts) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, part);
            }
        }
    }
}

fn attention_forward<B: LowRankBackend, C: CheckpointStrategy>(
    qkv: Qkv<Autodiff<B, C>>,
    heads: Heads,
    positions: &Arc<Positions>,
) -> FloatTensor<Autodiff<B, C>> {
    let fused = B::fused_attention().expect("only taken from `fused_attention`");
    let nodes = qkv.each_ref().map(|x| x.node.clone());
    let qkv = qkv.map(|x| x.primitive);
    let y = (fused.forward)(qkv.clone(), heads, positions);
    match Attention.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((qkv, heads, positions.clone()), y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

/// Not differentiable a second time.
fn attention_backward<B: LowRankBackend, C: CheckpointStrategy>(
    qkv: Qkv<Autodiff<B, C>>,
    grad: FloatTensor<Autodiff<B, C>>,
    heads: Heads,
    positions: &Arc<Positions>,
) -> Qkv<Autodiff<B, C>> {
    let fused = B::fused_attention().expect("only taken from `fused_attention`");
    (fused.backward)(qkv.map(|x| x.primitive), grad.primitive, heads, positions).map(Autodiff::<B, C>::from_inner)
}

fn inner<B: LowRankBackend, C: CheckpointStrategy>(weight: FrozenWeight<Autodiff<B, C>>) -> FrozenWeight<B> {
    let (form, floats, ints) = weight.take_apart();
    form.assemble(floats.into_iter().map(|float| float.primitive), ints)
}

/// A low-rank term of x, on top of x's product with `base` if there is one; `result` stands for it where it is given.
fn term_of<B: LowRankBackend, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    base: Option<FrozenWeight<B>>,
    factors: Factors<Autodiff<B, C>>,
    result: Option<FloatTensor<B>>,
) -> FloatTensor<Autodiff<B, C>> {
    // A factor that is absent stands for a constant, so any node that is not tracked will do.
    let absent = || Autodiff::<B, C>::from_inner(x.primitive.clone()).node;
    let (mid, post) = (factors.mid.as_ref(), factors.post.as_ref());
    let nodes = [
        x.node.clone(),
        factors.down.node.clone(),
        mid.map_or_else(absent, |mid| mid.node.clone()),
        factors.up.node.clone(),
        post.map_or_else(absent, |post| post.node.clone()),
    ];
    let [_, down_trains, mid_trains, up_trains, post_trains] = nodes.each_ref().map(|node| !node.requirement.is_none());
    let factors = Factors {
        down: factors.down.primitive,
        mid: factors.mid.map(|mid| mid.primitive),
        up: factors.up.primitive,
        post: factors.post.map(|post| post.primitive),
        scale: factors.scale,
    };
    let h = term::project::<B>(x.primitive.clone(), &factors);
    let y = result.unwrap_or_else(|| match &base {
        Some(weight) => term::expand_onto::<B>(x.primitive.clone(), weight.clone(), h.clone(), &factors),
        None => term::expand::<B>(h.clone(), &factors).into_primitive().tensor(),
    });
    match LowRankTerm.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let h = (mid_trains || up_trains || post_trains).then(|| h.into_primitive().tensor());
            let needed = h.iter().chain(down_trains.then_some(&x.primitive));
            needed.for_each(|needed| term::retain::<B>(needed));
            let cols = x.primitive.shape()[1];
            let x = down_trains.then(|| prep.checkpoint(&x));
            prep.finish(Kept { base, h, x, cols, factors }, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

impl<B: LowRankBackend, C: CheckpointStrategy> LowRankBackend for Autodiff<B, C> {
    fn computes_in(compute: Compute, device: &Device<Self>) -> bool {
        B::computes_in(compute, device)
    }

    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        let weight = inner(weight);
        let y = B::frozen_matmul(x.primitive, weight.clone(), side);
        match FrozenMatmul.prepare::<C>([x.node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((weight, side), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn frozen_rows(weight: FrozenWeight<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::frozen_rows(inner(weight), ids))
    }

    fn dropout_mask(shape: Shape, p: f64, key: u64, device: &Device<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::dropout_mask(shape, p, key, device))
    }

    fn dropout(x: FloatTensor<Self>, p: f64, key: u64) -> FloatTensor<Self> {
        repeatable::<B, C, _, 1>(Dropout { p, key }, [x])
    }

    fn head_loss(hidden: FloatTensor<Self>, weight: FrozenWeight<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        head::differentiable::<B, C>(hidden, inner(weight), targets)
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        repeatable::<B, C, _, 2>(RmsNorm { eps }, [x, weight])
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        repeatable::<B, C, _, 2>(SwiGlu, [gate, up])
    }

    fn scale_columns(x: FloatTensor<Self>, c: FloatTensor<Self>) -> FloatTensor<Self> {
        repeatable::<B, C, _, 2>(ScaleColumns, [x, c])
    }

    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (loss, grad) = B::cross_entropy(logits.primitive, targets);
        let loss = match CrossEntropy.prepare::<C>([logits.node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(grad.clone(), loss),
            OpsKind::UnTracked(prep) => prep.finish(loss),
        };
        (loss, Self::from_inner(grad))
    }

    fn low_rank(x: FloatTensor<Self>, factors: Factors<Self>) -> FloatTensor<Self> {
        term_of::<B, C>(x, None, factors, None)
    }

    fn frozen_low_rank(x: FloatTensor<Self>, weight: FrozenWeight<Self>, factors: Factors<Self>) -> FloatTensor<Self> {
        term_of::<B, C>(x, Some(inner(weight)), factors, None)
    }

    fn frozen_low_rank_unread(
        x: FloatTensor<Self>,
        weight: FrozenWeight<Self>,
        factors: Factors<Self>,
    ) -> FloatTensor<Self> {
        let weight = inner(weight);
        let y = term::unread::<B>(&x.primitive, &weight);
        term_of::<B, C>(x, Some(weight), factors, Some(y))
    }

    fn fused_attention() -> Option<FusedAttention<Self>> {
        B::fused_attention()?;
        Some(FusedAttention { forward: attention_forward::<B, C>, backward: attention_backward::<B, C> })
    }
}
