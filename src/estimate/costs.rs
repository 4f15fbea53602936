//! Methods on a model: all of them side by side, or the one of a recipe.

use serde::Serialize;

use super::{Batch, Figure, Needs, Setup, file, in_blocks, trained, weights};
use crate::adapters::{AdapterConfig, LoftqPlan, Origin, Selected, Targets, saved};
use crate::error::InputError;
use crate::models::Outline;
use crate::recipe::{BaseStorage, Offload, Recipe, Task};
use crate::{Error, Result};

/// One method on a model.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    pub method: &'static str,
    /// None where there is none to choose.
    pub rank: Option<usize>,
    /// Modules that carry an adapter, and sums over them.
    pub modules: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub trainable: Figure,
    /// Bytes of the tensors' file in `final/`.
    pub file: Figure,
    /// Method and rank under which PEFT opens that file; none for a model of its own.
    pub saved_as: Option<(&'static str, usize)>,
    pub memory: Needs,
}

impl Costs {
    /// # Errors
    /// As [`file()`].
    pub fn of(setup: Setup<'_>, total_steps: usize) -> Result<Self> {
        let Setup { outline, adapter, selected, .. } = setup;
        let sides = selected.iter().map(Selected::outputs_and_inputs);
        let [outputs, inputs] = sides.fold([0, 0], |[outs, ins], [out, inp]| [outs + out, ins + inp]);
        let saved_as = adapter.spec().map(|spec| spec.saved_as(total_steps));
        Ok(Self {
            method: adapter.name(),
            rank: adapter.shared().map(|shared| shared.rank),
            modules: selected.len(),
            inputs,
            outputs,
            trainable: trained(outline, adapter, selected),
            file: file(outline, adapter, total_steps)?,
            saved_as: saved_as.map(|saved| (saved.name(), saved.shared().unwrap_or_default().rank)),
            memory: Needs::of(setup),
        })
    }
}

/// Every method at several ranks.
#[derive(Debug)]
pub struct Survey {
    /// The modules that carry an adapter.
    pub selected: Vec<Selected>,
    /// By method in the order of their table, `full` last; within it by rank.
    pub costs: Vec<Costs>,
    /// Why methods are left out, a sentence each.
    pub left_out: Vec<String>,
}

impl Survey {
    /// Methods with their defaults but for `ranks` and `targets`, and with it the scale.
    ///
    /// # Errors
    /// If no method can adapt these modules.
    pub fn of(outline: &Outline, targets: &Targets, ranks: &[usize], batch: Batch) -> Result<Self> {
        let mut survey = Self { selected: Vec::new(), costs: Vec::new(), left_out: Vec::new() };
        let mut refusal = None;
        for method in AdapterConfig::defaults() {
            let method = method.with_targets(targets)?;
            let selected = match method.select(&outline.modules, Origin::Recipe) {
                Ok(selected) => selected,
                Err(error) => {
                    survey.left_out.push(format!("{}: {error}", method.name()));
                    refusal.get_or_insert(error);
                    continue;
                }
            };
            for &rank in ranks {
                let adapter = method.with_rank(rank)?;
                let selected = adapter.select(&outline.modules, Origin::Recipe)?;
                survey.costs.push(costs(outline, &adapter, &selected, batch)?);
            }
            survey.selected = selected;
        }
        if let (true, Some(error)) = (survey.costs.is_empty(), refusal) {
            return Err(error);
        }
        survey.costs.push(costs(outline, &AdapterConfig::full(), &[], batch)?);
        Ok(survey)
    }
}

/// Of a run of any length.
fn costs(outline: &Outline, adapter: &AdapterConfig, selected: &[Selected], batch: Batch) -> Result<Costs> {
    let (gradient_checkpointing, offload) = (false, Offload::Device);
    let setup = Setup { outline, adapter, selected, batch, gradient_checkpointing, offload };
    Costs::of(setup, usize::MAX)
}

/// What a recipe's adapter costs on a model, which stands for the recipe's, at full batches of rows of `max_len` tokens that the
/// loss all counts; and the storage and bytes of the frozen weights.
///
/// # Errors
/// An input error naming `file` and the key that does not fit the model.
pub fn of_recipe(outline: &Outline, recipe: &Recipe, file: &str) -> Result<(Costs, BaseStorage, Figure)> {
    let mut adapter = recipe.adapter.clone();
    let table = format!("adapter.{}", adapter.name());
    in_recipe(file, &table, || adapter.settle_targets(outline.default_targets, &outline.model_type))?;
    let adapter = &adapter;
    let selected = in_recipe(file, &table, || {
        if let Some(shared) = adapter.shared() {
            saved(&outline.modules, &shared, Origin::Recipe)?;
        }
        adapter.select(&outline.modules, Origin::Recipe)
    })?;
    let storage = in_recipe(file, "", || storage(outline, recipe, &selected))?;
    if recipe.data.max_len > outline.max_position_embeddings {
        let error = Error::input("rows may be longer than the model's positions").file(file).key("data.max_len");
        let expected = format!("at most {}", outline.max_position_embeddings);
        return Err(error.found(recipe.data.max_len).expected(expected).into());
    }
    // A row has a source and a target, or two texts that should be alike.
    let texts = if matches!(recipe.task, Task::Seq2seqLm | Task::FeatureExtraction) { 2 } else { 1 };
    let trained = recipe.train.batch.saturating_mul(recipe.data.max_len);
    let setup = Setup {
        outline,
        adapter,
        selected: &selected,
        batch: Batch { tokens: trained.saturating_mul(texts), len: recipe.data.max_len, trained },
        gradient_checkpointing: recipe.train.gradient_checkpointing,
        offload: recipe.optim.offload,
    };
    let costs = Costs::of(setup, recipe.train.max_steps.unwrap_or(usize::MAX))?;
    Ok((costs, storage, weights(outline, storage.dtype, in_blocks(storage))))
}

/// As the recipe says, or as the checkpoint is quantised already.
fn storage(outline: &Outline, recipe: &Recipe, selected: &[Selected]) -> Result<BaseStorage> {
    let asked = recipe.storage();
    let Some(own) = outline.quant else { return Ok(asked) };
    let refused = |what: &str, key: &str| Err(Error::input(what).key(key).found(own.describe()).into());
    match (&recipe.adapter, asked.quant) {
        (_, Some(quant)) if quant != own => {
            refused("the checkpoint is quantised already, in another format", "base.quant")
        }
        (AdapterConfig::Full(_), _) => {
            refused("[adapter.full] trains every weight, and the model's are quantised", "adapter.full")
        }
        (adapter, _) if LoftqPlan::new(adapter, selected).is_some() => {
            let key = format!("adapter.{}.init", adapter.name());
            refused("LoftQ needs a checkpoint that is not quantised yet", &key)
        }
        _ => Ok(BaseStorage { quant: Some(own), ..asked }),
    }
}

/// Input errors of `check` with the recipe's file, and their keys in full.
fn in_recipe<T>(file: &str, table: &str, check: impl FnOnce() -> Result<T>) -> Result<T> {
    let place = |mut problem: InputError| {
        if let Some(("key", key)) = &mut problem.place
            && !table.is_empty()
        {
            *key = format!("{table}.{key}");
        }
        problem.file(file)
    };
    check().map_err(|error| match error {
        Error::Input(problem) => place(*problem).into(),
        Error::Inputs(problems) => Error::Inputs(problems.into_iter().map(place).collect()),
        other => other,
    })
}
