//! Something a user points at: a run, an adapter over its base, or a plain model.

use std::path::{Path, PathBuf};

use super::artifact::{attach_none, attach_saved};
use super::job::Target;
use crate::adapters::AdapterConfig;
use crate::adapters::peft::{self, PeftConfig};
use crate::checkpoint::Layout;
use crate::models::{self, Opened};
use crate::recipe::Recipe;
use crate::runtime::{BaseSpec, Learner};
use crate::{Error, Result};

/// A model to evaluate, to talk to or to merge.
pub struct Subject {
    pub opened: Opened,
    /// Directory of the adapter, if there is one.
    pub adapter: Option<PathBuf>,
    /// Recipe of the run it came from, and its file.
    pub recipe: Option<Recipe>,
    pub recipe_file: Option<PathBuf>,
}

impl Subject {
    /// `path` is a run directory, an adapter directory (over `base`), or a model.
    ///
    /// # Errors
    /// An adapter outside a run needs `base`: the path its own file names is shown, never followed.
    pub fn open(path: &Path, base: Option<&Path>) -> Result<Self> {
        let here = Path::new("");
        if let Ok(run) = Layout::of(path)
            && run.recipe().exists()
        {
            let recipe = run.read_recipe()?;
            let (last, recipe_file) = (run.final_dir(), Some(run.recipe()));
            if !last.exists() && !matches!(recipe.adapter, AdapterConfig::None(_)) {
                let hint = "finish it with `lowrank train --resume=RUN`, or name one of its checkpoints";
                return Err(Error::input("the run has no final adapter yet").file(last).hint(hint).into());
            }
            if matches!(recipe.adapter, AdapterConfig::Full(_)) {
                let opened = models::open(&last.display().to_string(), here)?;
                return Ok(Self { opened, adapter: None, recipe: Some(recipe), recipe_file });
            }
            let base = base.map_or_else(|| recipe.model.path.clone(), |base| base.display().to_string());
            let adapter = recipe.adapter.spec().map(|_| last);
            return Ok(Self { opened: models::open(&base, here)?, adapter, recipe: Some(recipe), recipe_file });
        }
        if path.join(peft::CONFIG_FILE).exists() {
            return Self::over_base(path, base);
        }
        let opened = models::open(&path.display().to_string(), here)?;
        Ok(Self { opened, adapter: None, recipe: None, recipe_file: None })
    }

    fn over_base(path: &Path, base: Option<&Path>) -> Result<Self> {
        let run =
            path.ancestors().skip(1).take(2).filter_map(|dir| Layout::of(dir).ok()).find(|run| run.recipe().exists());
        let recipe = run.as_ref().map(Layout::read_recipe).transpose()?;
        let recipe_file = run.map(|run| run.recipe());
        let base = match (base, &recipe) {
            (Some(base), _) => base.display().to_string(),
            (None, Some(recipe)) => recipe.model.path.clone(),
            (None, None) => {
                let named = PeftConfig::read(&path.join(peft::CONFIG_FILE), "llama")?.base_model_name_or_path;
                let error = Error::input("the adapter's base model is not known").file(path);
                return Err(error.hint(format!("give it with `--base`; it was trained on `{named}`")).into());
            }
        };
        let opened = models::open(&base, Path::new(""))?;
        Ok(Self { opened, adapter: Some(path.to_path_buf()), recipe, recipe_file })
    }

    /// The model on a device, adapter attached; with warnings about the adapter's file.
    pub fn load(&self, target: &Target) -> Result<(Box<dyn Learner>, Vec<String>)> {
        let storage = self.recipe.as_ref().map(Recipe::storage).unwrap_or_default();
        let spec = BaseSpec { config: &self.opened.config, weights: self.opened.weights.as_ref(), storage };
        let base = target.runtime.load(target.index, &spec)?;
        match &self.adapter {
            None => Ok((attach_none(base.as_ref())?, Vec::new())),
            Some(dir) => {
                let (learner, config) = attach_saved(base.as_ref(), &self.opened.config, dir)?;
                Ok((learner, config.warnings))
            }
        }
    }
}
