//! What a recipe leaves to the model: its targets, and the head that trains beside the adapter.

use crate::adapters::{Module, ModuleKind, OpenKeys};
use crate::models::ModelConfig;
use crate::models::families::ModelType;
use crate::recipe::Recipe;
use crate::{Error, Result};

/// Writes into `recipe` what follows from the model.
///
/// # Errors
/// Targets that are left out, where PEFT has none for the family either.
pub fn fit_to_model(recipe: &mut Recipe, config: &ModelConfig) -> Result<()> {
    let own = ModelType::find(&config.model_type).map_or(&[][..], |row| row.default_targets);
    if let Err(error) = recipe.adapter.settle_targets(own, &config.model_type) {
        let key = format!("adapter.{}.targets", recipe.adapter.name());
        return Err(match error {
            Error::Input(problem) => problem.key(key).into(),
            other => other,
        });
    }
    let Some(OpenKeys { modules_to_save, .. }) = recipe.adapter.open_keys() else { return Ok(()) };
    for name in head_names(config) {
        if !modules_to_save.contains(&name) {
            modules_to_save.push(name);
        }
    }
    Ok(())
}

/// What PEFT calls the parts of a task's head, which train whole; none of a head that predicts tokens.
fn head_names(config: &ModelConfig) -> Vec<String> {
    if config.task.predicts_tokens() {
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
