//! What came out, by variant and by run.

use super::table;
use crate::compare::figure::escape;
use crate::compare::markdown::{cells, columns};
use crate::compare::metric::written;
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
    let labels = names.iter().map(|name| escape(&summary.label(name)));
    let difference = format!("Δ to {}", escape(&summary.reference));
    let costs = ["trained parameters", memory].into_iter().chain(summary.is_timed().then_some("step [ms]"));
    let head = columns(["variant".into(), "seeds".into()], labels, difference, costs.map(String::from));
    let row = |variant: &Variant| {
        cells(summary, variant, escape(&variant.name), |difference| difference.replacen(" (", "<br>(", 1))
    };
    let rows: Vec<_> = summary.variants.iter().map(row).collect();
    format!("<ul class=\"verdicts\">\n{lines}</ul>\n{}", table(&head, &rows, "numbers"))
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
