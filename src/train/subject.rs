//! Something a user points at: a run, an adapter over its base, or a plain model.

use std::path::{Path, PathBuf};

use super::artifact::{attach_none, attach_saved};
use super::job::Target;
use crate::adapters::peft::{self, Part, PeftConfig, Slot};
use crate::adapters::{AdapterConfig, Factors, Loftq, LoftqPlan, Progress};
use crate::checkpoint::Layout;
use crate::models::{self, Opened, Stored, generic_label};
use crate::recipe::{BaseStorage, Recipe, Task};
use crate::runtime::{BaseSpec, Learner};
use crate::{Error, Result, tensors};

/// A model to evaluate, to talk to or to merge.
pub struct Subject {
    pub opened: Opened,
    /// Directory of the adapter, if there is one.
    pub adapter: Option<PathBuf>,
    /// Recipe of the run it came from, and its file.
    pub recipe: Option<Recipe>,
    pub recipe_file: Option<PathBuf>,
    /// Hears of the layers that are quantised as for a start with LoftQ, which takes its time.
    pub progress: Progress,
}

impl Subject {
    /// `path` is a run directory, an adapter directory (over `base`), or a model.
    ///
    /// # Errors
    /// An adapter outside a run needs `base`: the path its own file names is shown, never followed.
    pub fn open(path: &Path, base: Option<&Path>) -> Result<Self> {
        Self::opened(path, base, None)
    }

    /// The same for a task, whatever the model was for.
    ///
    /// # Errors
    /// Of [`Self::open`], and where the family cannot do the task.
    pub fn open_for(path: &Path, base: Option<&Path>, task: Task) -> Result<Self> {
        Self::opened(path, base, Some(task))
    }

    fn opened(path: &Path, base: Option<&Path>, task: Option<Task>) -> Result<Self> {
        let (here, progress): (_, Progress) = (Path::new(""), |_, _| {});
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
                let opened = models::open_for(&last.display().to_string(), here, task)?;
                return Ok(Self { opened, adapter: None, recipe: Some(recipe), recipe_file, progress });
            }
            let base = base.map_or_else(|| recipe.model.path.clone(), |base| base.display().to_string());
            let adapter = recipe.adapter.spec().map(|_| last);
            let opened = models::open_for(&base, here, task.or(Some(recipe.task)))?.with_labels(&recipe.head.labels)?;
            return Ok(Self { opened, adapter, recipe: Some(recipe), recipe_file, progress });
        }
        if path.join(peft::CONFIG_FILE).exists() {
            return Self::over_base(path, base, task, progress);
        }
        let opened = models::open_for(&path.display().to_string(), here, task)?;
        Ok(Self { opened, adapter: None, recipe: None, recipe_file: None, progress })
    }

    fn over_base(path: &Path, base: Option<&Path>, task: Option<Task>, progress: Progress) -> Result<Self> {
        let run = run_around(path);
        let recipe = run.as_ref().map(Layout::read_recipe).transpose()?;
        let recipe_file = run.map(|run| run.recipe());
        let named = || PeftConfig::read(&path.join(peft::CONFIG_FILE), "llama");
        let base = match (base, &recipe) {
            (Some(base), _) => base.display().to_string(),
            (None, Some(recipe)) => recipe.model.path.clone(),
            (None, None) => {
                let named = named()?.base_model_name_or_path;
                let error = Error::input("the adapter's base model is not known").file(path);
                return Err(error.hint(format!("give it with `--base`; it was trained on `{named}`")).into());
            }
        };
        let task = match (task, &recipe) {
            (Some(task), _) => Some(task),
            (None, Some(recipe)) => Some(recipe.task),
            (None, None) => named()?.task(),
        };
        let opened = models::open_for(&base, Path::new(""), task)?;
        let labels = match &recipe {
            Some(recipe) => recipe.head.labels.clone(),
            None => saved_labels(path, &opened)?,
        };
        let (opened, adapter) = (opened.with_labels(&labels)?, Some(path.to_path_buf()));
        Ok(Self { opened, adapter, recipe, recipe_file, progress })
    }

    /// How the base of the run was quantised, where that is not plainly; see [`LoftqPlan::owns_base`]. A checkpoint that is quantised already
    /// is such a base itself.
    ///
    /// # Errors
    /// If the recipe of the run does not fit the model.
    pub fn own_base(&self) -> Result<Option<LoftqPlan>> {
        match &self.recipe {
            Some(recipe) if !self.opened.is_quantised() => LoftqPlan::own_base(&recipe.adapter, &self.opened.config),
            _ => Ok(None),
        }
    }

    /// How the recipe, if there is one, has the base stored.
    pub fn storage(&self) -> BaseStorage {
        self.recipe.as_ref().map(Recipe::storage).unwrap_or_default()
    }

    /// The base as the run has it stored.
    ///
    /// # Errors
    /// If the recipe asks for another four-bit format than the base's files have.
    pub fn stored(&self) -> Result<Stored<'_>> {
        Stored::new(self.opened.weights.as_ref(), self.storage())?.around(self.own_base()?)
    }

    /// Whether it is a run that trained every weight, so that its model is no base.
    pub fn is_whole(&self) -> bool {
        self.recipe.as_ref().is_some_and(|recipe| matches!(recipe.adapter, AdapterConfig::Full(_)))
    }

    /// The model on a device, adapter attached; with warnings about the adapter's file.
    pub fn load(&self, target: &Target) -> Result<(Box<dyn Learner>, Vec<String>)> {
        let (plan, storage) = (self.own_base()?, self.storage());
        let loftq = plan.as_ref().map(|plan| Loftq { plan, factors: Factors::Skip, progress: self.progress });
        let spec = BaseSpec { config: &self.opened.config, weights: self.opened.weights.as_ref(), storage, loftq };
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

/// What the outputs of an adapter's own head stand for: the model's labels, where it has as many; else they have no names.
fn saved_labels(adapter: &Path, opened: &Opened) -> Result<Vec<String>> {
    let Some(last) = opened.config.head().layers.pop().filter(|_| opened.config.task.has_labels()) else {
        return Ok(Vec::new());
    };
    let file = adapter.join(peft::TENSORS_FILE);
    let bytes = std::fs::read(&file).map_err(Error::unreadable(&file))?;
    let name = Slot::new(&last.module.path, Part::Weight).key();
    let outputs = tensors::decode(&bytes, &file)?.get(&name).map(|tensor| tensor.shape[0]);
    let own = &opened.config.labels;
    Ok(match outputs {
        Some(outputs) if outputs != own.len() && outputs > 1 => (0..outputs).map(generic_label).collect(),
        _ => own.clone(),
    })
}

/// The run that an adapter directory inside of it belongs to.
pub(super) fn run_around(path: &Path) -> Option<Layout> {
    path.ancestors().skip(1).take(2).filter_map(|dir| Layout::of(dir).ok()).find(|run| run.recipe().exists())
}
