//! What the numbers of a variant amount to, in words.

use serde::Serialize;

use super::group::Group;
use super::history::Run;
use super::metric::{Better, better, label, points, signed, written};
use super::summary::{Estimate, Summary, Variant};
use crate::checkpoint::RunStatus;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    pub word: Word,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    Reference,
    Better,
    Worse,
    /// Zero lies in the interval of the difference.
    NotToldApart,
    /// Too few seeds to say.
    NotRanked,
    /// A run did not come to its end.
    Unfinished,
    Diverged,
}

/// The variant against the reference by one metric.
pub fn of(group: &Group, reference: &Group, estimate: Option<&Estimate>, metric: &str) -> Verdict {
    let verdict = |word, text| Verdict { word, text };
    if let Some(unfinished) = unfinished(group) {
        return unfinished;
    }
    if group.name == reference.name {
        return verdict(Word::Reference, "the reference".into());
    }
    let Some(estimate) = estimate else {
        return verdict(Word::NotRanked, format!("not compared: it reports no {}", label(metric)));
    };
    let Some(difference) = &estimate.difference else {
        let text = format!("not compared: no finished run of {} has one of its seeds", reference.name);
        return verdict(Word::NotRanked, text);
    };
    let Some(interval) = difference.interval else {
        let text = if difference.values.len() > 1 {
            "not ranked: a difference is not a finite number".into()
        } else {
            let only =
                difference.values.first().map(|&value| signed(metric, value) + points(metric)).unwrap_or_default();
            format!("not ranked: one seed; {only} against {} with it", reference.name)
        };
        return verdict(Word::NotRanked, text);
    };
    let numbers = format!(
        "{}{} ({} to {}, {} seeds)",
        signed(metric, interval.mean),
        points(metric),
        signed(metric, interval.low),
        signed(metric, interval.high),
        difference.seeds.len()
    );
    match (interval.is_clear(), better(metric).is_gain(interval.mean)) {
        (false, _) => verdict(Word::NotToldApart, format!("not told apart from {}: {numbers}", reference.name)),
        (true, true) => verdict(Word::Better, format!("better than {}: {numbers}", reference.name)),
        (true, false) => verdict(Word::Worse, format!("worse than {}: {numbers}", reference.name)),
    }
}

/// A variant of which a run diverged or has not come to its end is not held against others by the seeds that are left:
/// those would be chosen by their success.
fn unfinished(group: &Group) -> Option<Verdict> {
    let told = |state: fn(&Run) -> bool| {
        let runs: Vec<_> = group.runs.iter().filter(|run| state(run)).collect();
        let each = runs.iter().map(|run| format!("seed {} {}", run.seed, run.standing())).collect::<Vec<_>>();
        (!runs.is_empty()).then(|| each.join(", "))
    };
    if let Some(text) = told(|run| run.state == RunStatus::Diverged) {
        return Some(Verdict { word: Word::Diverged, text });
    }
    let text = told(|run| run.state != RunStatus::Finished)?;
    Some(Verdict { word: Word::Unfinished, text: format!("not compared: {text}") })
}

/// A line for each variant, `dora (0.4200): better than lora ...`. Best first where the verdicts rank any, else in the order given.
pub fn lines(summary: &Summary) -> Vec<String> {
    let value = |variant: &Variant| variant.metrics.get(&summary.metric).map(|estimate| estimate.mean);
    let mut variants: Vec<_> = summary.variants.iter().collect();
    if variants.iter().any(|variant| variant.verdict.word.is_ranked()) {
        let rank = |variant: &&Variant| {
            let sign = if summary.better == Better::Lower { 1.0 } else { -1.0 };
            value(variant).filter(|v| !v.is_nan()).map_or(f64::INFINITY, |value| sign * value)
        };
        variants.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    }
    let line = |variant: &Variant| {
        let value = value(variant).map_or_else(String::new, |value| format!(" ({})", written(&summary.metric, value)));
        format!("{}{value}: {}", variant.name, variant.verdict.text)
    };
    variants.into_iter().map(line).collect()
}

impl Word {
    /// Whether the seeds allowed a comparison.
    fn is_ranked(self) -> bool {
        matches!(self, Word::Better | Word::Worse | Word::NotToldApart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::{Scripted, summary};
    use crate::events::Status;

    fn verdicts(runs: &[Scripted]) -> Vec<(Word, String)> {
        summary(runs).variants.into_iter().map(|variant| (variant.verdict.word, variant.verdict.text)).collect()
    }

    #[test]
    fn one_seed_is_not_ranked() {
        let runs = [Scripted::new("a", 0).eval(0.5), Scripted::new("b", 0).eval(0.1)];
        assert_eq!(verdicts(&runs)[1], (Word::NotRanked, "not ranked: one seed; −0.4000 against a with it".into()));
        let summary = summary(&runs);
        assert!(summary.notes[0].starts_with("Nothing is ranked: with one seed"), "{:?}", summary.notes);
        assert_eq!(lines(&summary)[0], "a (0.5000): the reference");
    }

    #[test]
    fn clear_differences_are_told_by_their_direction_and_unclear_ones_are_not() {
        let runs: Vec<_> = [("a", [0.50, 0.60]), ("b", [0.45, 0.52]), ("c", [0.70, 0.61]), ("d", [0.40, 0.65])]
            .iter()
            .flat_map(|(name, losses)| (0..2).map(move |seed| Scripted::new(name, seed).eval(losses[seed as usize])))
            .collect();
        let told = verdicts(&runs);
        assert_eq!([told[0].0, told[1].0, told[2].0, told[3].0], {
            [Word::Reference, Word::Better, Word::Worse, Word::NotToldApart]
        });
        // −0.05 and −0.08.
        assert_eq!(told[1].1, "better than a: −0.0650 (−0.0800 to −0.0500, 2 seeds)");
        assert_eq!(told[3].1, "not told apart from a: −0.0250 (−0.1000 to +0.0500, 2 seeds)");
        assert!(lines(&summary(&runs))[0].starts_with("b (0.4850)"));
    }

    #[test]
    fn seeds_are_paired_by_their_number() {
        let runs = [
            Scripted::new("a", 0).eval(1.0),
            Scripted::new("a", 1).eval(2.0),
            Scripted::new("a", 2).eval(3.0),
            Scripted::new("b", 2).eval(2.5),
            Scripted::new("b", 1).eval(1.5),
            Scripted::new("b", 7).eval(9.0),
        ];
        let difference = summary(&runs).variants[1].metrics["eval_loss"].difference.clone().unwrap();
        assert_eq!((difference.seeds, difference.values), (vec![2, 1], vec![-0.5, -0.5]));
    }

    #[test]
    fn what_did_not_finish_is_not_compared_by_its_luckier_seeds() {
        let pair = |status| {
            [
                Scripted::new("a", 0).eval(0.5),
                Scripted::new("a", 1).eval(0.5),
                Scripted::new("b", 0).eval(0.1),
                Scripted::new("b", 1).eval(0.1).status(status),
            ]
        };
        assert_eq!(verdicts(&pair(Some(Status::Diverged)))[1], (Word::Diverged, "seed 1 diverged at step 4".into()));
        let (word, text) = verdicts(&pair(None)).remove(1);
        assert_eq!((word, text.as_str()), (Word::Unfinished, "not compared: seed 1 running, or killed at step 4 of 4"));
    }

    #[test]
    fn the_tasks_own_metric_comes_before_the_loss() {
        let run = |name, seed, exact| {
            Scripted::new(name, seed).eval(0.5).metric("perplexity", 2.0).metric("exact_match", exact)
        };
        let runs = [run("a", 0, 0.2), run("a", 1, 0.3), run("b", 0, 0.6), run("b", 1, 0.5)];
        let summary = summary(&runs);
        assert_eq!(summary.metric, "exact_match");
        assert_eq!(summary.variants[1].verdict.word, Word::Better);
        assert!(summary.variants[1].verdict.text.contains("+30.00 points (+20.00 to +40.00, 2 seeds)"), "{summary:?}");
        assert_eq!(lines(&summary)[0].split(':').next(), Some("b (55.00 %)"));
    }

    #[test]
    fn a_metric_that_is_the_same_for_all_decides_nothing() {
        let run = |name, bleu| Scripted::new(name, 0).eval(0.5).metric("exact_match", 0.0).metric("bleu", bleu);
        assert_eq!(summary(&[run("a", 12.0), run("b", 14.0)]).metric, "bleu");
        assert_eq!(summary(&[run("a", 12.0), run("b", 12.0)]).metric, "exact_match");
    }
}
