//! Memory of a run: counted where it can be, modelled where it cannot.

use indexmap::IndexMap;
use lowrank_kernels::HEAD_TOKENS;
use serde::Serialize;

use super::{Figure, product, times, trained};
use crate::adapters::{AdapterConfig, Module, ModuleKind, Selected, Spec, trainable};
use crate::events::units::{bytes, count};
use crate::models::Outline;
use crate::recipe::Offload;

/// The program itself: code, rows, and what two threads work with.
pub(super) const PROCESS: usize = 85 << 20;
/// One part in so many of the activations is what the allocator keeps of blocks that were of another size.
const KEPT_FREE: u64 = 10;
/// One entry of the tokenizer's vocabulary, merges included.
pub(super) const VOCABULARY_ENTRY: usize = 800;

/// The largest batch of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Batch {
    /// Padding included.
    pub tokens: usize,
    /// Tokens of a row.
    pub len: usize,
    /// Tokens that the loss counts, the only ones that reach the head.
    pub trained: usize,
}

/// What the memory of a run follows from, beside how its frozen weights are stored.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub outline: &'a Outline,
    pub adapter: &'a AdapterConfig,
    /// The modules that carry it.
    pub selected: &'a [Selected],
    pub batch: Batch,
    pub gradient_checkpointing: bool,
    pub offload: Offload,
}

/// Bytes beside the frozen weights, by what holds them.
#[derive(Clone, Debug, Serialize)]
pub struct Needs {
    /// What trains, and what the method has beside it.
    pub adapter: Figure,
    pub gradients: Figure,
    /// Wherever its moments lie between steps.
    pub optimizer: Figure,
    /// The part of `optimizer` that lies in host memory.
    pub optimizer_host: u64,
    /// What fresh adapters start from under LoftQ; it stays on the host.
    pub start: Option<Figure>,
    /// What blocks keep between forward and backward.
    pub blocks: Figure,
    /// What adapters keep beside their inputs, which are the blocks' or computed again.
    pub adapters: Figure,
    /// The largest temporaries of a block beside what is kept.
    pub temporaries: Figure,
    /// Logits and their gradient, and the hidden states they come from.
    pub logits: Figure,
    /// What the allocator keeps beside them of blocks that are free.
    pub free: Figure,
    /// The program itself.
    pub process: Figure,
}

impl Needs {
    pub fn of(setup: Setup<'_>) -> Self {
        let Setup { outline, adapter, selected, offload, .. } = setup;
        let trained = trained(outline, adapter, selected).value as usize;
        let frozen = adapter.spec().map_or(0, |spec| spec.frozen_parameters(selected));
        let adapter_formula = match frozen {
            0 => times(4, trained),
            _ => format!("4 bytes x ({} + {} frozen)", count(trained), count(frozen)),
        };
        let moments = if offload == Offload::Host { ", two moments in host memory" } else { ", two moments" };
        let optimizer = Figure::new(8 * trained, times(8, trained) + moments);
        let vocabulary =
            format!("{} + {VOCABULARY_ENTRY} bytes x {} tokens", bytes(PROCESS as u64), count(outline.vocab_size));
        let mut needs = Self {
            adapter: Figure::new(4 * (trained + frozen), adapter_formula),
            // Gradients live beside the parameters only between backward and step.
            gradients: Figure::new(4 * trained, times(4, trained)),
            optimizer_host: if offload == Offload::Host { optimizer.value } else { 0 },
            optimizer,
            start: start(setup),
            blocks: blocks(setup),
            adapters: adapters(setup),
            temporaries: temporaries(setup),
            logits: logits(setup),
            free: Figure::default(),
            process: Figure::new(PROCESS + VOCABULARY_ENTRY * outline.vocab_size, vocabulary),
        };
        let used = needs.activations();
        needs.free = Figure { value: used / KEPT_FREE, formula: format!("a tenth of {}, the four above", bytes(used)) };
        needs
    }

    /// What autodiff keeps between forward and backward, the largest temporaries beside it, and what the allocator keeps.
    pub fn activations(&self) -> u64 {
        sum([&self.blocks, &self.adapters, &self.temporaries, &self.logits, &self.free])
    }

    /// All of it: with the weights, the peak of the whole process.
    pub fn total(&self) -> u64 {
        sum(self.items().into_iter().map(|(_, figure)| figure))
    }

    /// Every part with its name.
    pub fn items(&self) -> Vec<(&'static str, &Figure)> {
        let states = [("adapter", &self.adapter), ("gradients", &self.gradients), ("optimizer", &self.optimizer)];
        let start = self.start.iter().map(|start| ("LoftQ's start", start));
        let activations = [
            ("blocks keep", &self.blocks),
            ("adapters keep", &self.adapters),
            ("temporaries", &self.temporaries),
            ("logits", &self.logits),
            ("allocator", &self.free),
        ];
        states.into_iter().chain(start).chain(activations).chain([("process", &self.process)]).collect()
    }
}

fn sum<'a>(figures: impl IntoIterator<Item = &'a Figure>) -> u64 {
    figures.into_iter().fold(0, |sum, figure| sum.saturating_add(figure.value))
}

fn start(setup: Setup<'_>) -> Option<Figure> {
    setup.adapter.spec().and_then(Spec::loftq)?;
    let factors: usize = setup.selected.iter().map(|site| site.rank * (site.rows + site.cols)).sum();
    Some(Figure::new(4 * factors, times(4, factors) + ", on the host"))
}

/// Floats of each token, or of the blocks' inputs and one block where blocks are computed again.
fn blocks(Setup { outline, adapter, batch, gradient_checkpointing, .. }: Setup<'_>) -> Figure {
    let (layers, hidden, block) =
        (outline.num_hidden_layers, outline.hidden_size, outline.footprint.kept + scores(outline, batch));
    if matches!(adapter, AdapterConfig::None(_)) {
        return Figure::new(0, "nothing trains");
    }
    let [tokens, l, h, b] = [batch.tokens, layers, hidden, block].map(count);
    match gradient_checkpointing {
        true => Figure::new(
            product(&[4, batch.tokens, layers * hidden + block]),
            format!("4 bytes x {tokens} tokens x ({l} layers x {h} + {b} of one)"),
        ),
        false => Figure::new(
            product(&[4, batch.tokens, layers, block]),
            format!("4 bytes x {tokens} tokens x {l} layers x {b}"),
        ),
    }
}

/// Floats of each token that attention keeps about the tokens of its row, where it does not compute them again.
fn scores(outline: &Outline, batch: Batch) -> usize {
    batch.len.saturating_mul(outline.scores)
}

fn adapters(Setup { outline, adapter, selected, batch, gradient_checkpointing, .. }: Setup<'_>) -> Figure {
    let all: usize = selected.iter().map(|site| kept_beside(adapter, site)).sum();
    let (kept, of_one) = match gradient_checkpointing {
        true => (all / outline.num_hidden_layers, ", of one layer"),
        false => (all, ""),
    };
    Figure::new(
        product(&[4, batch.tokens, kept]),
        format!("4 bytes x {} tokens x {}{of_one}", count(batch.tokens), count(kept)),
    )
}

/// Those of a block were fitted to measured peaks of a 1 M and a 135 M parameter model on burn-flex.
fn temporaries(Setup { outline, batch, .. }: Setup<'_>) -> Figure {
    let [tokens, floats] = [batch.tokens, outline.footprint.temporaries + scores(outline, batch)];
    Figure::new(product(&[4, tokens, floats]), format!("4 bytes x {} tokens x {}", count(tokens), count(floats)))
}

/// Of some tokens at a time where nothing of the head trains; none where there is no head.
fn logits(setup: Setup<'_>) -> Figure {
    let Setup { outline, batch, .. } = setup;
    let [_, Some(_)] = Module::vocabulary(&outline.modules) else { return Figure::new(0, "no head") };
    let tokens = if head_trains(setup) { batch.trained } else { batch.trained.min(HEAD_TOKENS) };
    let [at_once, vocabulary, trained, hidden] =
        [tokens, outline.vocab_size, batch.trained, outline.hidden_size].map(count);
    Figure::new(
        product(&[
            8,
            product(&[tokens, outline.vocab_size]).saturating_add(product(&[batch.trained, outline.hidden_size])),
        ]),
        format!("8 bytes x ({at_once} tokens x {vocabulary} + {trained} x {hidden})"),
    )
}

fn head_trains(Setup { outline, adapter, selected, .. }: Setup<'_>) -> bool {
    let [table, head] = Module::vocabulary(&outline.modules);
    let table = table.filter(|_| outline.tie_word_embeddings);
    let of = |module: Option<&Module>, path: &str| {
        module.zip(path.rsplit_once('.')).is_some_and(|(module, (parent, _))| module.path == parent)
    };
    let trained = trainable(outline, adapter, selected);
    trained.keys().any(|path| of(head, path) || (of(table, path) && path.ends_with(".weight")))
}

/// Floats per token that the adapter of a module keeps beside its input, which is the block's or computed again.
fn kept_beside(adapter: &AdapterConfig, site: &Selected) -> usize {
    let needed = adapter.spec().map_or(0, |spec| spec.retained(site));
    if needed < site.rank + site.cols { needed } else { needed - site.cols }
}

/// Bytes that each module's adapter needs again in the backward pass.
pub fn retained(Setup { adapter, selected, batch, .. }: Setup<'_>) -> IndexMap<String, u64> {
    let Some(spec) = adapter.spec() else { return IndexMap::new() };
    let bytes = |site: &Selected| {
        let tokens = if site.kind == ModuleKind::Head { batch.trained } else { batch.tokens };
        4 * (tokens * spec.retained(site)) as u64
    };
    selected.iter().filter(|site| site.rank > 0).map(|site| (site.path.clone(), bytes(site))).collect()
}
