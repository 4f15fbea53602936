//! LoRA's forward and backward in this crate's operations against the same in burn's own: time and peak memory, at
//! SmolLM2-135M's shapes. Prints a table; both forms take turns, so that whatever else the machine does meets both.

mod allocator;
mod block;
#[path = "../fixtures/mod.rs"]
mod fixtures;

use std::time::{Duration, Instant};

use block::{Block, Form, Lora, Stored};
use burn::tensor::Tensor;
use burn_autodiff::Autodiff;
use burn_flex::Flex;
use burn_ndarray::NdArray;
use fixtures::{HIDDEN, TOKENS, WEIGHTS, dense, loss, nf4, tensor};
use lowrank_kernels::{Compute, LowRankBackend, TrainBackend};

/// Timed rounds of a case: at least so many, and more until the time is up.
const ROUNDS: usize = 15;
const BUDGET: Duration = Duration::from_secs(4);

fn main() {
    println!("{TOKENS} tokens, rank {}, forward and backward; peak: beyond weights and x", fixtures::RANK);
    println!(
        "backend | case | plain ms | ours ms | times faster | plain peak MiB | ours peak MiB | ratio | weights MiB"
    );
    println!("---|---|--:|--:|--:|--:|--:|--:|--:");
    backend::<Flex>("flex");
    backend::<NdArray<f32, i32>>("ndarray");
}

fn backend<B: LowRankBackend>(name: &str) {
    let stored: [(&str, Stored<Autodiff<B>>); 2] = [("f32", dense), ("nf4", |shape| nf4(shape, Compute::F32))];
    for (storage, weight) in stored {
        for shape @ [out, cols] in WEIGHTS {
            let case = format!("{name} | linear {out}x{cols} {storage}");
            compare(&case, cols, || Lora::new(shape, weight), Lora::forward);
        }
        compare(&format!("{name} | block {storage}"), HIDDEN, || Block::new([2, TOKENS / 2], weight), Block::forward);
    }
}

/// One row of the table: `forward` of what `make` makes, from `[TOKENS, cols]`, and the way back.
fn compare<A: TrainBackend, M>(
    case: &str,
    cols: usize,
    make: impl FnOnce() -> M,
    forward: impl Fn(&M, Tensor<A, 2>, Form) -> Tensor<A, 2>,
) {
    let before = allocator::live();
    let module = make();
    let weights = allocator::live() - before;
    let x = tensor::<A, 2>([TOKENS, cols], 1.0).require_grad();
    let forms = [Form::Plain, Form::Ours];
    // The first pass of each sets up threads and workspaces; the second is measured.
    let pass = |form| loss(forward(&module, x.clone(), form)).backward();
    let grads = forms.map(|form| x.grad(&pass(form)).expect("x has a gradient"));
    assert_same(grads);
    let peaks = forms.map(|form| allocator::peak(|| drop(pass(form))).0);
    let Times { plain, ours, faster } = times(|form| drop(pass(form)));
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    println!(
        "{case} | {plain:.2} | {ours:.2} | {faster:.2} | {:.2} | {:.2} | {:.2} | {:.2}",
        mib(peaks[0]),
        mib(peaks[1]),
        peaks[1] as f64 / peaks[0] as f64,
        mib(weights),
    );
}

/// Medians over all rounds.
struct Times {
    /// Milliseconds.
    plain: f64,
    ours: f64,
    /// Of the ratios within a round, which a change of the machine's load between rounds leaves alone.
    faster: f64,
}

/// Times both forms in turns.
fn times(run: impl Fn(Form)) -> Times {
    let timed = |form| {
        let start = Instant::now();
        run(form);
        start.elapsed().as_secs_f64() * 1e3
    };
    let (mut rounds, start) = (Vec::new(), Instant::now());
    while rounds.len() < ROUNDS || start.elapsed() < BUDGET {
        rounds.push([timed(Form::Plain), timed(Form::Ours)]);
    }
    let median = |of: fn(&[f64; 2]) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Times { plain: median(|[plain, _]| *plain), ours: median(|[_, ours]| *ours), faster: median(|[p, o]| p / o) }
}

/// What is timed is the same function.
fn assert_same<B: LowRankBackend>([a, b]: [Tensor<B, 2>; 2]) {
    let list = |x: Tensor<B, 2>| x.into_data().to_vec::<f32>().expect("f32 is what this crate computes in");
    let (a, b) = (list(a), list(b));
    let largest = a.iter().fold(0f32, |largest, a| largest.max(a.abs()));
    let worst = a.iter().zip(&b).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst <= 1e-3 * largest, "gradients of both forms differ by {worst}, and the largest is {largest}");
}
