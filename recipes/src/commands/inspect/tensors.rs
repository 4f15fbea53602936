//! Tensors of an adapter or a model, as a table.

use std::path::Path;

use lowrank::Result;
use lowrank::adapters::peft::{CONFIG_FILE, PeftConfig, TENSORS_FILE};
use lowrank::events::{Format, units};
use lowrank::models::{ModelConfig, Safetensors, WeightSource};
use lowrank_cli::stdout;
use lowrank_cli::table::Table;
use serde_json::{Value, json};

/// Tensors and norms of a PEFT adapter, and what its configuration says.
pub(super) fn adapter(dir: &Path, format: Format) -> Result<()> {
    let config = PeftConfig::read(&dir.join(CONFIG_FILE), "llama")?;
    let weights = Safetensors::open_file(&dir.join(TENSORS_FILE))?;
    let mut rows = rows(&weights);
    for row in &mut rows {
        row.norm = Some(weights.read(&row.name)?.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt());
    }
    if format == Format::Json {
        let base = &config.base_model_name_or_path;
        return stdout::print_json(&json!({ "adapter": config.adapter, "base": base, "tensors": json_rows(&rows) }));
    }
    let shared = config.adapter.shared().unwrap_or_default();
    let mut facts = vec![
        ("method", config.adapter.name().to_string()),
        ("base", config.base_model_name_or_path.clone()),
        ("rank", shared.rank.to_string()),
    ];
    if config.adapter.spec().is_some_and(|spec| spec.has_alpha()) {
        facts.push(("alpha", shared.alpha.to_string()));
        facts.push(("scaled by", if shared.rslora { "alpha / sqrt(rank)" } else { "alpha / rank" }.to_string()));
    }
    config.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    print(&facts, &rows)
}

/// Tensors of a model and, where there is one, its configuration.
pub(super) fn model(weights: &dyn WeightSource, config: Option<&ModelConfig>, format: Format) -> Result<()> {
    let rows = rows(weights);
    if format == Format::Json {
        return stdout::print_json(&json!({ "model": config, "tensors": json_rows(&rows) }));
    }
    let facts = config.map(|config| {
        [
            ("family", config.model_type.clone()),
            ("layers", config.num_hidden_layers.to_string()),
            ("hidden", config.hidden_size.to_string()),
            ("heads", format!("{} ({} key-value)", config.num_attention_heads, config.num_key_value_heads)),
            ("vocabulary", config.vocab_size.to_string()),
        ]
    });
    print(facts.as_ref().map_or(&[], |facts| facts.as_slice()), &rows)
}

struct Row {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    bytes: u64,
    norm: Option<f64>,
}

fn rows(weights: &dyn WeightSource) -> Vec<Row> {
    let row = |name: String| Row {
        dtype: weights.dtype(&name),
        shape: weights.shape(&name).unwrap_or_default(),
        bytes: weights.stored_bytes(&name),
        norm: None,
        name,
    };
    weights.names().into_iter().map(row).collect()
}

fn json_rows(rows: &[Row]) -> Vec<Value> {
    let row = |row: &Row| json!({ "name": row.name, "dtype": row.dtype, "shape": row.shape, "bytes": row.bytes, "norm": row.norm });
    rows.iter().map(row).collect()
}

fn print(facts: &[(&str, String)], rows: &[Row]) -> Result<()> {
    let mut text: String = facts.iter().map(|(name, value)| format!("{name:<11} {}\n", printable(value))).collect();
    let values: usize = rows.iter().map(|row| row.shape.iter().product::<usize>()).sum();
    let bytes = rows.iter().map(|row| row.bytes).sum();
    text += &format!("tensors     {}, {} values, {}\n\n", rows.len(), units::count(values), units::bytes(bytes));
    let mut table = Table::new(["tensor", "type", "shape", "bytes", "norm"]);
    for row in rows {
        let shape = row.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
        let norm = row.norm.map(|norm| format!("{norm:.4}")).unwrap_or_default();
        table.row([printable(&row.name), row.dtype.clone(), shape, units::bytes(row.bytes), norm]);
    }
    stdout::print(&(text + &table.render()))
}

/// Names come from files of strangers: control characters could steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
