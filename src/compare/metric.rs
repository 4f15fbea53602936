//! What a number is called, whether more of it is better, and how it is written.

use indexmap::IndexMap;
use serde::Serialize;

use super::group::Group;
use super::history::Run;
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Lower,
    Higher,
}

/// How a value is written for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A share from 0 to 1, in percent.
    Percent,
    Number,
}

/// A metric that the tasks of this crate report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As events and files name it.
    pub name: &'static str,
    /// As people read it.
    pub label: &'static str,
    /// The same in at most five characters.
    pub short: &'static str,
    pub better: Better,
    pub form: Form,
}

const METRICS: [Metric; 17] = {
    use Better::{Higher, Lower};
    use Form::{Number, Percent};
    [
        metric("accuracy", ["accuracy", "acc"], Higher, Percent),
        metric("macro_f1", ["macro F1", "macF1"], Higher, Percent),
        metric("micro_f1", ["micro F1", "micF1"], Higher, Percent),
        metric("matthews", ["Matthews correlation", "mcc"], Higher, Number),
        metric("pearson", ["Pearson correlation", "r"], Higher, Number),
        metric("spearman", ["Spearman correlation", "rho"], Higher, Number),
        metric("precision", ["precision", "prec"], Higher, Percent),
        metric("recall", ["recall", "rec"], Higher, Percent),
        metric("f1", ["F1", "F1"], Higher, Percent),
        metric("exact_match", ["exact match", "exact"], Higher, Percent),
        metric("bleu", ["BLEU", "BLEU"], Higher, Number),
        metric("rouge_l", ["ROUGE-L", "R-L"], Higher, Number),
        metric("recall_at_1", ["recall@1", "r@1"], Higher, Percent),
        metric("recall_at_5", ["recall@5", "r@5"], Higher, Percent),
        metric("recall_at_10", ["recall@10", "r@10"], Higher, Percent),
        metric("perplexity", ["perplexity", "ppl"], Lower, Number),
        metric("loss", ["loss", "loss"], Lower, Number),
    ]
};

const fn metric(name: &'static str, [label, short]: [&'static str; 2], better: Better, form: Form) -> Metric {
    Metric { name, label, short, better, form }
}

impl Metric {
    pub fn named(name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|metric| metric.name == name)
    }
}

/// Parts of names of errors; a metric not of this crate that has none of them is better when it is higher.
const ERRORS: [&str; 9] = ["loss", "perplexity", "error", "mse", "rmse", "mae", "wer", "cer", "bits"];

/// `eval_loss` is better when it is lower, `exact_match` when it is higher.
pub fn better(name: &str) -> Better {
    if let Some(metric) = Metric::named(name) {
        return metric.better;
    }
    let is_error = name.split(|c: char| !c.is_alphanumeric()).any(|word| ERRORS.contains(&word));
    if is_error { Better::Lower } else { Better::Higher }
}

/// Whether it measures what the model is for: neither a loss nor made of one.
pub fn is_task(name: &str) -> bool {
    better(name) == Better::Higher
}

/// A task's metric that all variants report, the first that is not the same for all of them; else the evaluation loss, else that of
/// training.
pub fn primary(groups: &[Group]) -> String {
    let metrics: Vec<_> = groups.iter().flat_map(Group::finished).map(Run::metrics).collect();
    let everywhere = |name: &str| !metrics.is_empty() && metrics.iter().all(|metrics| metrics.contains_key(name));
    let names = metrics.first().into_iter().flat_map(IndexMap::keys);
    let tasks: Vec<_> = names.filter(|name| is_task(name) && everywhere(name)).collect();
    let differs = |name: &str| metrics.iter().any(|of| of[name] != metrics[0][name]);
    match tasks.iter().find(|name| differs(name)).or(tasks.first()) {
        Some(name) => name.to_string(),
        None if everywhere("eval_loss") => "eval_loss".into(),
        None => "train_loss".into(),
    }
}

/// The metric of this name, which all finished runs must report.
///
/// # Errors
/// An input error naming those that there are.
pub fn known(name: &str, groups: &[Group]) -> Result<String> {
    let mut names: Vec<String> =
        groups.iter().flat_map(Group::finished).flat_map(|run| run.metrics().into_keys()).collect();
    names.sort();
    names.dedup();
    if names.is_empty() || names.iter().any(|known| known == name) {
        return Ok(name.into());
    }
    Err(Error::input("no run reports this metric").found(name).expected(names.join(" | ")).into())
}

impl Better {
    pub fn word(self) -> &'static str {
        match self {
            Better::Lower => "lower",
            Better::Higher => "higher",
        }
    }

    /// Whether a difference to another's number speaks for the one it is taken from.
    pub fn is_gain(self, difference: f64) -> bool {
        match self {
            Better::Lower => difference < 0.0,
            Better::Higher => difference > 0.0,
        }
    }
}

/// `exact_match` as people read it.
pub fn label(name: &str) -> String {
    Metric::named(name).map_or_else(|| name.replace('_', " "), |metric| metric.label.into())
}

/// Name and value in at most five characters each, for the dashboard's columns; names of others are cut.
#[cfg(any(feature = "tui", test))]
pub fn narrow(name: &str, value: f64) -> [String; 2] {
    let short = Metric::named(name).map_or_else(|| name.chars().take(5).collect(), |metric| metric.short.into());
    let value = match form(name) {
        Form::Percent if value >= 0.9995 => "100%".into(),
        Form::Percent => format!("{:.1}%", 100.0 * value),
        Form::Number if value.abs() < 10.0 => format!("{value:.2}"),
        Form::Number if value.abs() < 100.0 => format!("{value:.1}"),
        Form::Number => crate::events::units::short(value),
    };
    [short, value]
}

/// What losses are counted in. Numbers are told by their correlation, which nothing else reports.
pub fn loss_unit(groups: &[Group]) -> &'static str {
    let mut evals = groups.iter().flat_map(|group| &group.runs).flat_map(|run| &run.evals);
    if evals.any(|eval| eval.metrics.contains_key("pearson")) { "squared error" } else { "nats" }
}

/// The value of a metric as people read it: `45.19 %` of `exact_match`, `31.14` of `bleu`.
pub fn written(name: &str, value: f64) -> String {
    match form(name) {
        Form::Percent if value.is_finite() => format!("{:.2} %", 100.0 * value),
        _ => number(value),
    }
}

/// Metrics of others are numbers.
pub fn form(name: &str) -> Form {
    Metric::named(name).map_or(Form::Number, |metric| metric.form)
}

/// Four significant digits, or four decimals where that is more.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => format!("{value}"),
        0.0 => "0".into(),
        v if v < 1e-3 => format!("{value:.1e}"),
        v if v < 10.0 => format!("{value:.4}"),
        v if v < 1e3 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// A difference between two values of a metric, with its sign; of shares in percentage points, see [`points`].
pub fn signed(name: &str, value: f64) -> String {
    let text = match form(name) {
        Form::Percent if value.is_finite() => format!("{:.2}", 100.0 * value),
        _ => number(value),
    };
    if value > 0.0 { format!("+{text}") } else { text.replace('-', "\u{2212}") }
}

/// What a difference between two values of a metric is counted in, to be put behind it.
pub fn points(name: &str) -> &'static str {
    if form(name) == Form::Percent { " points" } else { "" }
}

/// `0.4519 ± 0.0120` or `45.19 ± 1.20 %`, or without its spread where there is none.
pub fn spread(name: &str, mean: f64, sd: Option<f64>) -> String {
    match (sd, form(name)) {
        (None, _) => written(name, mean),
        (Some(sd), Form::Percent) => format!("{:.2} ± {:.2} %", 100.0 * mean, 100.0 * sd),
        (Some(sd), Form::Number) => format!("{} ± {}", number(mean), number(sd)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_better_lower_and_shares_higher() {
        assert_eq!(["eval_loss", "perplexity", "rouge-l", "exact_match", "word_error", "accuracy"].map(better), {
            use Better::{Higher, Lower};
            [Lower, Lower, Higher, Higher, Lower, Higher]
        });
    }

    #[test]
    fn metrics_of_the_tasks_are_called_and_written_as_is_customary() {
        let told = |name: &str, value| format!("{} {}", label(name), written(name, value));
        assert_eq!(told("macro_f1", 0.45191), "macro F1 45.19 %");
        assert_eq!(told("bleu", 31.1403), "BLEU 31.14");
        assert_eq!(told("recall_at_10", 1.0), "recall@10 100.00 %");
        assert_eq!(told("matthews", -0.5), "Matthews correlation -0.5000");
        assert_eq!(told("loss", 2.0), "loss 2.0000");
        assert_eq!(told("accuracy", f64::NAN), "accuracy NaN");
        assert_eq!(told("their_score", 0.5), "their score 0.5000");
        let narrow = |name, value| narrow(name, value).join(" ");
        let all = [narrow("exact_match", 0.45191), narrow("f1", 1.0), narrow("spearman", -0.25), narrow("bleu", 31.14)];
        assert_eq!(all, ["exact 45.2%", "F1 100%", "rho -0.25", "BLEU 31.1"]);
        assert_eq!(told("eval_loss", 0.5), "eval loss 0.5000");
    }

    #[test]
    fn no_name_has_two_rows() {
        for metric in &METRICS {
            assert_eq!(Metric::named(metric.name), Some(metric));
            assert!(metric.short.len() <= 5, "{}", metric.short);
        }
    }

    #[test]
    fn numbers_have_as_many_digits_as_they_need() {
        assert_eq!(
            [0.0, 0.45191, 21.117, 4321.7, 2.5e-5, f64::NAN].map(number),
            ["0", "0.4519", "21.12", "4322", "2.5e-5", "NaN"]
        );
    }

    #[test]
    fn shares_are_in_percent_and_differ_by_points() {
        let of = |name: &str| {
            let [up, down] = [0.0125, -0.5].map(|difference| signed(name, difference) + points(name));
            [up, down, spread(name, 0.5, Some(0.25)), spread(name, 0.5, None)]
        };
        assert_eq!(of("eval_loss"), ["+0.0125", "\u{2212}0.5000", "0.5000 ± 0.2500", "0.5000"]);
        assert_eq!(of("f1"), ["+1.25 points", "\u{2212}50.00 points", "50.00 ± 25.00 %", "50.00 %"]);
    }
}
