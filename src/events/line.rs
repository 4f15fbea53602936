//! An event as one line of text, for the console and the dashboard's log.

use super::{Eval, Event, Memory, ModuleRank, RunStarted, Status, Step, units};
use crate::metrics::{label, written};

/// The word a line starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Start,
    Pilot,
    Step,
    Eval,
    Ranks,
    Saved,
    Sample,
    Note,
    Warn,
    Memory,
    Done,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Pilot => "pilot",
            Kind::Step => "step",
            Kind::Eval => "eval",
            Kind::Ranks => "ranks",
            Kind::Saved => "saved",
            Kind::Sample => "sample",
            Kind::Note => "note",
            Kind::Warn => "warn",
            Kind::Memory => "memory",
            Kind::Done => "done",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub kind: Kind,
    pub step: Option<usize>,
    pub text: String,
}

impl Line {
    /// `None` for events that are only drawn.
    pub fn of(event: &Event) -> Option<Self> {
        let (kind, text) = match event {
            Event::RunStarted(run) => (Kind::Start, start(run)),
            Event::Pilot(pilot) => (Kind::Pilot, format!("{}/{}  loss {:.4}", pilot.step, pilot.steps, pilot.loss)),
            Event::Step(step) => (Kind::Step, train(step)),
            Event::Eval(eval) => (Kind::Eval, metrics(eval)),
            Event::Ranks { budget, modules, .. } => (Kind::Ranks, ranks(*budget, modules)),
            Event::Norms { .. } => return None,
            Event::Saved { path, .. } => (Kind::Saved, printable(path)),
            Event::Sample { prompt, text, .. } => {
                (Kind::Sample, format!("{} → {}", printable(prompt), printable(text)))
            }
            Event::Note { text } => (Kind::Note, printable(text)),
            Event::Warning { code, text, count } => (Kind::Warn, format!("{code} ×{count}  {}", printable(text))),
            Event::Memory { predicted, measured } => (Kind::Memory, memory(predicted, measured)),
            Event::RunEnded { status, seconds, verify } => {
                let verify = verify.as_ref().map_or(String::new(), |verify| {
                    format!("  saved equals trained within {}", units::rate(verify.max_abs_logit_diff))
                });
                (Kind::Done, format!("{} in {}{verify}", status.word(), units::clock(*seconds)))
            }
        };
        Some(Self { kind, step: event.step(), text })
    }
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Status::Finished => "finished",
            Status::Interrupted => "interrupted",
            Status::Diverged => "diverged",
            Status::Failed => "failed",
        }
    }
}

fn start(run: &RunStarted) -> String {
    let trains = format!(
        "{} of {} parameters train on {}",
        units::count(run.params_trainable),
        units::count(run.params_total),
        run.device
    );
    if run.resumed_from > 0 { format!("resumed from step {}  {trains}", run.resumed_from) } else { trains }
}

fn memory(predicted: &Memory, measured: &Memory) -> String {
    let part = |name: &str, of: fn(&Memory) -> u64| {
        format!("{name} {} (estimated {})", units::bytes(of(measured)), units::bytes(of(predicted)))
    };
    let parts = [
        part("peak", |m| m.peak),
        part("weights", |m| m.base),
        part("adapter", |m| m.adapter),
        part("optimizer", |m| m.optimizer),
        part("activations", |m| m.activations),
    ];
    parts.join(" · ")
}

fn train(step: &Step) -> String {
    let rates: Vec<_> = step.lr.values().map(|&rate| units::rate(rate)).collect();
    let skipped = if step.skipped > 0 { format!("  skipped {}", step.skipped) } else { String::new() };
    format!("loss {:.4}  lr {}  grad {:.2}{skipped}", step.loss, rates.join("/"), step.grad_norm)
}

/// Where modules have all of their rank or none, those that have it are named with their importance.
fn ranks(budget: usize, modules: &[ModuleRank]) -> String {
    let total: usize = modules.iter().map(|module| module.total).sum();
    let text = format!("budget {budget} of {total}");
    let mut kept: Vec<_> = modules.iter().filter(|module| module.active > 0).collect();
    if kept.len() == modules.len() || kept.iter().any(|module| module.active < module.total) {
        return text;
    }
    kept.sort_by(|a, b| b.importance.total_cmp(&a.importance));
    let share: f64 = kept.iter().map(|module| module.importance).sum();
    let named = kept.iter().map(|module| format!("{} {:.1}%", printable(&module.name), 100.0 * module.importance));
    let named = named.collect::<Vec<_>>().join(", ");
    format!("{text}  kept {} of {} modules with {:.1}%: {named}", kept.len(), modules.len(), 100.0 * share)
}

fn metrics(eval: &Eval) -> String {
    let mut text = format!("loss {:.4}", eval.loss);
    for (name, value) in &eval.metrics {
        text += &format!("  {} {}", printable(&label(name)), written(name, *value));
    }
    text
}

/// One line, and nothing in it that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '⏎' } else { c }).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(event: Event) -> String {
        Line::of(&event).unwrap().text
    }

    #[test]
    fn metrics_have_their_customary_names() {
        let metrics = [("perplexity", 5.701), ("exact_match", 0.4519), ("bleu", 0.25)];
        let metrics = metrics.map(|(name, value)| (name.to_string(), value)).into_iter().collect();
        let eval = Event::Eval(Eval { step: 120, loss: f64::NAN, metrics });
        assert_eq!(text(eval), "loss NaN  perplexity 5.7010  exact match 45.19 %  BLEU 0.2500");
    }

    #[test]
    fn modules_that_a_pilot_kept_are_named_with_their_share() {
        let module = |name: &str, active, importance| ModuleRank { name: name.into(), active, total: 8, importance };
        let ranks = |budget, modules: &[ModuleRank]| text(Event::Ranks { step: 0, budget, modules: modules.into() });
        let decided = [module("a", 8, 0.3), module("b", 0, 0.1), module("c", 8, 0.6)];
        assert_eq!(ranks(16, &decided), "budget 16 of 24  kept 2 of 3 modules with 90.0%: c 60.0%, a 30.0%");
        assert_eq!(ranks(11, &[module("a", 8, 0.3), module("b", 3, 0.1)]), "budget 11 of 16");
    }

    #[test]
    fn generated_text_cannot_steer_the_terminal() {
        let sample = Event::Sample { step: 1, prompt: "a\nb".into(), text: "\x1b[31mred\r".into() };
        assert_eq!(text(sample), "a⏎b → [31mred");
    }
}
