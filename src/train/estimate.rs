//! Memory of a run before it starts: counted where it can be, modelled where it cannot.

use indexmap::IndexMap;

use crate::adapters::{AdapterConfig, BiasMode, Module, ModuleKind, Selected};
use crate::data::Splits;
use crate::events::Memory;
use crate::models::ModelConfig;
use crate::recipe::{BaseDtype, Recipe};

/// The program itself: code, allocator, thread stacks, tokenizer and rows.
const PROCESS: u64 = 56 << 20;

/// Parameters that train, and all parameters including adapters.
pub fn parameters(config: &ModelConfig, adapter: &AdapterConfig, selected: &[Selected]) -> (usize, usize) {
    let base = base_parameters(config);
    let Some(spec) = adapter.spec() else {
        let trainable = if matches!(adapter, AdapterConfig::Full(_)) { base } else { 0 };
        return (trainable, base);
    };
    let lora = spec.shared();
    let adapters = spec.total_parameters(selected);
    let modules = Module::list(config);
    let is_whole = |module: &&Module| lora.modules_to_save.iter().any(|name| module.is_named(name));
    let whole = modules.iter().filter(is_whole);
    let whole: usize = whole.map(|module| module.rows * module.cols + bias_of(config, module)).sum();
    let adapted = |module: &&Module| selected.iter().any(|s| s.path == module.path);
    let biases: usize = match lora.bias {
        BiasMode::None => 0,
        BiasMode::All => modules.iter().filter(|m| !is_whole(m)).map(|module| bias_of(config, module)).sum(),
        BiasMode::LoraOnly => modules.iter().filter(adapted).map(|module| bias_of(config, module)).sum(),
    };
    (adapters + whole + biases, base + adapters + spec.frozen_parameters(selected))
}

fn base_parameters(config: &ModelConfig) -> usize {
    let modules = Module::list(config);
    let own = modules.iter().filter(|module| module.kind != ModuleKind::Head || !config.tie_word_embeddings);
    let norms = (2 * config.num_hidden_layers + 1) * config.hidden_size;
    own.map(|module| module.rows * module.cols + bias_of(config, module)).sum::<usize>() + norms
}

fn bias_of(config: &ModelConfig, module: &Module) -> usize {
    let biased = match module.leaf() {
        "q_proj" | "k_proj" | "v_proj" => config.qkv_bias,
        "o_proj" => config.o_bias,
        "gate_proj" | "up_proj" | "down_proj" => config.mlp_bias,
        _ => false,
    };
    if biased { module.rows } else { 0 }
}

/// The largest batch of the training set.
struct Batch {
    /// Padding included.
    tokens: usize,
    /// Tokens that the loss counts, the only ones that reach the head.
    trained: usize,
}

impl Batch {
    fn largest(recipe: &Recipe, splits: &Splits) -> Self {
        let sequences = &splits.train.sequences;
        let rows = recipe.train.batch.min(sequences.len());
        let longest = sequences.iter().map(|s| s.ids.len()).max().unwrap_or(1);
        let trained = sequences.iter().map(|s| s.trained.iter().filter(|&&t| t).count()).max().unwrap_or(1);
        Self { tokens: rows * longest, trained: rows * trained }
    }
}

/// Bytes by what holds them, at the largest batch of the training set.
pub fn estimate(
    config: &ModelConfig,
    recipe: &Recipe,
    splits: &Splits,
    trainable: usize,
    selected: &[Selected],
) -> Memory {
    let per_weight = if recipe.model.dtype == BaseDtype::Bf16 { 2 } else { 4 };
    let base = (base_parameters(config) * per_weight) as u64;
    let batch = Batch::largest(recipe, splits);
    let retained_by_layer = retained(&recipe.adapter, selected, &batch);
    let frozen = recipe.adapter.spec().map_or(0, |spec| spec.frozen_parameters(selected));
    let adapter = 4 * (trainable + frozen) as u64;
    let activations = activations(config, recipe, &batch);
    // Gradients live beside the parameters only between backward and step.
    let (gradients, optimizer) = (4 * trainable as u64, 8 * trainable as u64);
    let peak = PROCESS + base + adapter + gradients + optimizer + activations;
    Memory { base, adapter, optimizer, activations, peak, retained_by_layer }
}

/// Bytes that each module's adapter keeps between forward and backward.
fn retained(adapter: &AdapterConfig, selected: &[Selected], batch: &Batch) -> IndexMap<String, u64> {
    let Some(spec) = adapter.spec() else { return IndexMap::new() };
    let bytes = |site: &Selected| {
        let tokens = if site.kind == ModuleKind::Head { batch.trained } else { batch.tokens };
        4 * (tokens * spec.retained(site)) as u64
    };
    selected.iter().filter(|site| site.rank > 0).map(|site| (site.path.clone(), bytes(site))).collect()
}

/// What autodiff keeps between forward and backward, and the largest temporary beside it.
fn activations(config: &ModelConfig, recipe: &Recipe, batch: &Batch) -> u64 {
    let tokens = batch.tokens;
    let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    let narrow = config.num_key_value_heads * config.head_dim;
    // Floats kept per token by one block: norms and residuals, q and o, k and v, MLP. The constants were fitted to
    // measured peaks of a 1 M and a 135 M parameter model on burn-flex.
    let block = tokens * (6 * hidden + 5 * heads * config.head_dim + 6 * narrow + 5 * inner);
    let blocks = if recipe.train.gradient_checkpointing {
        block + config.num_hidden_layers * tokens * hidden
    } else {
        config.num_hidden_layers * block
    };
    // Logits and their gradient.
    let head = 2 * batch.trained * config.vocab_size;
    if matches!(recipe.adapter, AdapterConfig::None(_)) {
        4 * (block + head) as u64
    } else {
        4 * (blocks + head) as u64
    }
}
