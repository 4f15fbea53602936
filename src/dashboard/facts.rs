//! What a run is, in a few labelled lines.

use serde_json::Value;

use super::run::Run;
use crate::events::units;

pub type Fact = (&'static str, String);

pub fn facts(run: &Run) -> Vec<Fact> {
    let Some(start) = &run.history.start else { return Vec::new() };
    let text = |pointer| run.setting(pointer).and_then(Value::as_str);
    let mut facts = Vec::new();
    if let Some(model) = text("/model/path") {
        let parameters = units::short(start.params_total as f64);
        facts.push(("model", format!("{model} · {parameters} · {}", text("/model/dtype").unwrap_or("f32"))));
    }
    facts.extend(adapter(run));
    facts.push(("trains", format!("{} parameters", units::count(start.params_trainable))));
    facts.extend(text("/data/train").map(|data| ("data", data.into())));
    if let (Some(batch), Some(accumulate)) = (run.setting("/train/batch"), run.setting("/train/accumulate")) {
        facts.push(("batch", format!("{batch} × {accumulate}")));
    }
    facts.extend(run.metric("perplexity").map(|perplexity| ("ppl", crate::metrics::written("perplexity", perplexity))));
    facts.extend(run.history.best_eval().map(|best| ("best", format!("{:.4} at step {}", best.loss, best.step))));
    if run.ended().is_some() {
        facts.push(("state", run.history.standing()));
    }
    facts.into_iter().map(|(label, text)| (label, crate::events::printable(&text))).collect()
}

fn adapter(run: &Run) -> Option<Fact> {
    let (name, options) = run.setting("/adapter")?.as_object()?.iter().next()?;
    let option = |key: &str| {
        options.get(key).and_then(Value::as_f64).map(|value| format!(" · {key} {value}")).unwrap_or_default()
    };
    Some(("adapter", format!("{name}{}{}", option("rank"), option("alpha"))))
}
