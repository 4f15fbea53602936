//! The memory of a run before it starts, at the largest batch of its rows.

use crate::adapters::Selected;
use crate::data::{Sequence, Splits};
use crate::estimate::{Batch, Needs, Setup, retained};
use crate::events::Memory;
use crate::models::Outline;
use crate::recipe::Recipe;

/// Bytes by what holds them; `base` are those of the frozen weights.
pub fn estimate(outline: &Outline, recipe: &Recipe, base: u64, splits: &Splits, selected: &[Selected]) -> Memory {
    let setup = Setup {
        outline,
        adapter: &recipe.adapter,
        selected,
        batch: largest(recipe, splits),
        gradient_checkpointing: recipe.train.gradient_checkpointing,
        offload: recipe.optim.offload,
    };
    let needs = Needs::of(setup);
    Memory {
        base,
        adapter: needs.adapter.value,
        optimizer: needs.optimizer.value,
        optimizer_host: needs.optimizer_host,
        activations: needs.activations(),
        peak: base + needs.total(),
        retained_by_layer: retained(setup),
    }
}

fn largest(recipe: &Recipe, splits: &Splits) -> Batch {
    let sequences = &splits.train.sequences;
    let rows = recipe.train.batch.min(sequences.len());
    let longest = sequences.iter().map(|s| s.ids.len()).max().unwrap_or(1);
    let decoded = sequences.iter().map(Sequence::decoded).max().unwrap_or(0);
    let trained = sequences.iter().map(Sequence::counted).max().unwrap_or(1);
    Batch { tokens: rows * (longest + decoded), len: longest, trained: rows * trained }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::tiny;
    use crate::adapters::{AdapterConfig, LoraConfig, LoraInit, Origin};
    use crate::data::Dataset;
    use crate::models::{Stored, WeightSource};
    use crate::recipe::{BaseDtype, Blocks, Offload, Quant};

    fn memory(change: impl FnOnce(&mut Recipe)) -> Memory {
        let mut recipe = crate::recipe::parse(
            "version = 1\n[model]\npath = \"tiny\"\n[adapter.lora]\nrank = 4\ntargets = \"all-linear\"\n[data]\ntrain = \"rows.csv\"\n[train]\nbatch = 2\n",
        )
        .unwrap();
        change(&mut recipe);
        let row = Sequence { ids: vec![1; 10], trained: vec![true; 10], ..Sequence::default() };
        let train = Dataset { sequences: vec![row; 3], ..Dataset::default() };
        let splits = Splits { train, eval: None, sha256: String::new(), stop: Vec::new(), labels: Vec::new() };
        let outline = Outline::of(&tiny::llama());
        let selected = recipe.adapter.select(&outline.modules, Origin::Recipe).unwrap();
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/e2e/llama/base");
        let weights = crate::models::Safetensors::open_dir(root.as_ref()).unwrap();
        let stored = Stored::new(&weights, recipe.storage()).unwrap();
        let base = crate::estimate::weights(&outline, recipe.model.dtype, |name, _| stored.four_bit_format(name));
        estimate(&outline, &recipe, base.value, &splits, &selected)
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
        assert_eq!(plain.peak, (60 << 20) + 512 * 800 + parts + plain.adapter);
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
    }
}
