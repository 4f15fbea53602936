//! What several runs printed, side by side.

use std::path::Path;

use indexmap::IndexMap;
use lowrank::{Error, Result};
use serde_json::Value;

/// How far apart two programs' losses may be, relative to the loss.
const SAME: f64 = 1e-4;
/// The same where products are in bfloat16.
const SAME_IN_BF16: f64 = 2e-2;

/// All runs of one program on one case.
#[derive(Default)]
struct Runs {
    steps: Vec<f64>,
    cpu: Vec<f64>,
    peak: f64,
    tokens_per_s: f64,
    losses: Vec<f64>,
    /// Whether it started from an adapter of its own.
    fresh: bool,
}

/// Prints a row per case: our figures, theirs, and ours divided by theirs.
pub fn print(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    let mut cases: IndexMap<String, IndexMap<String, Runs>> = IndexMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        let value: Value =
            serde_json::from_str(text).map_err(|error| Error::input(error.to_string()).file(file).row(line))?;
        let of = |key: &str| value[key].as_str().unwrap_or_default().to_string();
        let runs = cases.entry(of("case")).or_default().entry(of("program")).or_default();
        runs.add(&value);
    }
    println!(
        "| case | step ms | theirs | ratio | CPU ratio | peak MiB | theirs | ratio | tokens/s | theirs | ratio | losses |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (case, programs) in &cases {
        let ours = programs.get("lowrank");
        let theirs = programs.get("peft");
        println!("{}", row(case, ours, theirs));
    }
    Ok(())
}

impl Runs {
    fn add(&mut self, value: &Value) {
        let numbers =
            |key: &str| value[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect::<Vec<_>>();
        self.steps.extend(numbers("step_ms"));
        self.cpu.extend(numbers("cpu_ms"));
        self.peak = self.peak.max(value["peak_mib"].as_f64().unwrap_or(0.0));
        self.tokens_per_s = self.tokens_per_s.max(value["tokens_per_s"].as_f64().unwrap_or(0.0));
        self.losses = numbers("losses");
        self.fresh = value["fresh"].as_bool().unwrap_or(false);
    }
}

fn row(case: &str, ours: Option<&Runs>, theirs: Option<&Runs>) -> String {
    let pair = |of: &dyn Fn(&Runs) -> f64| [ours, theirs].map(|runs| runs.map_or(f64::NAN, of));
    let cells = |[a, b]: [f64; 2]| format!("{} | {} | {}", number(a, 0), number(b, 0), number(a / b, 2));
    let cpu = pair(&|runs| median(&runs.cpu));
    let rates = pair(&|runs| runs.tokens_per_s).map(|rate| if rate > 0.0 { rate } else { f64::NAN });
    let cells = [
        cells(pair(&|runs| median(&runs.steps))),
        number(cpu[0] / cpu[1], 2),
        cells(pair(&|runs| runs.peak)),
        format!("{} | {} | {}", number(rates[0], 1), number(rates[1], 1), number(rates[0] / rates[1], 2)),
        agreement(case, ours, theirs),
    ];
    format!("| {case} | {} |", cells.join(" | "))
}

/// Whether both programs went through the same losses.
fn agreement(case: &str, ours: Option<&Runs>, theirs: Option<&Runs>) -> String {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return "–".into() };
    if ours.fresh {
        return "another start".into();
    }
    let pairs = ours.losses.iter().zip(&theirs.losses);
    let worst = pairs.map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
    let limit = if case.contains("bf16") { SAME_IN_BF16 } else { SAME };
    match worst <= limit {
        true => format!("within {worst:.0e}"),
        false => format!("**differ by {worst:.0e}**"),
    }
}

fn number(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "–".into() }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
    }
}
