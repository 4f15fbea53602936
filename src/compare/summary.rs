//! All numbers of a comparison, as `compare.json` has them.

use indexmap::IndexMap;
use serde::Serialize;

use super::group::Group;
use super::history::Run;
use super::metric::{self, Better};
use super::pareto::front;
use super::plan::{Mode, Sweep};
use super::statistics::{self, Interval, bootstrap, mean, standard_deviation};
use super::verdict::{self, Verdict};
use crate::checkpoint::RunStatus;
use crate::events::{RunStarted, float};

#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Of this file; always 1.
    pub format: u32,
    pub name: String,
    pub reference: String,
    /// None for runs that were not made by one comparison.
    pub mode: Option<Mode>,
    /// The metric of the verdicts.
    pub metric: String,
    pub better: Better,
    #[serde(skip)]
    pub loss_unit: &'static str,
    /// What to bear in mind: why nothing is ranked, what is missing, what the numbers do not say.
    pub notes: Vec<String>,
    /// Memory of a race; none where variants did not run together.
    pub race: Option<Memory>,
    /// What was tried before the variants ran.
    pub sweeps: Vec<Sweep>,
    pub bootstrap: Bootstrap,
    pub variants: Vec<Variant>,
}

/// What a race took, and what its members were foretold to take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The highest resident memory of its process, measured.
    pub peak_mem_bytes: u64,
    /// Of the member that needs most, alone.
    pub largest_member: u64,
    /// Adapter parameters, gradients and optimizer state of the others.
    pub others: u64,
    /// Bases that the largest member does not use: the same weights in other storage.
    pub other_bases: u64,
}

impl Memory {
    fn of(groups: &[Group]) -> Option<Self> {
        let starts = || groups.iter().filter_map(|group| group.runs.iter().find_map(|run| run.start.as_deref()));
        let largest = starts().max_by_key(|start| start.memory.peak)?;
        let own =
            |start: &RunStarted| start.memory.adapter + start.memory.optimizer + 4 * start.params_trainable as u64;
        let storage = |start: &RunStarted| ["/model", "/base"].map(|key| start.plan.pointer(key).cloned());
        let mut bases: Vec<_> = starts().map(|start| (storage(start), start.memory.base)).collect();
        bases.retain(|(stored, _)| *stored != storage(largest));
        let mut kept: Vec<(_, u64)> = Vec::new();
        for base in bases {
            if !kept.iter().any(|(stored, _)| *stored == base.0) {
                kept.push(base);
            }
        }
        Some(Self {
            peak_mem_bytes: groups
                .iter()
                .flat_map(|group| &group.runs)
                .map(|run| run.peak)
                .max()
                .filter(|&peak| peak > 0)?,
            largest_member: largest.memory.peak,
            others: starts().map(own).sum::<u64>() - own(largest),
            other_bases: kept.iter().map(|(_, bytes)| bytes).sum(),
        })
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bootstrap {
    pub resamples: usize,
    pub level: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Variant {
    pub name: String,
    pub seeds: Vec<u64>,
    pub metrics: IndexMap<String, Estimate>,
    pub trainable: Option<usize>,
    pub total: Option<usize>,
    pub peak_mem_bytes: Option<u64>,
    /// Where that number is from.
    pub peak_mem: Peak,
    /// Median over the steps of all runs' medians; none in a race, where a step's time is not the method's alone.
    #[serde(serialize_with = "float::option::serialize")]
    pub step_ms: Option<f64>,
    pub verdict: Verdict,
    /// Whether no other variant is at least as good by `metric` with as few trained parameters, and one of both better.
    pub on_front_by_trainable: bool,
    pub on_front_by_memory: bool,
    pub runs: Vec<RunSummary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Peak {
    /// Highest resident memory of a process that this run had to itself.
    Measured,
    /// What the run foretold: variants of one process share its memory.
    Predicted,
}

/// A metric over the seeds of a variant.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    #[serde(with = "float")]
    pub mean: f64,
    /// Standard deviation over seeds; none for one seed.
    #[serde(serialize_with = "float::option::serialize")]
    pub sd: Option<f64>,
    /// Of the finished runs, in the order of their seeds.
    #[serde(serialize_with = "float::list::serialize")]
    pub values: Vec<f64>,
    pub difference: Option<Difference>,
}

/// Variant less reference, seed by seed.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    pub seeds: Vec<u64>,
    #[serde(serialize_with = "float::list::serialize")]
    pub values: Vec<f64>,
    /// Of their mean; none for one seed.
    pub interval: Option<Interval>,
}

#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    pub seed: u64,
    pub dir: String,
    pub status: RunStatus,
    pub diverged_at: Option<usize>,
    pub steps: usize,
    pub planned_steps: usize,
    pub tokens: usize,
    #[serde(with = "float")]
    pub seconds: f64,
    pub peak_mem_bytes: Option<u64>,
    #[serde(serialize_with = "float::map::serialize")]
    pub metrics: IndexMap<String, f64>,
}

/// What a summary is made of beside the runs.
pub struct Setting<'a> {
    pub name: &'a str,
    pub mode: Option<Mode>,
    pub metric: String,
    pub reference: usize,
    pub notes: Vec<String>,
    pub sweeps: Vec<Sweep>,
}

impl Summary {
    pub fn of(groups: &[Group], setting: Setting<'_>) -> Self {
        let reference = &groups[setting.reference];
        let metric = setting.metric;
        let variants = groups.iter().map(|group| variant(group, reference, &metric, setting.mode)).collect();
        let mut summary = Summary {
            format: 1,
            name: setting.name.into(),
            reference: reference.name.clone(),
            mode: setting.mode,
            better: metric::better(&metric),
            loss_unit: metric::loss_unit(groups),
            metric,
            notes: setting.notes,
            race: Memory::of(groups).filter(|_| setting.mode == Some(Mode::Race)),
            sweeps: setting.sweeps,
            bootstrap: Bootstrap { resamples: statistics::RESAMPLES, level: statistics::LEVEL },
            variants,
        };
        summary.mark_fronts();
        summary.notes.extend(super::notes::notes(groups, &summary));
        summary
    }

    fn mark_fronts(&mut self) {
        let points = |cost: fn(&Variant) -> Option<f64>| -> Vec<_> {
            self.variants.iter().map(|v| cost(v).zip(v.metrics.get(&self.metric).map(|m| m.mean))).collect()
        };
        let by_trainable = front(&points(|v| v.trainable.map(|count| count as f64)), self.better);
        let by_memory = front(&points(|v| v.peak_mem_bytes.map(|bytes| bytes as f64)), self.better);
        for (variant, on_front) in self.variants.iter_mut().zip(by_trainable.into_iter().zip(by_memory)) {
            (variant.on_front_by_trainable, variant.on_front_by_memory) = on_front;
        }
    }

    /// A metric as people read it, losses with their unit.
    pub fn label(&self, name: &str) -> String {
        let unit = if name.ends_with("loss") { format!(" [{}]", self.loss_unit) } else { String::new() };
        metric::label(name) + &unit
    }

    /// Names of the metrics in the table of results, the verdicts' first.
    pub fn headline_names(&self) -> Vec<&str> {
        let told = |name: &&str| *name == self.metric || !RESTATED.contains(name);
        self.metric_names().into_iter().filter(told).collect()
    }

    /// Whether steps were timed.
    pub fn is_timed(&self) -> bool {
        self.variants.iter().any(|variant| variant.step_ms.is_some())
    }

    /// Names of all metrics, the verdicts' first.
    pub fn metric_names(&self) -> Vec<&str> {
        let mut names = vec![self.metric.as_str()];
        for name in self.variants.iter().flat_map(|variant| variant.metrics.keys()) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

/// What the table of results leaves out unless verdicts go by it: other numbers of it say the same.
const RESTATED: [&str; 3] = ["best_eval_loss", "perplexity", "micro_f1"];

fn variant(group: &Group, reference: &Group, metric: &str, mode: Option<Mode>) -> Variant {
    let start = group.runs.iter().find_map(|run| run.start.as_ref());
    let metrics = estimates(group, reference);
    let verdict = verdict::of(group, reference, metrics.get(metric), metric);
    // A process has one high-water mark: no variant that shares it with another can claim it.
    let (peak_mem, peak_mem_bytes) = match mode {
        Some(_) => (Peak::Predicted, start.map(|start| start.memory.peak)),
        None => (Peak::Measured, group.runs.iter().map(|run| run.peak).max()),
    };
    let times: Vec<_> = group.runs.iter().filter_map(Run::median_step_ms).collect();
    Variant {
        name: group.name.clone(),
        seeds: group.runs.iter().map(|run| run.seed).collect(),
        metrics,
        trainable: start.map(|start| start.params_trainable),
        total: start.map(|start| start.params_total),
        peak_mem_bytes: peak_mem_bytes.filter(|&bytes| bytes > 0),
        peak_mem,
        step_ms: statistics::median(&times).filter(|_| mode.is_none_or(Mode::times_methods)),
        verdict,
        on_front_by_trainable: false,
        on_front_by_memory: false,
        runs: group.runs.iter().map(run_summary).collect(),
    }
}

/// Only finished runs count: numbers from half-way are not final.
fn estimates(group: &Group, reference: &Group) -> IndexMap<String, Estimate> {
    let runs: Vec<_> = group.finished().map(|run| (run.seed, run.metrics())).collect();
    let others: Vec<_> = reference.finished().map(|run| (run.seed, run.metrics())).collect();
    let names = runs.first().into_iter().flat_map(|(_, metrics)| metrics.keys());
    let estimate = |name: &String| {
        let values: Vec<_> = runs.iter().filter_map(|(_, metrics)| metrics.get(name).copied()).collect();
        let pairs = runs.iter().filter_map(|(seed, metrics)| {
            let (_, other) = others.iter().find(|(other, _)| other == seed)?;
            Some((*seed, metrics.get(name)? - other.get(name)?))
        });
        let (seeds, differences): (Vec<_>, Vec<_>) = pairs.unzip();
        let interval = bootstrap(&differences);
        let difference = Difference { seeds, values: differences, interval };
        let compared = group.name != reference.name && !difference.seeds.is_empty();
        let mean = mean(&values)?;
        let sd = standard_deviation(&values);
        Some((name.clone(), Estimate { mean, sd, values, difference: compared.then_some(difference) }))
    };
    names.filter_map(estimate).collect()
}

fn run_summary(run: &Run) -> RunSummary {
    let (steps, planned_steps) = run.progress();
    RunSummary {
        seed: run.seed,
        dir: run.dir.display().to_string(),
        status: run.state,
        diverged_at: run.diverged_at(),
        steps,
        planned_steps,
        tokens: run.tokens(),
        seconds: run.seconds,
        peak_mem_bytes: Some(run.peak).filter(|&bytes| bytes > 0),
        metrics: run.metrics(),
    }
}

#[cfg(test)]
mod tests {
    use crate::compare::testing::{Scripted, summary};

    #[test]
    fn the_front_is_marked_and_estimates_are_those_computed_by_hand() {
        let runs = [
            Scripted::new("a", 0).eval(0.2).trainable(100),
            Scripted::new("a", 1).eval(0.4).trainable(100),
            Scripted::new("b", 0).eval(0.5).trainable(50),
            Scripted::new("c", 0).eval(0.4).trainable(200),
        ];
        let variants = summary(&runs).variants;
        let eval = &variants[0].metrics["eval_loss"];
        // Mean 0.3; squares 0.01 twice, over one.
        assert!((eval.mean - 0.3).abs() < 1e-12 && (eval.sd.unwrap() - 0.02f64.sqrt()).abs() < 1e-12, "{eval:?}");
        assert!(eval.difference.is_none(), "the reference differs from itself");
        assert_eq!([0, 1, 2].map(|i| variants[i].on_front_by_trainable), [true, true, false]);
        assert_eq!([0, 1, 2].map(|i| variants[i].on_front_by_memory), [true, false, false]);
        assert_eq!((variants[0].peak_mem_bytes, variants[0].step_ms), (Some(1 << 20), Some(30.0)));
    }
}
