//! LoRA-drop (Zhou et al. 2024, arXiv 2402.07721): modules whose correction is small share one LoRA.
//!
//! ```text
//!     pilot    g_i = Σ_x ‖s · B_i A_i x‖²     I_i = g_i / Σ_j g_j      x: tokens of a sample of the rows
//!     kept     the largest I_i, as few as have Σ I_i ≥ threshold
//!
//!           ┌──── W_i ───────┐              A, B:  kept     A_i, B_i, fresh
//!     x ────┤                + ── y                others   one pair for all of the same
//!           └── A ── B ── ·s ┘                              projection, shape and rank
//! ```
//!
//! The paper shares among layers of one type, which makes q_proj share with q_proj alone. A shared pair is one
//! parameter, its gradient the sum over its uses; PEFT's files hold a copy for each module.

#![allow(non_snake_case)]

use std::collections::{HashMap, HashSet};

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use indexmap::IndexMap;
use lowrank_kernels::LowRankBackend;

use super::lora::Lora;
use super::method::{Method, Start, field};
use super::{AdapterConfig, Decision, Findings, LoraConfig, LoraInit, Pilot, Selected, Shared, Spec, method_config};
use crate::error::InputError;
use crate::events::ModuleRank;
use crate::nn::{Linear, Pass};
use crate::tensors::HostTensors;
use crate::{Error, Result};

method_config! {
    pub struct LoraDropConfig: scaled {
        /// Share of all importance that the modules with a LoRA of their own have together.
        pub threshold: f64 = 0.9,
        /// Share of the training rows that the pilot trains and measures on.
        pub sample: f64 = 0.1,
        /// Optimizer steps of the pilot: enough for the shares to settle.
        pub pilot_steps: usize = 50,
        /// Paths of the modules with a LoRA of their own. Empty: a pilot decides, and the resolved recipe holds the outcome.
        pub keep: Vec<String> = Vec::new(),
    }
}

impl LoraDropConfig {
    /// Whether the module has no LoRA of its own. Before the decision all have.
    fn shares(&self, site: &Selected) -> bool {
        !self.keep.is_empty() && !self.keep.contains(&site.path)
    }
}

/// What modules must have in common to share a LoRA.
fn pool(site: &Selected) -> String {
    let projection = site.path.rsplit('.').next().unwrap_or(&site.path);
    format!("{projection} {}x{} rank {}", site.rows, site.cols, site.rank)
}

impl Spec for LoraDropConfig {
    fn shared(&self) -> Shared {
        self.shared()
    }

    fn validate(&self, found: &mut Findings) {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        found.number("threshold", self.threshold, share, "above 0, at most 1");
        found.number("sample", self.sample, share, "above 0, at most 1");
        found.size("pilot_steps", self.pilot_steps, 1);
    }

    fn refuses_all(&self, selected: &[Selected]) -> Option<InputError> {
        let path = self.keep.iter().find(|path| !selected.iter().any(|site| site.path == **path))?;
        let error = InputError::new("no adapted module has this path").key("keep").found(path);
        Some(error.expected("full paths of modules that `targets` selects, or an empty list"))
    }

    /// The pilot measures outputs of linear layers, and an embedding has none to share with.
    fn adapts_embeddings(&self) -> bool {
        false
    }

    fn owners<'a>(&self, selected: &'a [Selected]) -> Vec<&'a Selected> {
        let mut pools = HashSet::new();
        selected.iter().filter(|site| !self.shares(site) || pools.insert(pool(site))).collect()
    }

    fn pilot(&self) -> Option<&dyn Pilot> {
        self.keep.is_empty().then_some(self)
    }

    fn saved_as(&self, _: usize) -> AdapterConfig {
        LoraConfig::default().with(self.shared()).into()
    }

    fn export(&self, mut values: HostTensors, selected: &[Selected]) -> Result<(AdapterConfig, HostTensors)> {
        // A shared parameter goes by the path of the first module that has it.
        let mut first: HashMap<String, &str> = HashMap::new();
        for site in selected.iter().filter(|site| self.shares(site)) {
            let owner = *first.entry(pool(site)).or_insert(&site.path);
            for factor in ["lora_A", "lora_B"] {
                let tensor = field(&values, owner, factor)?.clone();
                values.insert(format!("{}.{factor}", site.path), tensor);
            }
        }
        Ok((self.saved_as(0), values))
    }
}

impl Pilot for LoraDropConfig {
    fn steps(&self) -> usize {
        self.pilot_steps
    }

    fn sample(&self) -> f64 {
        self.sample
    }

    fn decide(&self, energy: &IndexMap<String, f64>, selected: &[Selected]) -> Result<Decision> {
        let g: Vec<f64> = selected.iter().map(|site| energy.get(&site.path).copied().unwrap_or(0.0)).collect();
        let total: f64 = g.iter().sum();
        if !total.is_finite() {
            return Err(Error::Diverged { step: 0, what: "corrections are not finite after the pilot".into() });
        }
        if total == 0.0 {
            let error = Error::input("the pilot moved no module, so nothing tells them apart");
            let error = error.key("adapter.lora_drop.pilot_steps").found(self.pilot_steps);
            return Err(error.hint("more steps, a higher learning rate, or a shorter warm-up").into());
        }
        let kept = largest(&g, self.threshold);
        let is_kept = |i: &usize| kept.contains(i);
        let keep = (0..g.len()).filter(is_kept).map(|i| selected[i].path.clone()).collect();
        let modules = selected.iter().enumerate().map(|(i, site)| ModuleRank {
            name: site.path.clone(),
            active: if is_kept(&i) { site.rank } else { 0 },
            total: site.rank,
            importance: g[i] / total,
        });
        Ok(Decision { modules: modules.collect(), adapter: Self { keep, ..self.clone() }.into() })
    }

    fn adopt(&self, earlier: &AdapterConfig) -> Option<AdapterConfig> {
        match earlier {
            AdapterConfig::LoraDrop(earlier) if !earlier.keep.is_empty() => {
                Some(Self { keep: earlier.keep.clone(), ..self.clone() }.into())
            }
            _ => None,
        }
    }
}

/// Indices of the largest values, as few as have `threshold` of the sum, and at least one.
fn largest(values: &[f64], threshold: f64) -> HashSet<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let total: f64 = values.iter().sum();
    // Counted from the small end, where rounding cannot hide a value: at a threshold of 1 only zeros may go.
    let (mut gone, may_go) = (0.0, total - threshold * total);
    while order.len() > 1
        && let Some(&last) = order.last()
        && gone + values[last] <= may_go
    {
        gone += values[last];
        order.pop();
    }
    order.into_iter().collect()
}

#[derive(Module, Debug)]
pub struct LoraDrop<B: Backend> {
    /// A and B, the same parameters in all modules that share them. A field called `adapter` leaves no trace in the
    /// paths of parameters.
    pub adapter: Lora<B>,
}

impl<B: LowRankBackend> Method<B> for LoraDrop<B> {
    type Config = LoraDropConfig;

    fn new(site: &Selected, config: &LoraDropConfig, fresh: &mut Start<'_, B>) -> Result<Self> {
        let mut adapter = Lora::start(site, LoraInit::Default, config.dropout, fresh)?;
        if config.shares(site) {
            // The first module of a group lends its own to the others.
            let group = pool(site);
            let mut shared =
                |factor: &str, own: Param<Tensor<B, 2>>| fresh.shared(&format!("{factor} {group}"), |_| own);
            adapter.lora_A = shared("lora_A", adapter.lora_A);
            adapter.lora_B = shared("lora_B", adapter.lora_B);
        }
        Ok(Self { adapter })
    }

    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        self.adapter.forward(x, base, pass)
    }
}

#[cfg(test)]
mod tests;
