//! What the operations keep between forward and backward, as the allocator counts it.

#![cfg(feature = "testing")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::testing::TestAutodiff as A;
use lowrank_kernels::{FrozenWeight, LowRank, dropout, head_loss, low_rank, rms_norm, swiglu};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Graph and small vectors.
const SLACK: usize = 64 << 10;

/// Large beside [`SLACK`].
const N: usize = 512;
const WIDE: usize = 1024;
const MATRIX: usize = 4 * N * WIDE;
const RANK: usize = 8;

/// Bytes that are live after `f` and were not before, the most that ever was meanwhile, and what `f` returned.
fn counted<T>(f: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = f();
    (LIVE.load(Relaxed).saturating_sub(before), PEAK.load(Relaxed) - before, result)
}

fn values<const D: usize>(shape: [usize; D]) -> Tensor<A, D> {
    let n = shape.iter().product::<usize>();
    Tensor::from_data(TensorData::new((0..n).map(|i| (i as f32).sin()).collect(), shape), &Default::default())
}

/// A term into few columns, whose `down` trains and so needs `x` again.
fn adapter(x: Tensor<A, 2>, down: &Tensor<A, 2>) -> Tensor<A, 2> {
    low_rank(x, LowRank::product(down.clone(), values([16, RANK]).require_grad(), 1.0))
}

#[track_caller]
fn about(found: usize, matrices: usize) {
    assert!(found.abs_diff(matrices * MATRIX) < SLACK, "{found} bytes, not {matrices} times {MATRIX}");
}

/// Runs an operation before an adapter, checks what is kept beside the operands, and that its gradient arrives.
#[track_caller]
fn keeps(matrices: usize, operation: impl FnOnce(Tensor<A, 2>) -> Tensor<A, 2>) {
    let (x, down) = (values([N, WIDE]).require_grad(), values([RANK, WIDE]).require_grad());
    // The first use sets up threads and tables.
    adapter(values([1, WIDE]).require_grad(), &down).sum().backward();
    let (kept, _, y) = counted(|| adapter(operation(x.clone()), &down));
    about(kept, matrices);
    let grads = y.sum().backward();
    assert!(x.grad(&grads).is_some() && down.grad(&grads).is_some());
}

#[test]
fn results_that_are_cheap_are_not_kept() {
    keeps(0, |x| rms_norm(x, values([WIDE]), 1e-5));
    keeps(0, |x| dropout(x, 0.5, 7));
    keeps(0, |x| dropout(rms_norm(x, values([WIDE]).require_grad(), 1e-5), 0.5, 7));
    // `up` is the one matrix: x serves as the gate.
    keeps(1, |x| swiglu(x, values([N, WIDE])));
    // What burn's own operations give is kept.
    keeps(1, |x| x.mul_scalar(2.0));
}

#[test]
fn logits_exist_for_some_tokens_at_a_time() {
    let (vocab, hidden) = (16_384, 64);
    let weight = FrozenWeight::Dense(values::<2>([vocab, hidden]).into_primitive().tensor());
    let targets = Tensor::<A, 1, Int>::zeros([N], &Default::default());
    let x = values([N, hidden]).require_grad();
    // The first use sets up the workspaces of threads.
    head_loss(x.clone(), weight.clone(), targets.clone()).backward();
    let (kept, peak, loss) = counted(|| head_loss(x.clone(), weight.clone(), targets.clone()));
    assert!(kept.abs_diff(4 * N * hidden) < SLACK, "{kept}");
    assert!(peak < 2 * N * vocab, "{peak}");
    assert!(x.grad(&loss.backward()).is_some());
}
