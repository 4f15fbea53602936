//! Memory of a run before it starts: counted where it can be, modelled where it cannot.

use std::collections::HashMap;

use indexmap::IndexMap;
use lowrank_kernels::HEAD_TOKENS;

use crate::adapters::{AdapterConfig, Module, ModuleKind, Selected, Spec, trainable};
use crate::data::{Sequence, Splits};
use crate::events::Memory;
use crate::models::families::Footprint;
use crate::models::{ModelConfig, Stored, WeightSource};
use crate::recipe::{BaseDtype, Offload, Recipe};

/// The program itself: code, allocator, thread stacks and rows.
const PROCESS: u64 = 60 << 20;
/// One entry of the tokenizer's vocabulary, merges included.
const VOCABULARY_ENTRY: u64 = 800;

/// Parameters that train, and all parameters: the base's, and what adapters have beside them.
pub fn parameters(config: &ModelConfig, adapter: &AdapterConfig, selected: &[Selected]) -> (usize, usize) {
    let size = |shape: &[usize]| shape.iter().product::<usize>();
    let base: HashMap<String, usize> = config.tensors().into_iter().map(|(name, shape)| (name, size(&shape))).collect();
    let trained = trainable(config, adapter, selected);
    let beside = trained.iter().filter(|(path, _)| !base.contains_key(*path));
    let beside: usize = beside.map(|(_, shape)| size(shape)).sum();
    let frozen = adapter.spec().map_or(0, |spec| spec.frozen_parameters(selected));
    (trained.values().map(|shape| size(shape)).sum(), base.values().sum::<usize>() + beside + frozen)
}

/// Bytes of the base on the device.
pub fn base_bytes(config: &ModelConfig, base: &Stored<'_>) -> u64 {
    let per_weight = if base.storage().dtype == BaseDtype::Bf16 { 2 } else { 4 };
    let bytes = |(name, shape): (String, Vec<usize>)| {
        let len: usize = shape.iter().product();
        match base.four_bit_format(&name) {
            Some(format) => format.bytes(len),
            // Norms and biases stay f32.
            None if shape.len() == 1 => 4 * len as u64,
            None => (per_weight * len) as u64,
        }
    };
    config.tensors().into_iter().map(bytes).sum()
}

/// The largest batch of the training set.
struct Batch {
    /// Padding included.
    tokens: usize,
    /// Of a row.
    len: usize,
    /// Tokens that the loss counts, the only ones that reach the head.
    trained: usize,
}

impl Batch {
    fn largest(recipe: &Recipe, splits: &Splits) -> Self {
        let sequences = &splits.train.sequences;
        let rows = recipe.train.batch.min(sequences.len());
        let longest = sequences.iter().map(|s| s.ids.len()).max().unwrap_or(1);
        let trained = sequences.iter().map(Sequence::counted).max().unwrap_or(1);
        let decoded = sequences.iter().map(Sequence::decoded).max().unwrap_or(0);
        Self { tokens: rows * (longest + decoded), len: longest.max(decoded), trained: rows * trained }
    }
}

/// Bytes by what holds them, at the largest batch of the training set; `base` are the bytes of the frozen weights.
pub fn estimate(
    config: &ModelConfig,
    recipe: &Recipe,
    base: u64,
    splits: &Splits,
    trainable: usize,
    selected: &[Selected],
) -> Memory {
    let batch = Batch::largest(recipe, splits);
    let retained_by_layer = retained(&recipe.adapter, selected, &batch);
    let frozen = recipe.adapter.spec().map_or(0, |spec| spec.frozen_parameters(selected));
    let adapter = 4 * (trainable + frozen) as u64;
    let activations = 4 * activations(config, recipe, &batch, selected) as u64;
    // What LoftQ's start came from stays on the host.
    let left = match recipe.adapter.spec().and_then(Spec::loftq) {
        None => 0,
        Some(_) => 4 * selected.iter().map(|site| site.rank * (site.rows + site.cols)).sum::<usize>() as u64,
    };
    // Gradients live beside the parameters only between backward and step.
    let (gradients, optimizer) = (4 * trainable as u64, 8 * trainable as u64);
    let optimizer_host = if recipe.optim.offload == Offload::Host { optimizer } else { 0 };
    let process = PROCESS + VOCABULARY_ENTRY * config.vocab_size as u64;
    let peak = process + base + left + adapter + gradients + optimizer + activations;
    Memory { base, adapter, optimizer, optimizer_host, activations, peak, retained_by_layer }
}

/// Bytes that each module's adapter needs again in the backward pass.
fn retained(adapter: &AdapterConfig, selected: &[Selected], batch: &Batch) -> IndexMap<String, u64> {
    let Some(spec) = adapter.spec() else { return IndexMap::new() };
    let bytes = |site: &Selected| {
        let tokens = if site.kind == ModuleKind::Head { batch.trained } else { batch.tokens };
        4 * (tokens * spec.retained(site)) as u64
    };
    selected.iter().filter(|site| site.rank > 0).map(|site| (site.path.clone(), bytes(site))).collect()
}

/// Floats that autodiff keeps between forward and backward, and the largest temporaries beside them. The temporaries of a block
/// were fitted to measured peaks of a 1 M and a 135 M parameter model on burn-flex.
fn activations(config: &ModelConfig, recipe: &Recipe, batch: &Batch, selected: &[Selected]) -> usize {
    let (layers, hidden) = (config.num_hidden_layers, config.hidden_size);
    let family = config.architecture.family();
    let Footprint { kept: block, temporaries } = family.footprint(config);
    let scores = batch.len * family.scores(config);
    let (block, temporaries) = (block + scores, temporaries + scores);
    let beside: usize = selected.iter().map(|site| kept_beside(&recipe.adapter, site)).sum();
    let kept = if matches!(recipe.adapter, AdapterConfig::None(_)) {
        0
    } else if recipe.train.gradient_checkpointing {
        layers * hidden + block + beside / layers
    } else {
        layers * block + beside
    };
    batch.tokens * (kept + temporaries) + head(config, recipe, batch, selected)
}

/// Floats per token that the adapter of a module keeps beside its input, which is the block's or computed again.
fn kept_beside(adapter: &AdapterConfig, site: &Selected) -> usize {
    let needed = adapter.spec().map_or(0, |spec| spec.retained(site));
    if needed < site.rank + site.cols { needed } else { needed - site.cols }
}

/// Logits and their gradient, of some tokens at a time where nothing of the head trains, and the hidden states they come from.
fn head(config: &ModelConfig, recipe: &Recipe, batch: &Batch, selected: &[Selected]) -> usize {
    let modules = Module::list(config);
    let [table, head] = Module::vocabulary(&modules);
    let table = table.filter(|_| config.tie_word_embeddings);
    let of = |module: Option<&Module>, path: &str| {
        module.zip(path.rsplit_once('.')).is_some_and(|(module, (parent, _))| module.path == parent)
    };
    let trained = trainable(config, &recipe.adapter, selected);
    let trains = trained.keys().any(|path| of(head, path) || (of(table, path) && path.ends_with(".weight")));
    let tokens = if trains { batch.trained } else { batch.trained.min(HEAD_TOKENS) };
    2 * (tokens * config.vocab_size + batch.trained * config.hidden_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::tiny;
    use crate::adapters::{LoraConfig, LoraInit, Origin};
    use crate::data::{Dataset, Sequence};
    use crate::recipe::{Blocks, Quant};

    fn base_parameters(config: &ModelConfig) -> usize {
        config.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    fn memory(change: impl FnOnce(&mut Recipe)) -> Memory {
        let mut recipe = crate::recipe::parse(
            "version = 1\n[model]\npath = \"tiny\"\n[adapter.lora]\nrank = 4\n[data]\ntrain = \"rows.csv\"\n[train]\nbatch = 2\n",
        )
        .unwrap();
        change(&mut recipe);
        let row = Sequence { ids: vec![1; 10], trained: vec![true; 10], ..Sequence::default() };
        let train = Dataset { sequences: vec![row; 3], ..Dataset::default() };
        let splits = Splits { train, eval: None, sha256: String::new(), stop: Vec::new(), labels: Vec::new() };
        let config = tiny::llama();
        let selected = recipe.adapter.select(&Module::list(&config), Origin::Recipe).unwrap();
        let (trained, _) = parameters(&config, &recipe.adapter, &selected);
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/e2e/llama/base");
        let weights = crate::models::Safetensors::open_dir(root.as_ref()).unwrap();
        let base = base_bytes(&config, &Stored::new(&weights, recipe.storage()).unwrap());
        estimate(&config, &recipe, base, &splits, trained, &selected)
    }

    #[test]
    fn every_part_is_counted_and_the_peak_holds_them_all() {
        let plain = memory(|_| {});
        // 2 · (q, k, v, o, gate, up, down) + embedding + head, and 5 norms; 4 bytes each.
        let layer = 96 * (96 + 48 + 48 + 96) + 3 * 96 * 256;
        assert_eq!(plain.base, 4 * (2 * layer + 2 * 512 * 96 + 5 * 96));
        // 2 · 4 · (in + out) over the seven of a layer.
        let adapter = 2 * 4 * (2 * (96 + 96) + 2 * (96 + 48) + 3 * (96 + 256));
        assert_eq!((plain.adapter, plain.optimizer), (4 * adapter, 8 * adapter));
        // Two layers of seven modules at rank 4, and temporaries of one layer.
        let kept = 2 * (2 * 96 + 2 * 96 + 2 * 48 + 2 * 256 + 7 * 4) + (6 * 256 + 4 * 96);
        assert_eq!(plain.activations, 4 * (20 * kept + 2 * 20 * (512 + 96)));
        let parts = plain.base + plain.adapter + plain.optimizer + plain.activations;
        assert_eq!(plain.peak, PROCESS + 512 * VOCABULARY_ENTRY + parts + plain.adapter);
    }

    #[test]
    fn what_saves_memory_is_seen_to() {
        let plain = memory(|_| {});
        let bf16 = memory(|recipe| recipe.model.dtype = BaseDtype::Bf16).base;
        assert_eq!(bf16, plain.base / 2 + 2 * 5 * 96);
        let nf4 = memory(|recipe| recipe.base.quant = Some(Quant::Nf4(Blocks::default()))).base;
        let layer = 96 * (96 + 48 + 48 + 96) + 3 * 96 * 256;
        // 4 + 8 / 64 + 32 / (64 · 256) bits in each weight of a block, and an offset in each of 14 matrices.
        let quantised = 2.0 * layer as f64 * 4.127 / 8.0 + 14.0 * 4.0;
        assert!((nf4 as f64 - quantised - 4.0 * (2.0 * 512.0 * 96.0 + 5.0 * 96.0)).abs() < 14.0 * 12.0, "{nf4}");
        let loftq = |init| {
            memory(|recipe| {
                recipe.base.quant = Some(Quant::Nf4(Blocks::default()));
                recipe.adapter = LoraConfig { rank: 4, init, ..LoraConfig::default() }.into();
            })
        };
        let [plain, starts] = [LoraInit::Default, LoraInit::Loftq(3)].map(loftq);
        assert_eq!((starts.base, starts.peak), (plain.base, plain.peak + plain.adapter));
        assert!(memory(|recipe| recipe.train.gradient_checkpointing = true).activations < plain.activations);
        assert!(memory(|recipe| recipe.train.batch = 1).activations < plain.activations);
        // Three rows are all there is.
        let [all, more] = [3, 100].map(|batch| memory(|recipe| recipe.train.batch = batch).activations);
        assert_eq!(all, more);
        let hosted = memory(|recipe| recipe.optim.offload = Offload::Host);
        assert_eq!(
            (plain.optimizer_host, hosted.optimizer_host, hosted.optimizer),
            (0, plain.optimizer, plain.optimizer)
        );
        let none = memory(|recipe| recipe.adapter = AdapterConfig::none());
        assert!(none.adapter == 0 && none.optimizer == 0 && none.activations < plain.activations);
    }

    #[test]
    fn only_a_head_that_trains_has_all_its_logits_at_once() {
        let long = |targets: &str| {
            memory(|recipe| {
                recipe.train.batch = 3;
                recipe.adapter = AdapterConfig::from(LoraConfig {
                    rank: 1,
                    targets: crate::adapters::Targets::Pattern(targets.into()),
                    ..LoraConfig::default()
                });
            })
        };
        let [frozen, adapted] = [long(".*q_proj"), long(".*(q_proj|lm_head)")].map(|memory| memory.activations);
        // 30 tokens are fewer than a chunk: the adapter's n × r is all the difference.
        assert_eq!(adapted - frozen, 4 * 30);
        let many = Batch { tokens: 10 * HEAD_TOKENS, len: HEAD_TOKENS, trained: 10 * HEAD_TOKENS };
        let config = tiny::llama();
        let of = |adapter: AdapterConfig| {
            let selected = adapter.select(&Module::list(&config), Origin::Recipe).unwrap();
            let mut recipe = crate::recipe::parse(
                "version = 1\n[model]\npath = \"tiny\"\n[adapter.full]\n[data]\ntrain = \"rows.csv\"\n",
            )
            .unwrap();
            recipe.adapter = adapter;
            head(&config, &recipe, &many, &selected)
        };
        let [full, lora] = [AdapterConfig::full(), LoraConfig::default().into()].map(of);
        assert_eq!(full - lora, 2 * 9 * HEAD_TOKENS * config.vocab_size);
    }

    #[test]
    fn a_weight_that_trains_is_counted_once_and_an_adapter_beside_it() {
        let config = tiny::llama();
        let lora = LoraConfig { rank: 4, modules_to_save: vec!["lm_head".into()], ..LoraConfig::default() };
        let lora = AdapterConfig::from(lora);
        let selected = lora.select(&Module::list(&config), Origin::Recipe).unwrap();
        let of_adapter: usize = selected.iter().map(|site| site.rank * (site.rows + site.cols)).sum();
        let expected = (of_adapter + 512 * 96, base_parameters(&config) + of_adapter);
        assert_eq!(parameters(&config, &lora, &selected), expected);
    }
}
