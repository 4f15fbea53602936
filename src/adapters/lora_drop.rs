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

    fn total_parameters(&self, selected: &[Selected]) -> usize {
        let mut pools = HashSet::new();
        let counted = selected.iter().filter(|site| !self.shares(site) || pools.insert(pool(site)));
        counted.map(|site| self.parameters(site)).sum()
    }

    fn pilot(&self) -> Option<&dyn Pilot> {
        self.keep.is_empty().then_some(self)
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
        Ok((LoraConfig::default().with(self.shared()).into(), values))
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
mod tests {
    use super::*;
    use crate::adapters::modules::tiny;
    use crate::adapters::{Module, Origin, Targets};
    use crate::tensors::HostTensor;

    fn sites(config: &LoraDropConfig) -> Vec<Selected> {
        AdapterConfig::from(config.clone()).select(&Module::list(&tiny::llama()), Origin::Recipe).unwrap()
    }

    fn energies(sites: &[Selected], of: impl Fn(usize) -> f64) -> IndexMap<String, f64> {
        sites.iter().enumerate().map(|(i, site)| (site.path.clone(), of(i))).collect()
    }

    fn kept(decision: &Decision) -> Vec<String> {
        let AdapterConfig::LoraDrop(config) = &decision.adapter else { panic!("{decision:?}") };
        config.keep.clone()
    }

    #[test]
    fn the_smallest_prefix_that_reaches_the_threshold_is_kept() {
        let set = |indices: &[usize]| indices.iter().copied().collect::<HashSet<_>>();
        assert_eq!(largest(&[1.0, 6.0, 3.0], 0.5), set(&[1]));
        assert_eq!(largest(&[1.0, 6.0, 3.0], 0.6), set(&[1]), "exactly reached");
        assert_eq!(largest(&[1.0, 6.0, 3.0], 0.61), set(&[1, 2]));
        assert_eq!(largest(&[1.0, 9.0], 0.9), set(&[1]), "0.9 is not exact in binary");
        assert_eq!(largest(&[2.0, 2.0, 2.0], 0.3), set(&[0]), "equals go by module order");
        assert_eq!(largest(&[1.0, 6.0, 3.0], f64::MIN_POSITIVE), set(&[1]), "never none");
    }

    #[test]
    fn a_threshold_of_one_keeps_whatever_moved_at_all() {
        assert_eq!(largest(&[1e-30, 0.0, 1.0, 1e300], 1.0), [0, 2, 3].into());
    }

    #[test]
    fn importances_add_up_to_one_and_stand_beside_every_module() {
        let config = LoraDropConfig { threshold: 0.7, ..Default::default() };
        let sites = sites(&config);
        let decision = config.decide(&energies(&sites, |i| (i as f64 + 1.0).powi(3)), &sites).unwrap();
        let total: f64 = decision.modules.iter().map(|module| module.importance).sum();
        assert!((total - 1.0).abs() < 1e-12, "{total}");
        assert_eq!(decision.modules.len(), sites.len());
        let own: Vec<_> = decision.modules.iter().filter(|m| m.active > 0).map(|m| m.name.clone()).collect();
        assert_eq!(own, kept(&decision));
        let share: f64 = decision.modules.iter().filter(|m| m.active > 0).map(|m| m.importance).sum();
        let least = decision.modules.iter().filter(|m| m.active > 0).map(|m| m.importance).fold(1.0, f64::min);
        assert!(share >= 0.7 && share - least < 0.7, "{share} {least}");
        assert!(decision.modules.iter().all(|m| (m.active > 0) == (m.importance >= least) && m.total == 8));
    }

    #[test]
    fn energies_that_tell_nothing_are_an_error() {
        let config = LoraDropConfig::default();
        let sites = sites(&config);
        let error = config.decide(&energies(&sites, |_| 0.0), &sites).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("adapter.lora_drop.pilot_steps"), "{error}");
        for bad in [f64::NAN, f64::INFINITY] {
            let error = config.decide(&energies(&sites, |i| if i == 3 { bad } else { 1.0 }), &sites).unwrap_err();
            assert_eq!(error.exit_code(), 3, "{error}");
        }
    }

    #[test]
    fn a_decision_is_taken_over_by_an_open_recipe_alone() {
        let open = LoraDropConfig { rank: 4, ..Default::default() };
        let decided = LoraDropConfig { keep: vec!["model.layers.0.mlp.up_proj".into()], ..Default::default() };
        let Some(AdapterConfig::LoraDrop(adopted)) = open.adopt(&decided.clone().into()) else { panic!() };
        assert_eq!((adopted.rank, &adopted.keep), (4, &decided.keep));
        assert!(open.adopt(&open.clone().into()).is_none() && open.adopt(&LoraConfig::default().into()).is_none());
        assert!(open.pilot().is_some() && decided.pilot().is_none());
    }

    #[test]
    fn parameters_are_those_of_the_kept_and_one_pair_for_each_shape() {
        let open = LoraDropConfig { rank: 4, ..Default::default() };
        let all = sites(&open);
        assert_eq!(open.total_parameters(&all), all.iter().map(|site| 4 * (site.rows + site.cols)).sum::<usize>());
        // Both up_proj kept; of q_proj one, so the other is alone in its group; five more groups of two.
        let keep = ["0.mlp.up_proj", "1.mlp.up_proj", "1.self_attn.q_proj"];
        let keep: Vec<_> = keep.iter().map(|name| format!("model.layers.{name}")).collect();
        let decided = LoraDropConfig { keep, ..open };
        // hidden 96, inner 256, keys 48: q o (96, 96), k v (48, 96), gate up down (256, 96).
        let expected = 4 * (2 * (256 + 96) + 2 * (96 + 96) + (96 + 96) + 2 * (48 + 96) + 2 * (256 + 96));
        assert_eq!(decided.total_parameters(&all), expected);
        // Another rank is another group.
        let ranks = [("0.self_attn.k_proj".to_string(), 2)].into();
        let ranked = LoraDropConfig { rank_pattern: ranks, ..decided };
        assert_eq!(ranked.total_parameters(&sites(&ranked)), expected + 2 * (48 + 96));
    }

    #[test]
    fn an_export_is_plain_lora_with_a_copy_in_every_module() {
        let targets = Targets::Names(vec!["q_proj".into(), "k_proj".into()]);
        let keep = vec!["model.layers.1.self_attn.q_proj".into()];
        let config = LoraDropConfig { rank: 1, keep, targets, ..Default::default() };
        let sites = sites(&config);
        let tensor = |value: f32| HostTensor { shape: vec![1, 1], values: vec![value] };
        let named = |(path, value): (&str, f32)| (format!("model.layers.{path}"), tensor(value));
        let own = [
            ("0.self_attn.q_proj.lora_A", 1.0),
            ("0.self_attn.q_proj.lora_B", 2.0),
            ("0.self_attn.k_proj.lora_A", 3.0),
            ("0.self_attn.k_proj.lora_B", 4.0),
            ("1.self_attn.q_proj.lora_A", 5.0),
            ("1.self_attn.q_proj.lora_B", 6.0),
        ];
        let copies = [("1.self_attn.k_proj.lora_A", 3.0), ("1.self_attn.k_proj.lora_B", 4.0)];
        let (saved_as, values) = config.export(own.into_iter().map(named).collect(), &sites).unwrap();
        assert!(matches!(saved_as, AdapterConfig::Lora(lora) if lora.rank == 1));
        let expected: HostTensors = own.into_iter().chain(copies).map(named).collect();
        assert_eq!(values, expected);
        assert!(config.export(HostTensors::new(), &sites).is_err(), "a lost tensor is named");
    }

    #[test]
    fn kept_modules_must_be_adapted_ones() {
        let keep = vec!["model.layers.0.self_attn.q_proj".to_string(), "q_proj".to_string()];
        let config = AdapterConfig::from(LoraDropConfig { keep, ..Default::default() });
        let error = config.select(&Module::list(&tiny::llama()), Origin::Recipe).unwrap_err().to_string();
        assert!(error.contains("keep") && error.contains("q_proj"), "{error}");
        let embedding = LoraDropConfig { targets: Targets::Names(vec!["embed_tokens".into()]), ..Default::default() };
        let error = AdapterConfig::from(embedding).select(&Module::list(&tiny::llama()), Origin::Recipe).unwrap_err();
        assert!(error.to_string().contains("defined on linear layers"), "{error}");
    }
}
