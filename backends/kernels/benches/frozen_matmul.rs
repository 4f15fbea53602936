//! Products with a frozen matrix on the CPU, per storage and per numbers of the product, at SmolLM2-135M's shapes.
//!
//! Elements are floating-point operations, so `Gelem/s` reads as GFLOP/s. `plain` is the body in plain tensor operations.

use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::Flex;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lowrank_kernels::four_bit::{Code, Format, Quantised, ScaleFormat, Scales, dynamic_map};
use lowrank_kernels::{
    BlockScales, Compute, FourBit, FrozenWeight, LowRankBackend, Side, bf16, frozen_matmul, plain_frozen_matmul,
};
use std::time::Duration;

/// Tokens, and the `[out, in]` of query, up and down projections.
const TOKENS: [usize; 2] = [512, 1];
const WEIGHTS: [[usize; 2]; 3] = [[576, 576], [1536, 576], [576, 1536]];

fn values(n: usize, scale: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 1013) as f32 / 506.0 - 1.0) * scale).collect()
}

fn float(values: &[f32]) -> FloatTensor<Flex> {
    Tensor::<Flex, 1>::from_data(TensorData::from(values), &Default::default()).into_primitive().tensor()
}

fn integers(values: &[i32]) -> IntTensor<Flex> {
    Tensor::<Flex, 1, Int>::from_data(TensorData::from(values), &Default::default()).into_primitive()
}

fn words(bytes: &[u8]) -> Vec<i32> {
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | i32::from(*byte));
    bytes.chunks(4).map(word).collect()
}

fn dense([rows, cols]: [usize; 2]) -> FrozenWeight<Flex> {
    let weight = Tensor::<Flex, 1>::from_data(&values(rows * cols, 0.05)[..], &Default::default());
    FrozenWeight::Dense(weight.reshape([rows, cols]).into_primitive().tensor())
}

fn packed_bf16([rows, cols]: [usize; 2], compute: Compute) -> FrozenWeight<Flex> {
    let codes = integers(&bf16::pack(&values(rows * cols, 0.05)));
    FrozenWeight::Bf16 { codes, table: float(&bf16::table()), rows, cols, compute }
}

/// As QLoRA stores it: blocks of 64, nested scales.
fn nf4([rows, cols]: [usize; 2], compute: Compute) -> FrozenWeight<Flex> {
    let format = Format { code: Code::Nf4, block: 64, scales: ScaleFormat::Nested };
    let quantised = Quantised::new(&values(rows * cols, 0.05), format);
    let Scales::Nested(nested) = &quantised.scales else { unreachable!("as asked for") };
    let scales = BlockScales::Nested {
        codes: integers(&words(&nested.codes)),
        scales: float(&nested.scales),
        map: float(&dynamic_map()),
        offset: float(&[nested.offset]),
    };
    let (codes, book) = (integers(&words(&quantised.bytes)), float(&format.code.book()));
    FrozenWeight::FourBit(FourBit { codes, scales, book, block: format.block, rows, cols, compute })
}

fn products(criterion: &mut Criterion) {
    for (m, [out, cols]) in TOKENS.into_iter().flat_map(|m| WEIGHTS.map(|shape| (m, shape))) {
        for side in [Side::Forward, Side::Backward] {
            let [k, n] = if side == Side::Forward { [cols, out] } else { [out, cols] };
            let mut group = criterion.benchmark_group(format!("{side:?} {m}x{k}x{n}"));
            group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
            let x = Tensor::<Flex, 1>::from_data(&values(m * k, 1.0)[..], &Default::default()).reshape([m, k]);
            let shape = [out, cols];
            let mut weights = vec![
                ("dense", dense(shape)),
                ("bf16", packed_bf16(shape, Compute::F32)),
                ("nf4", nf4(shape, Compute::F32)),
            ];
            if Flex::computes_in(Compute::Bf16, &Default::default()) {
                weights.push(("bf16 in bf16", packed_bf16(shape, Compute::Bf16)));
                weights.push(("nf4 in bf16", nf4(shape, Compute::Bf16)));
            }
            for (name, weight) in weights {
                group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                    bencher.iter(|| frozen_matmul(x.clone(), weight.clone(), side));
                });
            }
            for (name, weight) in
                [("plain bf16", packed_bf16(shape, Compute::F32)), ("plain nf4", nf4(shape, Compute::F32))]
            {
                group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                    bencher.iter(|| plain_frozen_matmul(x.clone(), weight.clone(), side));
                });
            }
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
