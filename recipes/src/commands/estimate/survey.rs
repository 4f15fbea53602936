//! Every method at several ranks, side by side.

use lowrank::estimate::{Costs, Figure, Survey, in_blocks, weights};
use lowrank::events::units::{bytes, count};
use lowrank::models::Outline;
use lowrank::recipe::{BaseDtype, BaseStorage, Blocks, Quant};
use lowrank_cli::table::Table;
use serde_json::{Value, json};

use super::{Model, modules, wrapped};

/// What the command line asks for.
pub(super) struct Asked<'a> {
    pub ranks: &'a [usize],
    /// Who chose the targets.
    pub origin: &'a str,
    pub rows: usize,
    pub len: usize,
}

/// The storages of frozen weights that are shown.
fn storages(outline: &Outline) -> [(&'static str, Figure); 3] {
    let nf4 = Some(Quant::Nf4(Blocks::default()));
    let storages = [
        ("f32", BaseStorage::default()),
        ("bf16", BaseDtype::Bf16.into()),
        ("nf4", BaseStorage { quant: nf4, ..BaseStorage::default() }),
    ];
    storages.map(|(name, storage)| (name, weights(outline, storage.dtype, in_blocks(storage))))
}

/// The peak over each storage; four bits cannot be trained whole.
fn peaks(costs: &Costs, storages: &[(&'static str, Figure)]) -> Vec<(&'static str, Option<u64>)> {
    let peak = |(name, weights): &(&'static str, Figure)| {
        let possible = costs.method != "full" || *name != "nf4";
        (*name, possible.then(|| weights.value.saturating_add(costs.memory.total())))
    };
    storages.iter().map(peak).collect()
}

pub(super) fn text(model: &Model<'_>, asked: &Asked<'_>, survey: &Survey) -> String {
    let storages = storages(model.outline);
    // The middle one stands for all where a table has no room for every rank.
    let rank = asked.ranks[asked.ranks.len() / 2];
    let parts = [
        model.text() + &targets(asked, survey),
        titled("Trainable parameters: the formula, summed over the modules", &parameters(asked, survey)),
        titled("Adapter file: 4 bytes a value, and a header of names", &files(asked, survey)),
        titled("Frozen weights in memory", &frozen(&storages)),
        titled(
            &format!("A step over {} rows x {} tokens, whatever the method", asked.rows, count(asked.len)),
            &step(survey),
        ),
        titled(&format!("Training at rank {rank}"), &training(survey, rank, asked, &storages)),
    ];
    parts.join("\n")
}

fn titled(title: &str, table: &str) -> String {
    format!("{title}\n\n{}", indented(table))
}

fn indented(table: &str) -> String {
    table.lines().map(|line| if line.is_empty() { "\n".to_string() } else { format!("  {line}\n") }).collect()
}

fn targets(asked: &Asked<'_>, survey: &Survey) -> String {
    let mut leaves: Vec<&str> = Vec::new();
    for leaf in survey.selected.iter().filter_map(|site| site.path.rsplit('.').next()) {
        if !leaves.contains(&leaf) {
            leaves.push(leaf);
        }
    }
    format!(
        "targets     {}\n{}{}",
        asked.origin,
        wrapped(leaves, 12),
        survey.costs.first().map_or(String::new(), modules)
    )
}

/// One row a method: name, formula, and a cell for each rank; a method without ranks has one for all.
fn by_rank(
    asked: &Asked<'_>,
    survey: &Survey,
    formula: impl Fn(&[&Costs]) -> String,
    cell: impl Fn(&Costs) -> String,
    heading: &str,
) -> String {
    let ranks = asked.ranks.iter().map(|rank| format!("r = {rank}"));
    let header = ["method".to_string(), heading.to_string()].into_iter().chain(ranks).collect();
    let mut table = Table::of(header).numbers(2..2 + asked.ranks.len());
    for method in survey.costs.chunk_by(|a, b| a.method == b.method) {
        let method: Vec<&Costs> = method.iter().collect();
        let cells = method.iter().map(|costs| cell(costs));
        table.row([method[0].method.to_string(), formula(&method)].into_iter().chain(cells).collect::<Vec<_>>());
    }
    table.render()
}

fn parameters(asked: &Asked<'_>, survey: &Survey) -> String {
    let formula = |method: &[&Costs]| method[0].trainable.formula.clone();
    by_rank(asked, survey, formula, |costs| count(costs.trainable.value as usize), "formula")
}

fn files(asked: &Asked<'_>, survey: &Survey) -> String {
    by_rank(asked, survey, saved_as, |costs| bytes(costs.file.value), "saved as")
}

/// `lora of rank 2 r`
fn saved_as(method: &[&Costs]) -> String {
    let saved = method.iter().filter_map(|costs| Some((costs.rank?, costs.saved_as?)));
    let saved: Vec<_> = saved.map(|(rank, (name, saved_rank))| (rank, name, saved_rank)).collect();
    let Some((_, name, _)) = saved.first() else { return "the model".into() };
    let grows = |by: usize| saved.iter().all(|(rank, _, saved_rank)| *saved_rank == by * rank);
    match () {
        () if grows(1) => format!("{name} of rank r"),
        () if grows(2) => format!("{name} of rank 2 r"),
        () => {
            let ranks: Vec<String> = saved.iter().map(|(_, _, saved_rank)| saved_rank.to_string()).collect();
            format!("{name}, rank {}", ranks.join(", "))
        }
    }
}

fn figures<'a>(what: &str, rows: impl IntoIterator<Item = (&'a str, &'a Figure)>) -> String {
    let mut table = Table::new([what, "size", "formula"]).numbers(1..2);
    rows.into_iter().for_each(|(name, figure)| table.row([name.into(), bytes(figure.value), figure.formula.clone()]));
    table.render()
}

fn frozen(storages: &[(&'static str, Figure)]) -> String {
    figures("storage", storages.iter().map(|(name, figure)| (*name, figure)))
}

/// What no choice of the method changes, but for a head that trains with everything.
fn step(survey: &Survey) -> String {
    let (Some(first), Some(full)) = (survey.costs.first(), survey.costs.last()) else { return String::new() };
    let memory = &first.memory;
    let all = (full.memory.logits != memory.logits).then_some(("logits of full", &full.memory.logits));
    let shared = [("blocks keep", &memory.blocks), ("temporaries", &memory.temporaries), ("logits", &memory.logits)];
    figures("what", shared.into_iter().chain(all).chain([("process", &memory.process)]))
}

fn training(survey: &Survey, rank: usize, asked: &Asked<'_>, storages: &[(&'static str, Figure)]) -> String {
    let header = ["method", "adapter", "optimizer", "adapters keep"].map(String::from);
    let over = storages.iter().map(|(name, _)| format!("over {name}"));
    let mut table = Table::of(header.into_iter().chain(over).collect()).numbers(1..7);
    for costs in survey.costs.iter().filter(|costs| costs.rank.is_none_or(|own| own == rank)) {
        let memory = &costs.memory;
        let parts = [&memory.adapter, &memory.optimizer, &memory.adapters].map(|figure| bytes(figure.value));
        let peaks = peaks(costs, storages).into_iter().map(|(_, peak)| peak.map_or("-".into(), bytes));
        table.row([costs.method.to_string()].into_iter().chain(parts).chain(peaks).collect::<Vec<_>>());
    }
    let tokens = count(asked.rows * asked.len);
    table.render()
        + &format!(
            "\nadapter        4 bytes x what the method has, trainable and frozen\n\
             optimizer      8 bytes x trainable, two moments\n\
             adapters keep  4 bytes x {tokens} tokens x what an adapter needs beside its input\n\
             over STORAGE   the peak: weights, adapter, gradients (4 bytes x trainable),\n               \
             optimizer, adapters keep, and the step above\n"
        )
}

pub(super) fn json(model: &Model<'_>, asked: &Asked<'_>, survey: &Survey) -> Value {
    let storages = storages(model.outline);
    let methods: Vec<Value> = survey.costs.iter().map(|costs| method(costs, &storages)).collect();
    let frozen = storages.iter().map(|(name, figure)| (name.to_string(), json!(figure)));
    let modules: Vec<&str> = survey.selected.iter().map(|site| site.path.as_str()).collect();
    json!({
        "model": model.json(),
        "modules": modules,
        "batch": { "rows": asked.rows, "max_len": asked.len },
        "weights": frozen.collect::<serde_json::Map<_, _>>(),
        "costs": methods,
    })
}

fn method(costs: &Costs, storages: &[(&'static str, Figure)]) -> Value {
    let peaks = peaks(costs, storages).into_iter().map(|(name, peak)| (name.to_string(), json!(peak)));
    let mut value = json!(costs);
    value["peak"] = Value::Object(peaks.collect());
    value
}
