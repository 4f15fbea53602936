//! Everything a run needs, checked before anything is written or put on a device.

use std::path::PathBuf;
use std::rc::Rc;

use super::cursor::Cursor;
use super::estimate::estimate;
use super::inputs::Inputs;
use crate::adapters::{AdapterConfig, LoftqPlan, Module, Origin, Pilot, Progress, Selected, saved};
use crate::data::Splits;
use crate::estimate::{parameters, weights};
use crate::events::Memory;
use crate::models::{Opened, Outline, Stored, WeightSource};
use crate::recipe::{BaseStorage, Recipe, Resolved, plan_adapter};
use crate::runtime::{DeviceInfo, Runtime};
use crate::{Error, Result};

/// A device to train on.
#[derive(Clone)]
pub struct Target {
    pub runtime: &'static dyn Runtime,
    /// Its index among the runtime's devices.
    pub index: usize,
    pub device: DeviceInfo,
}

/// How a run is started, beside its recipe.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Run directory; `runs/<date>-<recipe>` when absent.
    pub out: Option<PathBuf>,
    /// Go on with this run or checkpoint; with an inner `None`, with the newest run of the recipe.
    pub resume: Option<Option<PathBuf>>,
}

/// A recipe whose model, data and targets have been found and fit together.
pub struct Job {
    pub recipe: Recipe,
    /// What the user called the recipe.
    pub name: String,
    pub overrides: usize,
    pub target: Target,
    pub opened: Rc<Opened>,
    /// How the base is kept: as the recipe says, or as the checkpoint is quantised already.
    pub storage: BaseStorage,
    pub splits: Rc<Splits>,
    /// Modules that will carry an adapter.
    pub selected: Vec<Selected>,
    /// Parameters that will train, and all.
    pub trainable: usize,
    pub total: usize,
    /// Optimizer steps of the whole run.
    pub steps: usize,
    pub memory: Memory,
    /// Hears of the layers that are quantised around a start with LoftQ, which takes its time.
    pub progress: Progress,
}

impl Job {
    /// Opens model and data and checks that they fit the recipe. Writes nothing.
    pub fn prepare(resolved: &Resolved, target: &Target) -> Result<Self> {
        Self::prepare_beside(resolved, target, None)
    }

    /// The same; model and data that `other` has opened already are shared with it.
    pub fn prepare_beside(resolved: &Resolved, target: &Target, other: Option<&Job>) -> Result<Self> {
        // What is written beside the results must mean the same from wherever it is read again.
        let mut recipe = resolved.anchored();
        let Inputs { opened, splits } = Inputs::open(&mut recipe, resolved, other)?;
        let (storage, base) = {
            let stored = Stored::new(opened.weights.as_ref(), recipe.storage())?;
            let bytes =
                weights(&Outline::of(&opened.config), stored.storage().dtype, |name, _| stored.four_bit_format(name));
            (stored.storage(), bytes.value)
        };
        refuse_to_train_codes(&recipe, storage)?;
        let modules = Module::list(&opened.config);
        if let Some(shared) = recipe.adapter.shared() {
            saved(&modules, &shared, Origin::Recipe)?;
        }
        let selected = recipe.adapter.select(&modules, Origin::Recipe)?;
        Stored::new(opened.weights.as_ref(), storage)?.around(LoftqPlan::new(&recipe.adapter, &selected))?;
        if recipe.data.max_len > opened.config.positions() {
            return Err(Error::input("rows may be longer than the model's positions")
                .key("data.max_len")
                .found(recipe.data.max_len)
                .expected(format!("at most {}", opened.config.positions()))
                .into());
        }
        let steps = steps(&recipe, splits.train.sequences.len());
        plan_adapter(&mut recipe.adapter, steps)?;
        let (name, overrides) = (resolved.name.clone(), resolved.overrides);
        let (target, memory) = (target.clone(), Memory { base, ..Memory::default() });
        let (trainable, total) = (0, 0);
        let progress: Progress = |_, _| {};
        let mut job = Self {
            recipe,
            name,
            overrides,
            target,
            opened,
            storage,
            splits,
            selected,
            trainable,
            total,
            steps,
            memory,
            progress,
        };
        job.count();
        Ok(job)
    }

    /// The layers that start with LoftQ, if any do.
    pub(super) fn loftq(&self) -> Option<LoftqPlan> {
        LoftqPlan::new(&self.recipe.adapter, &self.selected)
    }

    /// What must come first, where the recipe leaves something open.
    pub(super) fn pilot(&self) -> Option<&dyn Pilot> {
        self.recipe.adapter.spec()?.pilot()
    }

    /// Goes on under `adapter`, which decides what the recipe left open about the same modules.
    pub(super) fn settle(&mut self, adapter: AdapterConfig) {
        self.recipe.adapter = adapter;
        self.count();
    }

    /// Parameters and memory, as the recipe stands.
    fn count(&mut self) {
        let outline = Outline::of(&self.opened.config);
        (self.trainable, self.total) = parameters(&outline, &self.recipe.adapter, &self.selected);
        self.memory = estimate(&outline, &self.recipe, self.memory.base, &self.splits, &self.selected);
    }
}

/// `base.quant` has been refused already where every weight trains; a checkpoint may be quantised without it.
fn refuse_to_train_codes(recipe: &Recipe, storage: BaseStorage) -> Result<()> {
    match (&recipe.adapter, storage.quant) {
        (AdapterConfig::Full(_), Some(quant)) => {
            let error = Error::input("[adapter.full] trains every weight, and these are quantised").key("model.path");
            let hint =
                "train an adapter over them, or write the weights in floats first: `lowrank merge MODEL --base-only`";
            Err(error.found(quant.describe()).hint(hint).into())
        }
        _ => Ok(()),
    }
}

/// `max_steps` when given, over as many epochs as that takes; else `epochs`; nothing trains with `none`.
fn steps(recipe: &Recipe, rows: usize) -> usize {
    let train = &recipe.train;
    match recipe.adapter {
        AdapterConfig::None(_) => 0,
        _ => train
            .max_steps
            .unwrap_or_else(|| train.epochs * Cursor::steps_per_epoch(rows, train.batch, train.accumulate)),
    }
}
