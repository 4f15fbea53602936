//! What a recipe leaves to the model: its targets, and the head that trains beside the adapter.

use crate::adapters::{Module, ModuleKind, OpenKeys, Targets};
use crate::models::ModelConfig;
use crate::models::families::ModelType;
use crate::recipe::{Recipe, Task};
use crate::{Error, Result};

/// Writes into `recipe` what follows from the model.
///
/// # Errors
/// Targets that are left out, where PEFT has none for the family either.
pub fn fit_to_model(recipe: &mut Recipe, config: &ModelConfig) -> Result<()> {
    let method = recipe.adapter.name();
    let Some(OpenKeys { targets, modules_to_save }) = recipe.adapter.open_keys() else { return Ok(()) };
    if *targets == Targets::of_family() {
        let own = ModelType::find(&config.model_type).map_or(&[][..], |row| row.default_targets);
        if own.is_empty() {
            let error = Error::input("which layers are adapted must be said for this family of models");
            let error = error.key(format!("adapter.{method}.targets")).found(format!("a {}", config.model_type));
            return Err(error.hint("`targets = \"all-linear\"` adapts every linear layer").into());
        }
        *targets = Targets::Names(own.iter().map(ToString::to_string).collect());
    }
    for name in head_names(config) {
        if !modules_to_save.contains(&name) {
            modules_to_save.push(name);
        }
    }
    Ok(())
}

/// What PEFT calls the parts of a task's head, which train whole; none of a head that predicts tokens.
fn head_names(config: &ModelConfig) -> Vec<String> {
    if matches!(config.task, Task::CausalLm | Task::Seq2seqLm) {
        return Vec::new();
    }
    let own = |module: &Module| module.kind == ModuleKind::Head;
    let layers = config.head().layers.into_iter().filter(|layer| own(&layer.module));
    let mut names: Vec<String> = Vec::new();
    for path in layers.map(|layer| layer.module.path) {
        let name = path.split('.').next().unwrap_or(&path).to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
