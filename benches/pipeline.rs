//! What surrounds forward and backward: the optimizer's step, rows to batches, and loading a model, on flex.
//!
//! `LOWRANK_BENCH_MODEL`, a `.gguf` file or a Hugging Face directory, is loaded as well where it is set.

use std::path::{Path, absolute};
use std::time::Duration;

use burn::tensor::Tensor;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lowrank::adapters::{AdapterConfig, LoraConfig, Module, Origin};
use lowrank::data::{self, Encoder, Example};
use lowrank::models::{self, ModelConfig, Opened};
use lowrank::optim::{Form, Optimizer};
use lowrank::recipe::{BaseStorage, Blocks, LossOn, Optim, Quant};
use lowrank::runtime::BaseSpec;
use lowrank_flex::RUNTIME;
use lowrank_kernels::testing::TestBackend as B;

/// Rows of a batch.
const BATCH: usize = 8;

fn smollm2_135m() -> ModelConfig {
    let json = br#"{
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "rms_norm_eps": 1e-5, "rope_theta": 1e5,
        "max_position_embeddings": 8192, "tie_word_embeddings": true
    }"#;
    ModelConfig::from_json(json, Path::new("config.json")).expect("a configuration that is supported")
}

/// AdamW over every parameter of LoRA with its defaults on SmolLM2-135M; elements are numbers that train.
fn optimizer(criterion: &mut Criterion) {
    let config = AdapterConfig::from(LoraConfig::default());
    let selected = config.select(&Module::list(&smollm2_135m()), Origin::Recipe).expect("defaults fit the model");
    let spec = config.spec().expect("LoRA is an adapter");
    let parameters = spec.trains(&selected);
    let mut optimizer = Optimizer::<B>::new(&Optim::default(), Form::default(), &parameters, &selected);
    let count = |shape: &[usize]| shape.iter().product::<usize>();
    let full = |shape: &[usize], value: f64| Tensor::<B, 1>::full([count(shape)], value, &Default::default());
    let mut values: Vec<_> =
        parameters.iter().map(|(path, shape)| (path.as_str(), full(shape, 0.01), full(shape, 1e-4))).collect();
    let mut group = criterion.benchmark_group("optimizer");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(parameters.values().map(|shape| count(shape) as u64).sum()));
    group.bench_function(BenchmarkId::new("adamw", format!("{} tensors", parameters.len())), |bencher| {
        bencher.iter(|| {
            for (path, value, grad) in &mut values {
                *value = optimizer.step(path, 1e-4, value.clone(), grad.clone());
            }
        });
    });
}

/// The generated rows, in tokens of the embedded model; elements are rows.
fn rows(criterion: &mut Criterion) {
    let tokenizer = opened("tiny").tokenizer;
    let encoder = Encoder { tokenizer: &tokenizer, template: None, loss_on: LossOn::default() };
    let pairs = data::synthetic::pairs("kitchen").expect("a generated set");
    let examples: Vec<Example> =
        pairs.into_iter().map(|(prompt, completion)| Example::PromptCompletion { prompt, completion }).collect();
    let encode = |example: &Example| encoder.encode(example).expect("generated rows can be encoded").sequence;
    let sequences: Vec<_> = examples.iter().map(encode).collect();
    let pad = tokenizer.pad().unwrap_or(0);
    let batches = |sequences: &[data::Sequence]| -> Vec<data::Batch> {
        let order = data::batches(sequences.len(), BATCH, 0, 0);
        order
            .iter()
            .map(|rows| data::collate(&rows.iter().map(|&row| &sequences[row]).collect::<Vec<_>>(), pad))
            .collect()
    };
    let mut group = criterion.benchmark_group("rows");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(examples.len() as u64));
    group.bench_function("tokenise", |bencher| {
        bencher.iter(|| examples.iter().map(encode).collect::<Vec<_>>());
    });
    group.bench_function("collate", |bencher| bencher.iter(|| batches(&sequences)));
    group.bench_function("tokenise and collate", |bencher| {
        bencher.iter(|| batches(&examples.iter().map(encode).collect::<Vec<_>>()));
    });
}

/// From files to a base on the device.
fn load(criterion: &mut Criterion) {
    let asked = std::env::var("LOWRANK_BENCH_MODEL").ok();
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for path in ["tiny"].into_iter().chain(asked.as_deref()) {
        let name = Path::new(path).file_name().map_or(path.into(), |name| name.to_string_lossy());
        group.bench_function(BenchmarkId::new("open", &name), |bencher| bencher.iter(|| opened(path)));
        let opened = opened(path);
        for (storage, quant) in [("f32", None), ("nf4", Some(Quant::Nf4(Blocks::default())))] {
            let base = BaseStorage { quant, ..BaseStorage::default() };
            let (config, weights) = (&opened.config, opened.weights.as_ref());
            let spec = BaseSpec { config, weights, storage: base, loftq: None };
            group.bench_function(BenchmarkId::new(format!("to {storage}"), &name), |bencher| {
                bencher.iter(|| RUNTIME.load(0, &spec).expect("what was opened can be loaded"));
            });
        }
    }
}

/// # Panics
/// If it is no model: there is nothing to measure then.
fn opened(path: &str) -> Opened {
    models::open(path, &absolute(".").expect("a working directory")).unwrap_or_else(|error| panic!("{error}"))
}

criterion_group!(benches, optimizer, rows, load);
criterion_main!(benches);
