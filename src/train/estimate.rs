//! The memory of a run before it starts, at the largest batch of its rows.

use crate::adapters::Selected;
use crate::data::{Sequence, Splits, batches};
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

/// Of the batches that the first epoch will have, as far as the run goes.
fn largest(recipe: &Recipe, splits: &Splits) -> Batch {
    let (sequences, train) = (&splits.train.sequences, &recipe.train);
    let used = train.max_steps.unwrap_or(usize::MAX).saturating_mul(train.accumulate);
    let batches = batches(sequences.len(), train.batch, recipe.seed, 0).into_iter().take(used);
    let sizes = batches.map(|rows| size(rows.iter().map(|&row| &sequences[row])));
    sizes.max_by_key(|batch| batch.tokens).unwrap_or(Batch { tokens: 1, len: 1, trained: 1 })
}

/// As the rows are collated: all texts as long as the longest.
fn size<'a>(rows: impl Iterator<Item = &'a Sequence> + Clone) -> Batch {
    let texts = rows.clone().flat_map(|row| [row].into_iter().chain(row.others()));
    let len = texts.clone().map(|text| text.ids.len()).max().unwrap_or(1);
    let decoded = rows.clone().map(Sequence::decoded).max().unwrap_or(0);
    let trained = rows.clone().map(Sequence::counted).sum();
    Batch { tokens: texts.count() * len + rows.count() * decoded, len, trained }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::tiny;
    use crate::adapters::{AdapterConfig, LoraConfig, LoraInit, Origin};
    use crate::data::{Answer, Dataset};
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
        let used = 4 * (20 * kept + 2 * 20 * (512 + 96));
        assert_eq!(plain.activations, used + used / 10);
        let parts = plain.base + plain.adapter + plain.optimizer + plain.activations;
        assert_eq!(plain.peak, (85 << 20) + 512 * 800 + parts + plain.adapter);
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
        assert!((adapted - frozen).abs_diff(4 * 30 + 4 * 3) <= 1);
    }

    #[test]
    fn all_texts_of_a_batch_are_counted_and_padded() {
        let text = |len: usize| Sequence { ids: vec![1; len], trained: vec![true; len], ..Sequence::default() };
        let alike = |len, others: &[usize]| {
            let others = others.iter().map(|&len| text(len)).collect();
            Sequence { answer: Answer::Alike { others, score: None }, ..text(len) }
        };
        let pairs = [alike(4, &[9, 2]), alike(5, &[3, 3])];
        assert_eq!(size(pairs.iter()), Batch { tokens: 6 * 9, len: 9, trained: 9 });
        // A decoder reads one token less than there are in the answer with its start and end.
        let written = |len, said: usize| Sequence { answer: Answer::Text(vec![1; said]), ..text(len) };
        let rows = [written(7, 4), written(5, 6)];
        assert_eq!(size(rows.iter()), Batch { tokens: 2 * (7 + 5), len: 7, trained: 3 + 5 });
    }

    #[test]
    fn the_largest_batch_is_one_of_those_to_come() {
        let row = |len: usize| Sequence { ids: vec![1; len], trained: vec![true; len], ..Sequence::default() };
        let sequences: Vec<_> = (1..=8).map(row).collect();
        let train = Dataset { sequences, ..Dataset::default() };
        let splits = Splits { train, eval: None, sha256: String::new(), stop: Vec::new(), labels: Vec::new() };
        let mut recipe = crate::recipe::parse(
            "version = 1\n[model]\npath = \"tiny\"\n[adapter.none]\n[data]\ntrain = \"rows.csv\"\n[train]\nbatch = 2\n",
        )
        .unwrap();
        // The order is that of `permutation(8, 0, 0)`: rows of 6 and 5, 8 and 2, 3 and 7, 4 and 1 tokens.
        assert_eq!(largest(&recipe, &splits), Batch { tokens: 16, len: 8, trained: 10 });
        recipe.train.max_steps = Some(1);
        assert_eq!(largest(&recipe, &splits), Batch { tokens: 12, len: 6, trained: 11 });
    }
}
