//! Which modules an adapter attaches to, and with what rank: PEFT's matching rules.
//!
//! A module is taken when `targets` names it, `exclude` does not, `modules_to_save` does not claim
//! it whole, and its layer index is wanted. `rank_pattern` and `alpha_pattern` then override rank
//! and alpha, the first matching key winning.

mod pattern;
mod problems;
mod rules;

use self::rules::{Rules, Used};
use super::{LoraConfig, Module, ModuleKind, Targets};
use crate::error::InputError;
use crate::{Error, Result};

/// Largest rank that is not taken for a slip.
pub const MAX_RANK: usize = 65_536;

/// Who wrote the configuration. A recipe that names nothing in the model is a mistake; an
/// `adapter_config.json` may carry names that its own training never matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Recipe,
    AdapterFile,
}

impl Origin {
    /// The problems as one error, under the key names of whoever wrote them.
    fn report(self, problems: Vec<InputError>) -> Error {
        let named = problems.into_iter().map(|problem| match (self, problem.place.clone()) {
            (Origin::AdapterFile, Some(("key", key))) => problem.key(match key.as_str() {
                "targets" => "target_modules",
                "exclude" => "exclude_modules",
                "layers" => "layers_to_transform",
                "rank" => "r",
                other => other,
            }),
            _ => problem,
        });
        let mut problems: Vec<_> = named.collect();
        if problems.len() == 1 { problems.remove(0).into() } else { Error::Inputs(problems) }
    }
}

/// A module an adapter attaches to.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    pub path: String,
    pub kind: ModuleKind,
    /// Rows and columns of the frozen weight.
    pub rows: usize,
    pub cols: usize,
    pub rank: usize,
    pub alpha: f64,
    /// alpha / rank, or alpha / sqrt(rank) with rsLoRA.
    pub scaling: f64,
}

/// The modules that `config` adapts, in the order of `modules`.
///
/// Errors name every unusable pattern, every entry of a recipe that matches nothing, and, when no
/// module is left, what was asked for and what the model has.
pub fn select(modules: &[Module], config: &LoraConfig, origin: Origin) -> Result<Vec<Selected>> {
    let rules = Rules::new(config).map_err(|problem| origin.report(vec![problem]))?;
    let mut problems = match origin {
        Origin::Recipe => problems::unmatched(&rules, modules, config),
        Origin::AdapterFile => Vec::new(),
    };
    let mut used = Used::new(config);
    let taken = modules.iter().filter(|module| rules.admits(module));
    let selected = taken.map(|module| rules.adapt(module, config, &mut used)).collect::<Result<Vec<_>, _>>();
    let selected = selected.map_err(|problem| origin.report(vec![problem]))?;
    if selected.is_empty() && problems.is_empty() {
        problems.push(problems::nothing_selected(modules, config, &rules));
    }
    if origin == Origin::Recipe && !selected.is_empty() {
        problems.extend(used.never());
    }
    if problems.is_empty() { Ok(selected) } else { Err(origin.report(problems)) }
}

/// The modules that `modules_to_save` trains whole. A recipe's name that is no module is an error.
pub fn saved<'a>(modules: &'a [Module], config: &LoraConfig, origin: Origin) -> Result<Vec<&'a Module>> {
    if origin == Origin::Recipe {
        let problems = problems::unmatched_names("modules_to_save", &config.modules_to_save, modules);
        if !problems.is_empty() {
            return Err(origin.report(problems));
        }
    }
    let named = |module: &&Module| config.modules_to_save.iter().any(|name| module.is_named(name));
    Ok(modules.iter().filter(named).collect())
}

/// Paths of every linear layer but the output embedding: what `all-linear` stands for.
pub fn linear_paths(modules: &[Module]) -> Vec<String> {
    modules.iter().filter(|module| module.kind == ModuleKind::Linear).map(|module| module.path.clone()).collect()
}

impl Targets {
    pub fn is_all_linear(&self) -> bool {
        matches!(self, Targets::Pattern(pattern) if pattern.eq_ignore_ascii_case("all-linear"))
    }
}
