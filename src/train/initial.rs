//! `train.init_from`: training that goes on from the values of an adapter.

use std::path::{Path, PathBuf};

use super::Job;
use super::subject::run_around;
use crate::adapters::peft::{self, CONFIG_FILE, TENSORS_FILE};
use crate::adapters::{AdapterConfig, LoftqPlan, Module, Origin, Selected, Spec};
use crate::checkpoint::{Layout, sha256};
use crate::error::InputError;
use crate::runtime::Learner;
use crate::tensors::HostTensors;
use crate::{Error, Result};

/// Names listed in an error.
const LISTED: usize = 3;

/// Where training starts instead of at fresh values.
pub struct Initial {
    /// By path.
    pub values: HostTensors,
    /// sha256 of the file of tensors.
    pub sha256: String,
}

impl Job {
    /// What `train.init_from` names, checked against the recipe; nothing where it is left out. Only a fresh start needs it.
    ///
    /// # Errors
    /// One for each key in which adapter and recipe differ.
    pub fn initial(&self) -> Result<Option<Initial>> {
        let Some(path) = &self.recipe.train.init_from else { return Ok(None) };
        let path = Path::new(path);
        let run = Layout::of(path).ok();
        let dir = run.as_ref().map_or_else(|| PathBuf::from(path), Layout::final_dir);
        if !dir.is_dir() {
            let error = Error::input("there is no such adapter").key("train.init_from").file(&dir);
            return Err(error.expected("a run or an adapter directory").into());
        }
        let config = &self.opened.config;
        if let Some(run) = run.or_else(|| run_around(&dir)).filter(|run| run.recipe().exists())
            && !self.opened.is_quantised()
            && LoftqPlan::own_base(&run.read_recipe()?.adapter, config)?.is_some()
        {
            let what = "the adapter of `train.init_from` belongs to a base of its own, which LoftQ quantised around it";
            let error = Error::input(what).key("train.init_from").file(run.recipe());
            return Err(error
                .hint("write that base with `merge --base-only --into requantised`, and train over it")
                .into());
        }
        let modules = Module::list(config);
        let (file, tensors) = peft::read(&dir, &config.model_type, &modules)?;
        let sites = file.adapter.select(&modules, Origin::AdapterFile)?;
        let problems = differences([&file.adapter, &self.recipe.adapter], [&sites, &self.selected]);
        if !problems.is_empty() {
            let config = dir.join(CONFIG_FILE);
            return Err(Error::Inputs(problems.into_iter().map(|problem| problem.file(&config)).collect()));
        }
        let mut values = peft::from_file(tensors);
        values.extend(file.adapter.spec().map(|spec| spec.derived(&sites)).unwrap_or_default());
        // What the recipe's adapter would leave out of its own file must follow from the recipe here too.
        let derived = self.recipe.adapter.spec().map(|spec| spec.derived(&self.selected)).unwrap_or_default();
        if let Some((name, _)) = derived.iter().find(|(name, tensor)| values.get(*name) != Some(tensor)) {
            let what = "the adapter of `train.init_from` has other values than those that follow from the recipe";
            return Err(Error::input(what).file(dir.join(TENSORS_FILE)).tensor(name).into());
        }
        let path = dir.join(TENSORS_FILE);
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        Ok(Some(Initial { values, sha256: sha256(&bytes) }))
    }
}

impl Initial {
    /// Puts the values into a learner that was attached with them.
    pub(super) fn import(self, learner: &mut dyn Learner) -> Result<()> {
        let mut values = self.values;
        // What the modules share has gone into the adapters when they were made.
        values.retain(|path, _| path.contains('.'));
        learner.import(&values)
    }
}

/// The recipe's keys in which a file's adapter is another than the recipe's. Dropout is the recipe's own affair.
fn differences([file, recipe]: [&AdapterConfig; 2], [found, expected]: [&[Selected]; 2]) -> Vec<InputError> {
    let name = recipe.name();
    let differs = |key: &str, found: String, expected: String| {
        let error = InputError::new("the adapter of `train.init_from` is not what the recipe trains").key(key);
        error.found(found).expected(expected)
    };
    if file.name() != name {
        return vec![differs("adapter", file.name().into(), name.into())];
    }
    let mut problems = Vec::new();
    let mut compare = |key: &str, found: String, expected: String| {
        if found != expected {
            problems.push(differs(&format!("adapter.{name}.{key}"), found, expected));
        }
    };
    let only = |these: &[Selected], those: &[Selected]| {
        these.iter().filter(|a| !those.iter().any(|b| a.path == b.path)).map(|a| a.path.clone()).collect::<Vec<_>>()
    };
    compare("targets", extra(&only(found, expected)), extra(&only(expected, found)));
    let both = || expected.iter().filter_map(|b| Some((found.iter().find(|a| a.path == b.path)?, b)));
    if let Some((a, b)) = both().find(|(a, b)| a.rank != b.rank) {
        let key = recipe.spec().map_or("rank", Spec::rank_key);
        compare(key, format!("{} in {}", a.rank, a.path), format!("{} in {}", b.rank, b.path));
    } else if let Some((a, b)) = both().find(|(a, b)| a.scaling as f32 != b.scaling as f32) {
        let scale = |site: &Selected| format!("a scale of {} in {}", site.scaling, site.path);
        compare("alpha", scale(a), scale(b));
    }
    let [file, recipe] = [file, recipe].map(|adapter| adapter.shared().unwrap_or_default());
    compare("bias", format!("{:?}", file.bias), format!("{:?}", recipe.bias));
    let sorted = |mut names: Vec<String>| {
        names.sort();
        format!("{names:?}")
    };
    compare("modules_to_save", sorted(file.modules_to_save), sorted(recipe.modules_to_save));
    problems
}

/// Modules that only one side has.
fn extra(paths: &[String]) -> String {
    let more = paths.len().saturating_sub(LISTED);
    match paths {
        [] => "no others".into(),
        _ if more == 0 => format!("also {}", paths.join(", ")),
        _ => format!("also {} and {more} more", paths[..LISTED].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::{BiasMode, LoraConfig, Targets};

    /// The keys that are told when the file's adapter is `change`d.
    fn told(change: impl FnOnce(&mut LoraConfig)) -> Vec<(String, String)> {
        let modules = Module::list(&crate::adapters::tiny::llama());
        let recipe = LoraConfig { rank: 4, ..LoraConfig::default() };
        let mut file = recipe.clone();
        change(&mut file);
        let [file, recipe] = [file, recipe].map(AdapterConfig::from);
        let [found, expected] =
            [(&file, Origin::AdapterFile), (&recipe, Origin::Recipe)].map(|(a, o)| a.select(&modules, o).unwrap());
        let told = differences([&file, &recipe], [&found, &expected]);
        told.into_iter().map(|e| (e.place.clone().unwrap().1, e.to_string())).collect()
    }

    #[test]
    fn each_difference_names_its_key() {
        assert_eq!(told(|_| {}), []);
        assert_eq!(told(|file| file.dropout = 0.3), []);
        // Other words for the same scale.
        assert_eq!(told(|file| (file.rslora, file.alpha) = (true, 8.0)), []);
        let one = |change: fn(&mut LoraConfig)| {
            let told = told(change);
            assert_eq!(told.len(), 1, "{told:?}");
            told[0].clone()
        };
        let (key, text) = one(|file| (file.rank, file.alpha) = (8, 32.0));
        assert_eq!(key, "adapter.lora.rank");
        assert!(text.contains("found 8 in model.layers.0") && text.contains("expected 4 in"), "{text}");
        let (key, text) = one(|file| file.alpha = 8.0);
        assert!(key == "adapter.lora.alpha" && text.contains("found a scale of 2 in"), "{text}");
        let (key, text) = one(|file| file.targets = Targets::Names(vec!["q_proj".into(), "lm_head".into()]));
        assert_eq!(key, "adapter.lora.targets");
        assert!(text.contains("found also lm_head") && text.contains("and 9 more"), "{text}");
        assert_eq!(one(|file| file.bias = BiasMode::All).0, "adapter.lora.bias");
        assert_eq!(one(|file| file.modules_to_save = vec!["lm_head".into()]).0, "adapter.lora.modules_to_save");
    }
}
