//! Products with a frozen matrix on the CPU, per storage and per numbers of the product, at SmolLM2-135M's shapes.
//!
//! Elements are floating-point operations, so `Gelem/s` reads as GFLOP/s. `plain` is the body in plain tensor operations.

mod fixtures;

use std::time::Duration;

use burn_flex::Flex;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fixtures::{TOKENS, WEIGHTS, dense, nf4, packed_bf16, tensor};
use lowrank_kernels::{Compute, LowRankBackend, Side, frozen_matmul, plain_frozen_matmul};

fn products(criterion: &mut Criterion) {
    for (m, [out, cols]) in [TOKENS, 1].into_iter().flat_map(|m| WEIGHTS.map(|shape| (m, shape))) {
        for side in [Side::Forward, Side::Backward] {
            let [k, n] = if side == Side::Forward { [cols, out] } else { [out, cols] };
            let mut group = criterion.benchmark_group(format!("{side:?} {m}x{k}x{n}"));
            group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
            let x = tensor::<Flex, 2>([m, k], 1.0);
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
