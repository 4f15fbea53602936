//! What came out, by variant and by run.

use super::table;
use crate::compare::figure::escape;
use crate::compare::markdown::difference;
use crate::compare::metric::{spread, written};
use crate::compare::summary::{Peak, RunSummary, Summary, Variant};
use crate::compare::verdict;
use crate::events::units;

pub fn result(summary: &Summary) -> String {
    let lines: String = verdict::lines(summary).iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect();
    let names = summary.headline_names();
    let memory = match summary.variants.first().map(|variant| variant.peak_mem) {
        Some(Peak::Predicted) => "peak memory, foretold",
        _ => "peak memory",
    };
    let label = |name: &&str| escape(&summary.label(name));
    let mut head = vec!["variant".to_string(), "seeds".into()];
    head.extend(names.first().map(label));
    head.push(format!("Δ to {}", escape(&summary.reference)));
    head.extend(
        ["trained parameters", memory].into_iter().chain(summary.is_timed().then_some("step [ms]")).map(String::from),
    );
    head.extend(names.iter().skip(1).map(label));
    let rows: Vec<_> = summary.variants.iter().map(|variant| row(summary, variant, &names)).collect();
    format!("<ul class=\"verdicts\">\n{lines}</ul>\n{}", table(&head, &rows, "numbers"))
}

fn row(summary: &Summary, variant: &Variant, names: &[&str]) -> Vec<String> {
    let missing = || "–".to_string();
    let value = |&name: &&str| variant.metrics.get(name).map_or_else(missing, |e| spread(name, e.mean, e.sd));
    let mut row = vec![escape(&variant.name), variant.seeds.len().to_string()];
    row.extend(names.first().map(value));
    row.push(difference(summary, variant).map_or_else(missing, |text| text.replacen(" (", "<br>(", 1)));
    row.push(variant.trainable.map_or_else(missing, units::count));
    row.push(variant.peak_mem_bytes.map_or_else(missing, units::bytes));
    row.extend(summary.is_timed().then(|| variant.step_ms.map_or_else(missing, |ms| format!("{ms:.1}"))));
    row.extend(names.iter().skip(1).map(value));
    row
}

pub fn runs(summary: &Summary) -> String {
    let names = summary.metric_names();
    let mut head: Vec<_> = ["run", "status", "steps", "tokens", "time"].map(String::from).into();
    head.extend(names.iter().map(|name| escape(&summary.label(name))));
    let rows = summary.variants.iter().flat_map(|variant| {
        variant.runs.iter().map(|run| run_row(format!("{}, seed {}", escape(&variant.name), run.seed), run, &names))
    });
    table(&head, &rows.collect::<Vec<_>>(), "numbers")
}

fn run_row(name: String, run: &RunSummary, names: &[&str]) -> Vec<String> {
    let status = match run.diverged_at {
        Some(step) => format!("diverged at step {step}"),
        None => run.status.word().into(),
    };
    let steps = format!("{} of {}", run.steps, run.planned_steps);
    let mut row = vec![name, status, steps, units::count(run.tokens), units::clock(run.seconds)];
    row.extend(
        names.iter().map(|&name| run.metrics.get(name).map_or_else(|| "–".into(), |&value| written(name, value))),
    );
    row
}
