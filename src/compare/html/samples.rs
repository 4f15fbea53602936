//! What the variants wrote after the last evaluation that let them write.

use super::table;
use crate::compare::figure::escape;
use crate::compare::group::Group;
use crate::compare::history::{Run, Sample};

/// A row for each prompt, a column for each variant, of its first run with samples.
pub fn samples(groups: &[Group]) -> String {
    let columns: Vec<_> = groups.iter().filter_map(|group| group.runs.iter().find_map(last)).collect();
    let mut prompts: Vec<&str> = Vec::new();
    for sample in columns.iter().flat_map(|(_, samples)| samples) {
        if !prompts.contains(&sample.prompt.as_str()) {
            prompts.push(&sample.prompt);
        }
    }
    if prompts.is_empty() {
        return String::new();
    }
    let heading = |(run, samples): &(&Run, Vec<&Sample>)| {
        let step = samples.first().map_or(0, |sample| sample.step);
        format!("{}<br><small>seed {}, step {step}</small>", escape(&run.variant), run.seed)
    };
    let head: Vec<_> = ["prompt".to_string()].into_iter().chain(columns.iter().map(heading)).collect();
    let cell = |prompt: &str, samples: &[&Sample]| {
        let text = samples.iter().find(|sample| sample.prompt == prompt).map(|sample| escape(&sample.text));
        text.unwrap_or_else(|| "–".into())
    };
    let row = |prompt: &&str| {
        let cells = columns.iter().map(|(_, samples)| cell(prompt, samples));
        [escape(prompt)].into_iter().chain(cells).collect::<Vec<_>>()
    };
    table(&head, &prompts.iter().map(row).collect::<Vec<_>>(), "samples")
}

fn last(run: &Run) -> Option<(&Run, Vec<&Sample>)> {
    let step = run.samples.last()?.step;
    Some((run, run.samples.iter().filter(|sample| sample.step == step).collect()))
}
