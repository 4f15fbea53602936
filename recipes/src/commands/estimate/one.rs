//! What one recipe would take.

use lowrank::estimate::{Costs, Figure};
use lowrank::events::units::{bytes, count};
use lowrank::recipe::{BaseStorage, Recipe};
use lowrank_cli::table::Table;
use serde_json::{Value, json};

use super::{Model, modules};

/// Costs, storage of the frozen weights and their bytes.
type Of = (Costs, BaseStorage, Figure);

pub(super) fn text(model: &Model<'_>, name: &str, recipe: &Recipe, (costs, storage, weights): &Of) -> String {
    let rank = costs.rank.map_or(String::new(), |rank| format!(" of rank {rank}"));
    let modules = if costs.modules > 0 { modules(costs) } else { String::new() };
    let recomputed = if recipe.train.gradient_checkpointing { ", blocks computed again" } else { "" };
    let head = format!(
        "{}recipe      {name}: {}{rank}\n{modules}storage     {}\nbatch       {} rows x {} tokens, all of which the loss counts{recomputed}\n\n",
        model.text(),
        costs.method,
        storage.describe(),
        count(recipe.train.batch),
        count(recipe.data.max_len),
    );
    let mut table = Table::new(["what", "size", "formula"]).numbers(1..2);
    let trainable = &costs.trainable;
    let over = if costs.modules > 0 { ", summed over the modules" } else { "" };
    table.row(["trainable".into(), count(trainable.value as usize), format!("{}{over}", trainable.formula)]);
    table.row(["adapter file".into(), bytes(costs.file.value), costs.file.formula.clone()]);
    for (what, figure) in [("weights", weights)].into_iter().chain(costs.memory.items()) {
        table.row([what.into(), bytes(figure.value), figure.formula.clone()]);
    }
    let peak = weights.value.saturating_add(costs.memory.total());
    table.row(["peak".into(), bytes(peak), "the sum, from weights to process".into()]);
    head + &table.render()
}

pub(super) fn json(model: &Model<'_>, name: &str, recipe: &Recipe, (costs, storage, weights): &Of) -> Value {
    json!({
        "model": model.json(),
        "recipe": name,
        "storage": storage.describe(),
        "batch": { "rows": recipe.train.batch, "max_len": recipe.data.max_len },
        "weights": weights,
        "costs": costs,
        "peak": weights.value.saturating_add(costs.memory.total()),
    })
}
