//! What a reader must bear in mind, found in the runs themselves.

use indexmap::IndexMap;

use super::group::Group;
use super::history::Run;
use super::plan::Mode;
use super::statistics::chance_of_one_sign;
use super::summary::{Memory, Summary};
use crate::events::units::bytes;

/// From as many differences on, equal signs by chance are rarer than one in twenty.
const SEEDS_FOR_SIGN: usize = 6;

pub fn notes(groups: &[Group], summary: &Summary) -> Vec<String> {
    let mut notes = vec![seeds(groups, summary)];
    if let Some(mode) = summary.mode {
        notes.push(process(mode).into());
    }
    notes.extend(summary.race.map(race));
    notes.extend(same(groups, "base", |run| hash(run, "base")));
    notes.extend(same(groups, "data", |run| hash(run, "data")));
    notes.extend(same(groups, "number of steps", planned_steps));
    notes.extend(warnings(groups));
    notes
}

fn seeds(groups: &[Group], summary: &Summary) -> String {
    let finished = groups.iter().filter(|group| group.name != summary.reference).map(|group| group.finished().count());
    let most = finished.max().unwrap_or(0);
    let metric = summary.label(&summary.metric);
    if groups.len() < 2 {
        return format!("One variant: nothing to compare it with. The metric is {metric}, {} is better.", {
            summary.better.word()
        });
    }
    if most < 2 {
        return "Nothing is ranked: with one seed a difference between variants cannot be told from one between \
                seeds. Run at least two, better six or more."
            .into();
    }
    let rule = format!(
        "Compared by {metric} ({} is better), seed by seed against {}; the interval is the 95 % bootstrap interval of \
         the mean difference over seeds.",
        summary.better.word(),
        summary.reference
    );
    if most >= SEEDS_FOR_SIGN {
        return rule;
    }
    let chance = chance_of_one_sign(most) * 100.0;
    format!(
        "{rule} With {most} seeds it is hardly more than lowest and highest, and too narrow: two equal variants \
         differ in one direction in all {most} with probability {chance:.0} %."
    )
}

fn process(mode: Mode) -> &'static str {
    match mode {
        Mode::Race => {
            "The variants took turns in one process: times of steps and measured memory are not those of a method \
             alone, and none are quoted. Memory is what each run foretold."
        }
        Mode::Sequence => {
            "The variants ran one after the other. A process keeps the highest memory of all it ran, so memory is what \
             each run foretold."
        }
    }
}

fn race(memory: Memory) -> String {
    let Memory { peak_mem_bytes, largest_member, others, other_bases } = memory;
    let [peak, largest, others] = [peak_mem_bytes, largest_member, others].map(bytes);
    let bases = match other_bases {
        0 => String::new(),
        more => format!(", and {} of bases in other storage", bytes(more)),
    };
    format!(
        "The race took {peak} at its peak, measured. Foretold were {largest} for its largest member alone, {others} of \
         adapters, gradients and optimizer state for the others{bases}."
    )
}

/// None for the untouched base.
fn planned_steps(run: &Run) -> Option<String> {
    Some(run.progress().1).filter(|&steps| steps > 0).map(|steps| steps.to_string())
}

fn hash(run: &Run, name: &str) -> Option<String> {
    run.start.as_ref()?.hashes.get(name).cloned()
}

fn same(groups: &[Group], what: &str, of: impl Fn(&Run) -> Option<String>) -> Option<String> {
    let mut values: Vec<_> = groups.iter().flat_map(|group| &group.runs).filter_map(of).collect();
    values.sort();
    values.dedup();
    (values.len() > 1).then(|| format!("Not all runs have the same {what}: differences may come from that."))
}

/// Each warning once, with the runs that have it.
fn warnings(groups: &[Group]) -> Vec<String> {
    let mut told: IndexMap<String, Vec<String>> = IndexMap::new();
    for run in groups.iter().flat_map(|group| &group.runs) {
        for (code, (text, count)) in &run.warnings {
            let run = format!("{} {}", run.variant, run.seed);
            told.entry(format!("{code} ×{count}, {text}")).or_default().push(run);
        }
    }
    let all = groups.iter().map(|group| group.runs.len()).sum::<usize>();
    let line = |(text, runs): (String, Vec<String>)| {
        let whose = if runs.len() == all { "all runs".into() } else { runs.join(", ") };
        format!("Warning of {whose}: {text}")
    };
    told.into_iter().map(line).collect()
}
