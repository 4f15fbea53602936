//! From what runs wrote to a report that compares them: files in, files out, no tensors.
//!
//! ```text
//! directories ─ discover ─▶ Source ─ history ─▶ Run ─ group ─▶ Group ─ summary ─▶ Summary ─▶ compare.json, .md, .csv
//!               compare.toml          metrics.jsonl              │                    │
//!                                                                └────── figure ──────┴─▶ report.html, .svg, .png
//! ```
//!
//! Every number comes from `metrics.jsonl`, read once and line by line. Statistics are over seeds, never over steps.

mod csv;
mod difference;
mod discover;
mod figure;
mod group;
mod history;
mod html;
mod markdown;
pub(crate) mod metric;
mod notes;
mod pareto;
mod plan;
#[cfg(feature = "png")]
mod png;
mod statistics;
mod summary;
#[cfg(test)]
mod testing;
mod verdict;
mod write;

use std::path::PathBuf;

#[cfg(feature = "tui")]
pub(crate) use history::Run;
pub use history::last_eval_loss;
#[cfg(feature = "tui")]
pub(crate) use plan::FILE as PLAN;
pub use plan::{Mode, Plan, Sweep, Tried, newest};
pub use summary::Summary;
#[cfg(feature = "tui")]
pub(crate) use summary::{Setting, Variant};
#[cfg(feature = "tui")]
pub(crate) use verdict::Word;
pub use write::{Pictures, default_out};

use crate::{Error, Result};
use figure::{Against, Cost, Figure};
pub(crate) use group::Group;

/// What a comparison is judged by, where its own plan is not to say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged<'a> {
    /// The variant that the others are measured against; else the plan's, else the first.
    pub reference: Option<&'a str>,
    /// Else the plan's, else the task's own, else the evaluation loss.
    pub metric: Option<&'a str>,
}

/// Runs side by side, read and counted.
#[derive(Clone, Debug)]
pub struct Comparison {
    groups: Vec<Group>,
    reference: usize,
    pub summary: Summary,
}

impl Comparison {
    /// Reads comparisons and plain run directories.
    ///
    /// # Errors
    /// An input error for a directory that holds no run, a line that is no record, two runs of one variant with one
    /// seed, a reference that is no variant, and a metric that no run reports.
    pub fn read(dirs: &[PathBuf], judged: Judged<'_>) -> Result<Self> {
        let found = discover::discover(dirs)?;
        let groups = group::groups(&found.sources)?;
        let planned = found.plans.first().map(|plan| plan.reference.as_str());
        let reference = match judged.reference {
            Some(name) => position(&groups, name)?,
            None => planned.and_then(|name| groups.iter().position(|group| group.name == name)).unwrap_or(0),
        };
        // Where one of several comparisons was a race, its caveats hold for what is made of all.
        let mode = found.plans.iter().map(|plan| plan.mode).reduce(|a, b| if b == Mode::Race { b } else { a });
        let name = match &found.plans[..] {
            [plan] => plan.name.clone(),
            _ if groups.len() > 4 => format!("{} variants", groups.len()),
            _ => groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", "),
        };
        let missing = found.missing.iter().map(|run| format!("Not there yet: {run}."));
        let sweeps: Vec<Sweep> = found.plans.iter().flat_map(|plan| plan.sweeps.clone()).collect();
        let notes = missing.chain(sweeps.iter().map(Sweep::sentence)).collect();
        let planned = found.plans.first().and_then(|plan| plan.metric.as_deref());
        let metric = match judged.metric.or(planned) {
            Some(name) => metric::known(name, &groups)?,
            None => metric::primary(&groups),
        };
        let setting = summary::Setting { name: &name, mode, metric, reference, notes, sweeps };
        let summary = Summary::of(&groups, setting);
        Ok(Self { groups, reference, summary })
    }

    /// All plots for which there are numbers.
    fn figures(&self) -> Vec<Figure> {
        let mode = self.summary.mode;
        let losses = [Against::Step, Against::Tokens, Against::Time].map(|x| figure::loss(&self.groups, x, mode));
        let trades = [Cost::Trainable, Cost::Memory].map(|cost| figure::trade(&self.summary, cost));
        let heats = self.groups.iter().enumerate().map(|(index, group)| figure::heat(group, index));
        let plots = losses.into_iter().chain(trades).chain([figure::totals(&self.groups)]);
        plots.chain(heats).flatten().collect()
    }
}

fn position(groups: &[Group], name: &str) -> Result<usize> {
    groups.iter().position(|group| group.name == name).ok_or_else(|| {
        let names = groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(" | ");
        Error::input("no such variant").key("--reference").found(name).expected(names).into()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const RECORDING: &str = include_str!("../../tests/golden/events/metrics.jsonl");

    /// A run directory with the recording, changed.
    fn run(root: &Path, name: &str, change: fn(&str) -> String) -> PathBuf {
        let dir = root.join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("metrics.jsonl"), change(RECORDING)).unwrap();
        dir
    }

    fn same(text: &str) -> String {
        text.into()
    }

    fn page(dirs: &[PathBuf], out: &Path) -> String {
        Comparison::read(dirs, Judged::default()).unwrap().write(out, Pictures::default()).unwrap();
        fs::read_to_string(out.join("report.html")).unwrap()
    }

    #[test]
    fn the_page_asks_nothing_of_others_and_closes_what_it_opens() {
        let root = tempfile::tempdir().unwrap();
        let dirs =
            [run(root.path(), "a", same), run(root.path(), "b", |text| text.replace("\"rank\":8", "\"rank\":2"))];
        let page = page(&dirs, &root.path().join("out"));
        for outside in ["src=", "href=", "@import", "url(http", "//cdn"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for tag in ["svg", "g", "figure", "table", "tr", "td", "th", "section", "script", "text", "ul", "li", "div"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(page.contains("<code>adapter.rank</code>"), "the difference between the recipes is missing");
    }

    #[test]
    fn names_and_texts_of_runs_are_text_and_no_markup() {
        let root = tempfile::tempdir().unwrap();
        let hostile = |text: &str| {
            let text = text.replace("the inn the inn serves", "</script><script>alert(1)</script>");
            text.replace("q_proj", "<img src=x onerror=alert(2)>")
        };
        let dirs = [run(root.path(), "<b onclick='x'>&", hostile), run(root.path(), "b", same)];
        let page = page(&dirs, &root.path().join("out"));
        for markup in ["<b ", "<script>alert", "<img", "</script><script>a"] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert!(page.contains("&lt;b onclick=&#39;x&#39;&gt;&amp;"));
    }

    #[test]
    fn a_comparison_tells_its_mode_and_quotes_no_times_of_a_race() {
        let root = tempfile::tempdir().unwrap();
        for seed in 0..2 {
            run(root.path(), &format!("a/seed-{seed}"), same);
            run(root.path(), &format!("b/seed-{seed}"), |text| text.replace("\"loss\":0.", "\"loss\":0.0"));
        }
        let plan = |mode, reference: &str| {
            let variants = vec!["a".into(), "b".into()];
            Plan { seeds: vec![0, 1, 2], variants, ..Plan::new("n", reference, mode) }
        };
        let read = |plan: Plan| {
            plan.write(root.path()).unwrap();
            Comparison::read(&[root.path().into()], Judged::default()).unwrap().summary
        };
        let race = read(plan(Mode::Race, "b"));
        assert_eq!((race.reference.as_str(), race.variants[0].step_ms), ("b", None));
        assert!(race.notes.iter().any(|note| note == "Not there yet: a, seed 2."), "{:?}", race.notes);
        assert_eq!(race.variants[0].peak_mem_bytes, Some(150_994_944), "what was foretold");
        let sequence = read(plan(Mode::Sequence, "a"));
        assert!(sequence.variants[0].step_ms.is_some_and(|ms| (180.0..220.0).contains(&ms)));
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dirs = [run(root.path(), "x/a", same), run(root.path(), "y/a", same)];
        let told = Comparison::read(&dirs, Judged::default()).unwrap_err().to_string();
        assert!(told.contains("two runs of `a` have seed 0") && told.contains("rename one"), "{told}");
        let told = Comparison::read(&dirs[..1], Judged { reference: Some("b"), metric: None }).unwrap_err().to_string();
        assert!(told.contains("key --reference: no such variant; found b; expected a"), "{told}");
    }

    #[test]
    fn the_table_of_runs_and_the_json_have_all_final_numbers() {
        let root = tempfile::tempdir().unwrap();
        let comparison = Comparison::read(&[run(root.path(), "a", same)], Judged::default()).unwrap();
        let file = root.path().join("runs.csv");
        comparison.write_csv(&file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let mut rows = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let (head, row) = (rows.next().unwrap(), rows.next().unwrap());
        let field = |name: &str| row[head.iter().position(|title| *title == name).unwrap()];
        assert_eq!((field("status"), field("steps"), field("trainable")), ("finished", "200", "49152"));
        let json = serde_json::to_value(&comparison.summary).unwrap();
        assert_eq!(json["variants"][0]["runs"][0]["metrics"]["eval_loss"].to_string(), field("eval_loss"));
        assert_eq!(json["variants"][0]["metrics"]["eval_loss"]["sd"], serde_json::Value::Null);
    }
}
