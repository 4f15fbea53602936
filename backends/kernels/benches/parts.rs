//! The parts of a training step beside products with frozen matrices (those are in `frozen_matmul.rs`), at SmolLM2-135M's
//! shapes: forward as evaluation runs it, on the backend alone, and forward and backward as training does, through autodiff.

mod fixtures;

use std::time::Duration;

use burn::tensor::{Int, Tensor, TensorData};
use burn_autodiff::Autodiff;
use burn_flex::Flex;
use criterion::{Criterion, criterion_group, criterion_main};
use fixtures::{EPS, HEADS, HIDDEN, INNER, RANK, TOKENS, VOCAB, WEIGHTS, dense, loss, positions, tensor};
use lowrank_kernels::{
    AttentionLayout, FrozenWeight, LowRank, LowRankBackend, cross_entropy, head_loss, low_rank, rms_norm, swiglu,
};

/// `[batch, len]`
const SHAPE: [usize; 2] = [4, TOKENS / 4];

#[derive(Clone, Copy)]
enum Part {
    Attention,
    RmsNorm,
    SwiGlu,
    /// From logits of all tokens.
    CrossEntropy,
    /// From hidden states, by way of a frozen head.
    HeadLoss,
    /// Of a linear layer `[out, in]`.
    LowRank([usize; 2]),
}

/// What takes part and is not differentiated.
struct Constants<B: LowRankBackend> {
    layout: AttentionLayout<B>,
    norm: Tensor<B, 1>,
    head: FrozenWeight<B>,
    targets: Tensor<B, 1, Int>,
}

impl<B: LowRankBackend> Constants<B> {
    fn new() -> Self {
        let device = Default::default();
        let targets: Vec<i32> = (0..TOKENS).map(|i| (i * 7919 % VOCAB) as i32).collect();
        Self {
            layout: AttentionLayout::new(positions(SHAPE), &device),
            norm: tensor([HIDDEN], 1.0),
            head: dense([VOCAB, HIDDEN]),
            targets: Tensor::from_data(TensorData::from(&targets[..]), &device),
        }
    }
}

impl Part {
    fn name(self) -> String {
        match self {
            Part::Attention => "attention".into(),
            Part::RmsNorm => "rms_norm".into(),
            Part::SwiGlu => "swiglu".into(),
            Part::CrossEntropy => "cross_entropy".into(),
            Part::HeadLoss => "head_loss".into(),
            Part::LowRank([out, cols]) => format!("low_rank {out}x{cols}"),
        }
    }

    /// Shapes of what is differentiated.
    fn operands(self) -> Vec<[usize; 2]> {
        match self {
            Part::Attention => {
                [HEADS.heads, HEADS.kv_heads, HEADS.kv_heads].map(|heads| [TOKENS, heads * HEADS.head_dim]).to_vec()
            }
            Part::RmsNorm | Part::HeadLoss => vec![[TOKENS, HIDDEN]],
            Part::SwiGlu => vec![[TOKENS, INNER]; 2],
            Part::CrossEntropy => vec![[TOKENS, VOCAB]],
            Part::LowRank([out, cols]) => vec![[TOKENS, cols], [RANK, cols], [out, RANK]],
        }
    }

    fn run<B: LowRankBackend>(self, operands: &[Tensor<B, 2>], constants: &Constants<B>) -> Tensor<B, 2> {
        let operand = |i: usize| operands[i].clone();
        match self {
            Part::Attention => constants.layout.attention(operand(0), operand(1), operand(2), HEADS),
            Part::RmsNorm => rms_norm(operand(0), constants.norm.clone(), EPS),
            Part::SwiGlu => swiglu(operand(0), operand(1)),
            Part::CrossEntropy => cross_entropy(operand(0), constants.targets.clone()).unsqueeze(),
            Part::HeadLoss => head_loss(operand(0), constants.head.clone(), constants.targets.clone()).unsqueeze(),
            Part::LowRank(_) => low_rank(operand(0), LowRank::product(operand(1), operand(2), 2.0)),
        }
    }
}

fn parts<B: LowRankBackend>(criterion: &mut Criterion, backend: &str) {
    let singles = [Part::Attention, Part::RmsNorm, Part::SwiGlu, Part::CrossEntropy, Part::HeadLoss];
    let (plain, differentiated) = (Constants::<B>::new(), Constants::<Autodiff<B>>::new());
    for part in singles.into_iter().chain(WEIGHTS.map(Part::LowRank)) {
        let mut group = criterion.benchmark_group(format!("{backend}/{}", part.name()));
        group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        let operands: Vec<Tensor<B, 2>> = part.operands().into_iter().map(|shape| tensor(shape, 1.0)).collect();
        group.bench_function("forward", |bencher| bencher.iter(|| part.run(&operands, &plain)));
        let operands: Vec<Tensor<Autodiff<B>, 2>> =
            operands.into_iter().map(|operand| Tensor::from_inner(operand).require_grad()).collect();
        group.bench_function("forward and backward", |bencher| {
            bencher.iter(|| loss(part.run(&operands, &differentiated)).backward());
        });
    }
}

fn every_backend(criterion: &mut Criterion) {
    parts::<Flex>(criterion, "flex");
    #[cfg(feature = "ndarray")]
    parts::<burn_ndarray::NdArray<f32, i32>>(criterion, "ndarray");
}

criterion_group!(benches, every_backend);
criterion_main!(benches);
