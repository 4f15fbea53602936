//! One row for each run, with all its final numbers.

use super::summary::{RunSummary, Summary, Variant};
use crate::{Error, Result};

const HEAD: [&str; 11] = [
    "variant",
    "seed",
    "status",
    "diverged_at",
    "steps",
    "planned_steps",
    "tokens",
    "seconds",
    "trainable",
    "peak_mem_bytes",
    "dir",
];

/// RFC 4180; a metric that a run lacks is an empty field.
pub fn rows(summary: &Summary) -> Result<Vec<u8>> {
    let mut metrics: Vec<&String> = Vec::new();
    for name in summary.variants.iter().flat_map(|variant| &variant.runs).flat_map(|run| run.metrics.keys()) {
        if !metrics.contains(&name) {
            metrics.push(name);
        }
    }
    let failed = |error: csv::Error| Error::Failed(format!("the table cannot be written: {error}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEAD.into_iter().chain(metrics.iter().map(|name| name.as_str()))).map_err(failed)?;
    for variant in &summary.variants {
        for run in &variant.runs {
            let numbers = metrics.iter().map(|&name| run.metrics.get(name).map_or_else(String::new, f64::to_string));
            writer.write_record(fields(variant, run).into_iter().chain(numbers)).map_err(failed)?;
        }
    }
    writer.into_inner().map_err(|error| Error::Failed(format!("the table cannot be written: {error}")))
}

fn fields(variant: &Variant, run: &RunSummary) -> [String; 11] {
    let or_empty = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    [
        variant.name.clone(),
        run.seed.to_string(),
        run.status.name().into(),
        or_empty(run.diverged_at.map(|step| step as u64)),
        run.steps.to_string(),
        run.planned_steps.to_string(),
        run.tokens.to_string(),
        run.seconds.to_string(),
        or_empty(variant.trainable.map(|count| count as u64)),
        or_empty(run.peak_mem_bytes),
        run.dir.clone(),
    ]
}
