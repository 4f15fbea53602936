//! The first screen of a run: everything that was derived, with the numbers it came from.

use super::{Job, Run};
use crate::adapters::{AdapterConfig, LoftqPlan, compact, trainable};
use crate::events::Banner;
use crate::events::units::{bytes, count, rate};
use crate::models::Outline;

impl Job {
    /// Lines about everything but the run directory, which does not exist yet.
    pub fn banner(&self) -> Banner {
        let config = &self.opened.config;
        let recipe = match self.overrides {
            0 => self.name.clone(),
            1 => format!("{} (1 override)", self.name),
            n => format!("{} ({n} overrides)", self.name),
        };
        let already = if self.opened.is_quantised() { " · quantised in its files" } else { "" };
        let storage = self.storage.describe() + already;
        let frozen = if matches!(self.recipe.adapter, AdapterConfig::Full(_)) { "all trains" } else { "base frozen" };
        let model = format!(
            "{} · {} · {} layers · {} parameters · {storage} · {frozen}",
            self.recipe.model.path,
            config.model_type,
            config.num_hidden_layers,
            count(self.total)
        );
        let share = 100.0 * self.trainable as f64 / self.total.max(1) as f64;
        let trains = format!("{} of {} parameters ({share:.2} %)", count(self.trainable), count(self.total));
        let trains = match self.pilot() {
            None => trains,
            Some(pilot) => {
                let sample = 100.0 * pilot.sample();
                format!("at most {trains}: a pilot of {} steps on {sample} % of the rows decides", pilot.steps())
            }
        };
        let base = self.loftq().filter(LoftqPlan::owns_base).map(|plan| {
            let LoftqPlan { iterations, ranks } = plan;
            format!("quantised around the adapter's start in {} layers, {iterations} iterations: no other adapter can share it", ranks.len())
        });
        let banner = Banner::new().line("recipe", recipe).line("model", model);
        base.into_iter()
            .fold(banner, |banner, base| banner.line("base", base))
            .line("adapter", self.adapter_line())
            .line("trains", trains)
            .line("data", self.data_line())
            .line("memory", self.memory_line() + &self.offload_line() + &self.retained_line())
            .line("device", format!("{} ({})", self.target.device.name, self.target.device.description))
    }

    /// Every parameter that trains, modules alike in one line.
    pub fn trainable_lines(&self) -> String {
        let trainable = trainable(&Outline::of(&self.opened.config), &self.recipe.adapter, &self.selected);
        if trainable.is_empty() { "none trains".into() } else { compact(&trainable).join("\n") }
    }

    /// What sets a variant apart from others, in a line.
    pub(super) fn variant_line(&self) -> String {
        let share = 100.0 * self.trainable as f64 / self.total.max(1) as f64;
        let trains = format!("{} parameters ({share:.2} %)", count(self.trainable));
        format!("{} · {} · {trains} · {} alone", self.method(), self.storage.describe(), bytes(self.memory.peak))
    }

    fn adapter_line(&self) -> String {
        let mut kinds: Vec<&str> = self.selected.iter().filter_map(|s| s.path.rsplit('.').next()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.is_empty() { self.method() } else { format!("{} ({})", self.method(), kinds.join(" ")) }
    }

    /// Method, rank, scale and number of modules.
    fn method(&self) -> String {
        let name = self.recipe.adapter.name();
        let Some(spec) = self.recipe.adapter.spec() else { return name.to_string() };
        let shared = spec.shared();
        let alpha = if spec.has_alpha() { format!(" · alpha {}", shared.alpha) } else { String::new() };
        format!("{name} · rank {}{alpha} · {} modules", shared.rank, self.selected.len())
    }

    fn data_line(&self) -> String {
        let train = &self.splits.train.report;
        let mut parts = vec![self.recipe.data.train.clone(), format!("{} train", count(train.used))];
        if let Some(eval) = &self.splits.eval {
            parts[1] += &format!(" / {} eval", count(eval.report.used));
        }
        parts.push(format!("{}–{} tokens", train.shortest, train.longest));
        let dropped = [
            (train.dropped_long, "over-long dropped"),
            (train.truncated, "truncated"),
            (train.untrained, "without a trained token"),
        ];
        parts.extend(dropped.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        parts.push(format!("{} step{}", count(self.steps), if self.steps == 1 { "" } else { "s" }));
        parts.join(" · ")
    }

    fn memory_line(&self) -> String {
        let m = &self.memory;
        let [peak, base, adapter, optimizer, activations] =
            [m.peak, m.base, m.adapter, m.optimizer, m.activations].map(bytes);
        format!("about {peak}: weights {base} · adapter {adapter} · optimizer {optimizer} · activations {activations}")
    }

    /// Where the optimizer's bytes lie, where not all of them lie on the device.
    fn offload_line(&self) -> String {
        let m = &self.memory;
        if m.optimizer_host == 0 {
            return String::new();
        }
        let [host, device] = [m.optimizer_host, m.optimizer - m.optimizer_host].map(bytes);
        format!("\noptimizer: {device} on the device, {host} in host memory; a step moves {host} each way")
    }

    /// What adapters need again going back; much of it is the base's own or computed again.
    fn retained_line(&self) -> String {
        let layers = &self.memory.retained_by_layer;
        let (Some(&least), Some(&most)) = (layers.values().min(), layers.values().max()) else { return String::new() };
        let range = if least == most { bytes(most) } else { format!("{} to {}", bytes(least), bytes(most)) };
        let (all, count) = (bytes(layers.values().sum()), layers.len());
        format!("\nadapter needs {range} per layer in the backward pass, {all} in {count} layers")
    }
}

impl Run<'_> {
    /// The job's lines, and what only the run knows: the rates that its optimizer has, and where it lies.
    pub fn banner(&self) -> Banner {
        let peak = self.job.recipe.optim.adamw.lr;
        let rates: Vec<_> =
            self.learner.rates(peak).into_iter().map(|(group, lr)| format!("{group} {}", rate(lr))).collect();
        let plus =
            self.job.recipe.optim.lora_plus_ratio.map_or(String::new(), |ratio| format!(" (LoRA+, ratio {ratio})"));
        let rates = if rates.is_empty() { "nothing trains".into() } else { rates.join(" · ") + &plus };
        self.job.banner().line("peak lr", rates).line("run", self.path().display().to_string())
    }
}
