//! One linear layer under every method of the adapters' table with its defaults, over each storage of the base, at
//! SmolLM2-135M's shapes on flex; `no adapter` is the frozen layer alone.

use std::time::Duration;

use burn::module::AutodiffModule;
use burn::tensor::{Tensor, TensorData};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lowrank::adapters::{Adapter, AdapterConfig, Module, ModuleKind, Origin, Pool, Start};
use lowrank::nn::{Linear, Pass, Storage, Weight};
use lowrank::recipe::{BaseStorage, Blocks, Quant};
use lowrank_kernels::LowRankBackend;
use lowrank_kernels::four_bit::Quantised;
use lowrank_kernels::testing::TestAutodiff as A;

const TOKENS: usize = 512;

/// A module and its `[out, in]`.
const LAYERS: [(&str, [usize; 2]); 3] =
    [("self_attn.q_proj", [576, 576]), ("mlp.up_proj", [1536, 576]), ("mlp.down_proj", [576, 1536])];

fn values(n: usize, scale: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 1013) as f32 / 506.0 - 1.0) * scale).collect()
}

fn weight(quant: Option<Quant>, shape: [usize; 2]) -> Weight<A> {
    let values = values(shape[0] * shape[1], 0.05);
    let storage = Storage::new(BaseStorage { quant, ..BaseStorage::default() }, &Default::default());
    match quant {
        Some(quant) => storage.four_bit(&Quantised::new(&values, quant.format()), shape),
        None => storage.weight(values, shape),
    }
}

/// The layer as training begins with it.
fn layer(name: &str, weight: Weight<A>, config: Option<&AdapterConfig>) -> lowrank::Result<Linear<A>> {
    let adapter = match config {
        Some(config) => {
            let [rows, cols] = weight.shape();
            let module = Module {
                path: format!("model.layers.0.{name}"),
                kind: ModuleKind::Linear,
                rows,
                cols,
                biased: false,
                transposed: false,
            };
            let selected = config.select(&[module], Origin::Recipe)?;
            let (device, mut pool) = (weight.device(), Pool::new());
            let mut start =
                Start { seed: 1, device, selected: &selected, weight: &weight, pool: &mut pool, values: None };
            Adapter::new(&selected[0], config, &mut start)?
        }
        None => None,
    };
    Ok(Linear { adapter, ..Linear::new(weight, None) })
}

fn forward<B: LowRankBackend>(layer: &Linear<B>, x: &Tensor<B, 2>) -> Tensor<B, 2> {
    layer.forward(x.clone(), Pass::EVAL)
}

/// A number to go back from, whose gradient to `y` costs one small product: that of `y.sum()` is expanded and multiplied.
fn loss(y: Tensor<A, 2>) -> Tensor<A, 1> {
    let ones = Tensor::ones([y.dims()[1], 1], &y.device());
    y.matmul(ones).sum()
}

fn methods(criterion: &mut Criterion) {
    let configs: Vec<Option<AdapterConfig>> =
        std::iter::once(None).chain(AdapterConfig::defaults().into_iter().map(Some)).collect();
    let storages = [("f32", None), ("nf4", Some(Quant::Nf4(Blocks::default())))];
    for (storage, quant) in storages {
        for (name, shape @ [out, cols]) in LAYERS {
            let weight = weight(quant, shape);
            let x = TensorData::new(values(TOKENS * cols, 1.0), [TOKENS, cols]);
            let x = Tensor::<A, 2>::from_data(x, &Default::default()).require_grad();
            for direction in ["forward", "forward and backward"] {
                let mut group = criterion.benchmark_group(format!("{out}x{cols} {storage} {direction}"));
                group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
                for config in &configs {
                    let label = config.as_ref().map_or("no adapter", AdapterConfig::name);
                    let layer = layer(name, weight.clone(), config.as_ref()).expect("defaults fit a linear layer");
                    group.bench_function(BenchmarkId::from_parameter(label), |bencher| match direction {
                        "forward" => {
                            let (layer, x) = (layer.valid(), x.clone().inner());
                            bencher.iter(|| forward(&layer, &x));
                        }
                        _ => bencher.iter(|| loss(forward(&layer, &x)).backward()),
                    });
                }
            }
        }
    }
}

criterion_group!(benches, methods);
criterion_main!(benches);
