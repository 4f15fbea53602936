//! A low-rank term, the correction that every adapter method makes, with a backward of its own.
//!
//! ```text
//!     y = scale · post ⊙ (up · (mid ⊙ (down · x)))         down [r, in], mid [r], up [out, r], post [out]
//! ```
//!
//! Between forward and backward only `down · x` (n × r) is kept where `mid`, `up` or `post` trains, and `x` (n × in) where
//! `down` trains: nothing of a frozen term. An x that is the result of a cheap operation is not kept but computed again
//! (`recompute.rs`). What is needed again is counted, because burn has no such counter.
//!
//! Layers of several widths can share frozen factors: of a `down` wider than `x` the first columns are used, of an `up`
//! taller than `post` the first rows. They are cut anew in each pass, so that a backend whose slices are copies keeps none.

use std::cell::Cell;

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorMetadata, TensorPrimitive};

use crate::{FrozenWeight, LowRankBackend, Side};

/// The factors of a term; `mid` and `post` are vectors of ones where absent.
#[derive(Debug)]
pub struct Factors<B: Backend> {
    /// `[r, in]`
    pub down: FloatTensor<B>,
    /// `[r]`
    pub mid: Option<FloatTensor<B>>,
    /// `[out, r]`
    pub up: FloatTensor<B>,
    /// `[out]`
    pub post: Option<FloatTensor<B>>,
    pub scale: f64,
}

impl<B: Backend> Clone for Factors<B> {
    fn clone(&self) -> Self {
        let Self { down, mid, up, post, scale } = self;
        Self { down: down.clone(), mid: mid.clone(), up: up.clone(), post: post.clone(), scale: *scale }
    }
}

/// Gradients of a term; absent where nobody asked.
#[derive(Debug)]
pub(crate) struct TermGrads<B: Backend> {
    /// The product that makes it is still to be taken.
    pub x: Option<[FloatTensor<B>; 2]>,
    pub down: Option<FloatTensor<B>>,
    pub mid: Option<FloatTensor<B>>,
    pub up: Option<FloatTensor<B>>,
    pub post: Option<FloatTensor<B>>,
}

/// Which gradients of a term are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// The columns of `x`.
    pub x: Option<usize>,
    pub down: bool,
    pub mid: bool,
    pub up: bool,
    pub post: bool,
}

/// `x [n, in]` and the factors on typed tensors; see the module.
pub fn low_rank<B: LowRankBackend>(x: Tensor<B, 2>, term: LowRank<B>) -> Tensor<B, 2> {
    wrap(B::low_rank(x.into_primitive().tensor(), term.factors()))
}

/// `x [n, in] · Wᵀ` plus the term; see [`LowRankBackend::frozen_low_rank`].
pub fn frozen_low_rank<B: LowRankBackend>(x: Tensor<B, 2>, weight: FrozenWeight<B>, term: LowRank<B>) -> Tensor<B, 2> {
    wrap(B::frozen_low_rank(x.into_primitive().tensor(), weight, term.factors()))
}

/// See [`LowRankBackend::frozen_low_rank_unread`].
pub fn frozen_low_rank_unread<B: LowRankBackend>(
    x: Tensor<B, 2>,
    weight: FrozenWeight<B>,
    term: LowRank<B>,
) -> Tensor<B, 2> {
    wrap(B::frozen_low_rank_unread(x.into_primitive().tensor(), weight, term.factors()))
}

/// A result that nobody reads.
pub(crate) fn unread<B: Backend>(x: &FloatTensor<B>, weight: &FrozenWeight<B>) -> FloatTensor<B> {
    let [rows, _] = weight.shape();
    B::float_empty([x.shape()[0], rows].into(), &B::float_device(x), x.dtype().into())
}

/// [`Factors`] as typed tensors.
#[derive(Debug)]
pub struct LowRank<B: Backend> {
    /// `[r, in]`
    pub down: Tensor<B, 2>,
    /// `[r]`
    pub mid: Option<Tensor<B, 1>>,
    /// `[out, r]`
    pub up: Tensor<B, 2>,
    /// `[out]`
    pub post: Option<Tensor<B, 1>>,
    pub scale: f64,
}

impl<B: Backend> LowRank<B> {
    /// `scale · up · (down · x)`.
    pub fn product(down: Tensor<B, 2>, up: Tensor<B, 2>, scale: f64) -> Self {
        Self { down, mid: None, up, post: None, scale }
    }

    fn factors(self) -> Factors<B> {
        let float = |tensor: Tensor<B, 1>| tensor.into_primitive().tensor();
        Factors {
            down: self.down.into_primitive().tensor(),
            mid: self.mid.map(float),
            up: self.up.into_primitive().tensor(),
            post: self.post.map(float),
            scale: self.scale,
        }
    }
}

pub(crate) fn wrap<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// The first `n` rows (`dim` 0) or columns (1) of a factor.
fn first<B: Backend>(factor: &FloatTensor<B>, dim: usize, n: usize) -> Tensor<B, 2> {
    let factor: Tensor<B, 2> = wrap(factor.clone());
    if factor.dims()[dim] > n { factor.narrow(dim, 0, n) } else { factor }
}

/// `down · x`, `[n, r]`.
pub(crate) fn project<B: LowRankBackend>(x: FloatTensor<B>, factors: &Factors<B>) -> Tensor<B, 2> {
    let x: Tensor<B, 2> = wrap(x);
    let down = first::<B>(&factors.down, 1, x.dims()[1]);
    product(x, down.transpose())
}

fn product<B: LowRankBackend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 2> {
    wrap(B::thin_matmul(a.into_primitive().tensor(), b.into_primitive().tensor()))
}

fn scaled_by<B: Backend>(x: Tensor<B, 2>, by: &Option<FloatTensor<B>>) -> Tensor<B, 2> {
    match by {
        Some(by) => x * wrap::<B, 1>(by.clone()).unsqueeze(),
        None => x,
    }
}

/// The rest of the forward from `h = down · x`.
pub(crate) fn expand<B: LowRankBackend>(h: Tensor<B, 2>, factors: &Factors<B>) -> Tensor<B, 2> {
    let [m, up] = halves(h, factors);
    scaled_by::<B>(product(m, up), &factors.post)
}

/// The product that [`expand`] takes, `[n, r]` and `[r, out]`.
fn halves<B: LowRankBackend>(h: Tensor<B, 2>, factors: &Factors<B>) -> [Tensor<B, 2>; 2] {
    let m = scaled_by::<B>(h, &factors.mid).mul_scalar(factors.scale);
    let out = factors.post.as_ref().unwrap_or(&factors.up).shape()[0];
    [m, first::<B>(&factors.up, 0, out).transpose()]
}

/// `x · Wᵀ` and the term from `h = down · x`.
pub(crate) fn expand_onto<B: LowRankBackend>(
    x: FloatTensor<B>,
    weight: FrozenWeight<B>,
    h: Tensor<B, 2>,
    factors: &Factors<B>,
) -> FloatTensor<B> {
    let [m, up] = halves(h, factors);
    let thin = [m, scaled_by::<B>(up, &factors.post)].map(|half| half.into_primitive().tensor());
    B::frozen_matmul_plus(x, weight, Side::Forward, thin)
}

/// Gradients from `g [n, out]`; `x` is needed for `down`'s alone, `h = down · x` for those of `mid`, `up` and `post`.
pub(crate) fn gradients<B: LowRankBackend>(
    g: FloatTensor<B>,
    h: Option<Tensor<B, 2>>,
    x: Option<FloatTensor<B>>,
    factors: &Factors<B>,
    wanted: Wanted,
) -> TermGrads<B> {
    let primitive = |tensor: Tensor<B, 2>| tensor.into_primitive().tensor();
    let summed = |tensor: Tensor<B, 2>| tensor.sum_dim(0).reshape([-1]) as Tensor<B, 1>;
    let g: Tensor<B, 2> = wrap(g);
    let up = first::<B>(&factors.up, 0, g.dims()[1]);
    let m = h.clone().map(|h| scaled_by::<B>(h, &factors.mid).mul_scalar(factors.scale));
    let post = m.clone().filter(|_| wanted.post).map(|m| summed(g.clone() * product(m, up.clone().transpose())));
    let g = scaled_by::<B>(g, &factors.post);
    let up_grad = m.filter(|_| wanted.up).map(|m| primitive(product(g.clone().transpose(), m)));
    let mut grads =
        TermGrads { x: None, down: None, mid: None, up: up_grad, post: post.map(|p| p.into_primitive().tensor()) };
    if wanted.x.is_some() || wanted.down || wanted.mid {
        let gm = product(g, up).mul_scalar(factors.scale);
        grads.mid = h.filter(|_| wanted.mid).map(|h| summed(gm.clone() * h).into_primitive().tensor());
        let gh = scaled_by::<B>(gm, &factors.mid);
        grads.down = x.filter(|_| wanted.down).map(|x| primitive(product(gh.clone().transpose(), wrap(x))));
        grads.x = wanted.x.map(|cols| [gh, first::<B>(&factors.down, 1, cols)].map(primitive));
    }
    grads
}

thread_local!(static RETAINED: Cell<u64> = const { Cell::new(0) });

/// Bytes that terms on this thread have asked to have again in backward passes since the last call.
pub fn take_retained_bytes() -> u64 {
    RETAINED.take()
}

pub(crate) fn retain<B: Backend>(tensor: &FloatTensor<B>) {
    RETAINED.set(RETAINED.get() + 4 * tensor.shape().num_elements() as u64);
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::{TestAutodiff, TestBackend, assert_close, gradient, on_cpu_backends, values};
    use crate::{TrainBackend, frozen_matmul};

    type A = TestAutodiff;

    /// The same in plain operations, which burn differentiates.
    fn plain(x: Tensor<A, 2>, term: &LowRank<A>) -> Tensor<A, 2> {
        let mut h = x.matmul(term.down.clone().transpose());
        if let Some(mid) = &term.mid {
            h = h * mid.clone().unsqueeze();
        }
        let y = h.matmul(term.up.clone().transpose()).mul_scalar(term.scale);
        match &term.post {
            Some(post) => y * post.clone().unsqueeze(),
            None => y,
        }
    }

    #[track_caller]
    fn same<const D: usize>(a: Option<Tensor<TestBackend, D>>, b: Option<Tensor<TestBackend, D>>) {
        let list = |t: Tensor<TestBackend, D>| t.into_data().to_vec::<f32>().unwrap();
        let (a, b) = (list(a.expect("a gradient")), list(b.expect("a gradient")));
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(a.len() == b.len() && worst < 1e-5, "{worst}");
    }

    #[test]
    fn gradients_are_those_of_plain_operations() {
        for (mid, post) in [(false, false), (true, false), (true, true), (false, true)] {
            let x = values::<A, 2>([5, 4], 0.1).require_grad();
            let term = LowRank {
                down: values::<A, 2>([3, 4], 0.2).require_grad(),
                mid: mid.then(|| values::<A, 1>([3], 0.3).require_grad()),
                up: values::<A, 2>([6, 3], 0.4).require_grad(),
                post: post.then(|| values::<A, 1>([6], 0.5).require_grad()),
                scale: 1.7,
            };
            let weights = values::<A, 2>([5, 6], 0.9);
            let theirs = (plain(x.clone(), &term) * weights.clone()).sum().backward();
            let (down, up, m, p) = (term.down.clone(), term.up.clone(), term.mid.clone(), term.post.clone());
            let ours = (low_rank(x.clone(), term) * weights).sum().backward();
            same(x.grad(&ours), x.grad(&theirs));
            same(down.grad(&ours), down.grad(&theirs));
            same(up.grad(&ours), up.grad(&theirs));
            if let Some(m) = m {
                same(m.grad(&ours), m.grad(&theirs));
            }
            if let Some(p) = p {
                same(p.grad(&ours), p.grad(&theirs));
            }
        }
    }

    #[test]
    fn of_larger_frozen_factors_the_first_rows_and_columns_are_used() {
        let term = |down, up| LowRank {
            down,
            mid: Some(values::<A, 1>([3], 0.3).require_grad()),
            up,
            post: Some(values::<A, 1>([6], 0.5).require_grad()),
            scale: 1.7,
        };
        let (down, up) = (values::<A, 2>([3, 9], 0.2), values::<A, 2>([8, 3], 0.4));
        let (large, cut) = (term(down.clone(), up.clone()), term(down.narrow(1, 0, 4), up.narrow(0, 0, 6)));
        let x = values::<A, 2>([5, 4], 0.1).require_grad();
        let vectors = |term: &LowRank<A>| (term.mid.clone().unwrap(), term.post.clone().unwrap());
        let ((mid, post), (cut_mid, cut_post)) = (vectors(&large), vectors(&cut));
        let (theirs, ours) = (plain(x.clone(), &cut), low_rank(x.clone(), large));
        same(Some(ours.clone().inner()), Some(theirs.clone().inner()));
        let weights = values::<A, 2>([5, 6], 0.9);
        let (theirs, ours) = ((theirs * weights.clone()).sum().backward(), (ours * weights).sum().backward());
        same(x.grad(&ours), x.grad(&theirs));
        same(mid.grad(&ours), cut_mid.grad(&theirs));
        same(post.grad(&ours), cut_post.grad(&theirs));
    }

    on_cpu_backends!(on_top_of_a_frozen_product_it_is_the_sum_of_both);

    fn on_top_of_a_frozen_product_it_is_the_sum_of_both<A: TrainBackend>() {
        // One row and more rows than go through the products of a few.
        for (n, full) in [(1, false), (1, true), (40, false), (40, true)] {
            let x = values::<A, 2>([n, 50], 0.1).require_grad();
            let weight = || FrozenWeight::Dense(values::<A, 2>([30, 50], 0.7).into_primitive().tensor());
            let factors = [values::<A, 2>([3, 50], 0.2).require_grad(), values::<A, 2>([30, 3], 0.4).require_grad()];
            let mid = full.then(|| values::<A, 1>([3], 0.3).require_grad());
            let post = full.then(|| values::<A, 1>([30], 0.5).require_grad());
            let term = || LowRank {
                mid: mid.clone(),
                post: post.clone(),
                ..LowRank::product(factors[0].clone(), factors[1].clone(), 1.7)
            };
            take_retained_bytes();
            let theirs = frozen_matmul(x.clone(), weight(), Side::Forward) + low_rank(x.clone(), term());
            let kept = take_retained_bytes();
            let ours = frozen_low_rank(x.clone(), weight(), term());
            assert_eq!(take_retained_bytes(), kept);
            assert_close(ours.clone().inner(), theirs.clone().inner());
            let unread = frozen_low_rank_unread(x.clone(), weight(), term());
            assert_eq!((unread.dims(), take_retained_bytes()), ([n, 30], kept));
            // The gradient to the result does not depend on the result.
            let [ours, theirs, unread] = [ours, theirs, unread].map(gradient);
            for ours in [ours, unread] {
                for tensor in [&x, &factors[0], &factors[1]] {
                    assert_close(tensor.grad(&ours).unwrap(), tensor.grad(&theirs).unwrap());
                }
                for tensor in mid.iter().chain(&post) {
                    assert_close(tensor.grad(&ours).unwrap(), tensor.grad(&theirs).unwrap());
                }
            }
        }
    }

    #[test]
    fn keeps_only_what_the_gradients_need() {
        let matrix = |shape, trains: bool| {
            let matrix = values::<A, 2>(shape, 0.2);
            if trains { matrix.require_grad() } else { matrix }
        };
        let bytes = |down_trains, up_trains| {
            let (down, up) = (matrix([3, 40], down_trains), matrix([6, 3], up_trains));
            let x = values::<A, 2>([5, 40], 0.1).require_grad();
            take_retained_bytes();
            let y = low_rank(x.clone(), LowRank::product(down, up, 1.0));
            assert!(x.grad(&y.sum().backward()).is_some());
            take_retained_bytes()
        };
        assert_eq!((bytes(true, true), bytes(false, true)), (4 * 5 * (40 + 3), 4 * 5 * 3));
        assert_eq!((bytes(true, false), bytes(false, false)), (4 * 5 * 40, 0));
    }
}
