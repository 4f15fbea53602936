//! Whether the tensors of an adapter file are those that its configuration promises for this model.

use super::file::AdapterTensors;
use super::slot::{Part, Slot};
use crate::adapters::{AdapterConfig, Module, ModuleKind, Origin, Selected, saved};
use crate::error::InputError;
use crate::tensors::HostTensor;
use crate::{Error, Result};

/// Names listed in an error before it says how many more there are.
const LISTED: usize = 10;

/// Every tensor must belong to a module the configuration adapts (or saves whole), have the shape
/// that module gives it, and none may be missing.
pub(super) fn tensors(tensors: &AdapterTensors, config: &AdapterConfig, modules: &[Module]) -> Result<()> {
    let adapted = config.select(modules, Origin::AdapterFile)?;
    let saved = saved(modules, &config.shared().unwrap_or_default(), Origin::AdapterFile)?;
    let own = adapter_tensors(config, &adapted);
    let mut foreign = Vec::new();
    for (name, tensor) in tensors {
        let shape = own.iter().find(|(key, _)| key == name).map(|(_, shape)| shape.clone()).or_else(|| {
            let slot = Slot::parse(name)?;
            let module = modules.iter().find(|module| module.path == slot.path)?;
            base_shape(slot.part, module, adapted.iter().any(|adapter| adapter.path == slot.path), &saved)
        });
        match shape {
            Some(expected) => same_shape(name, tensor, &expected)?,
            None => foreign.push(name.as_str()),
        }
    }
    let mut expected: Vec<String> = own.into_iter().map(|(key, _)| key).collect();
    if foreign.len() == tensors.len() {
        let what = "no tensor of the adapter belongs to a module it adapts in this model";
        return Err(Error::input(what).found(list(&foreign)).expected(list(&expected)).into());
    }
    expected.extend(saved.iter().map(|module| Slot::new(&module.path, Part::Weight).key()));
    let missing: Vec<_> = expected.iter().filter(|name| !tensors.contains_key(*name)).collect();
    let mut problems = Vec::new();
    let (common, foreign): (Vec<_>, Vec<_>) = foreign.into_iter().partition(|name| is_common(name));
    if !common.is_empty() {
        let what = "the file has tensors that all modules share, and its configuration does not announce them";
        let hint = "`save_projection` announces VeRA's projections; without it they are drawn from the key";
        problems.push(InputError::new(what).found(list(&common)).hint(hint));
    }
    if !foreign.is_empty() {
        let what = format!("{} tensors belong to no module that the adapter adapts in this model", foreign.len());
        problems.push(InputError::new(what).found(list(&foreign)));
    }
    if !missing.is_empty() {
        problems.push(InputError::new(format!("{} tensors are missing", missing.len())).expected(list(&missing)));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Inputs(problems)) }
}

fn is_common(name: &str) -> bool {
    Slot::parse(name).is_some_and(|slot| slot.part.is_common())
}

/// Names and shapes of the tensors of the method itself.
fn adapter_tensors(config: &AdapterConfig, adapted: &[Selected]) -> Vec<(String, Vec<usize>)> {
    let Some(spec) = config.spec() else { return Vec::new() };
    let common = spec.common_parts(adapted).into_iter().map(|(part, shape)| (Slot::common(part).key(), shape));
    let own = |site: &Selected| {
        let path = site.path.clone();
        spec.parts(site).into_iter().map(move |(part, shape)| (Slot::new(&path, part).key(), shape))
    };
    common.chain(adapted.iter().flat_map(own)).collect()
}

/// The shape that a tensor of the base must have, or `None` if the configuration has no place for it.
fn base_shape(part: Part, module: &Module, adapted: bool, saved: &[&Module]) -> Option<Vec<usize>> {
    match (part, adapted) {
        (Part::BaseLayerWeight, true) => Some(module.weight_shape()),
        (Part::BaseLayerBias, true) | (Part::Bias, false) if module.is_adaptable() || module.biased => {
            Some(vec![module.rows])
        }
        // PEFT also saves embeddings and heads that nobody adapted, when the vocabulary was resized.
        (Part::Weight, false) if is_vocabulary(module) || saved.contains(&module) => Some(module.weight_shape()),
        _ => None,
    }
}

fn is_vocabulary(module: &Module) -> bool {
    matches!(module.kind, ModuleKind::Embedding | ModuleKind::Head)
}

fn same_shape(name: &str, tensor: &HostTensor, expected: &[usize]) -> Result<()> {
    if tensor.shape == expected {
        return Ok(());
    }
    let problem = Error::input("the shape is not what the configuration and the model ask for")
        .tensor(name)
        .found(format!("{:?}", tensor.shape))
        .expected(format!("{expected:?}"));
    Err(problem.hint("either `r` or `rank_pattern` is wrong, or the adapter belongs to another model").into())
}

fn list(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<_> = names.iter().take(LISTED).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(LISTED);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::modules::tiny;
    use crate::adapters::{LoraConfig, Targets};

    fn modules() -> Vec<Module> {
        Module::list(&tiny::llama())
    }

    fn config() -> AdapterConfig {
        LoraConfig { rank: 4, targets: Targets::Names(vec!["q_proj".into()]), ..LoraConfig::default() }.into()
    }

    fn adapter() -> AdapterTensors {
        let adapted = config().select(&modules(), Origin::AdapterFile).unwrap();
        let tensors = adapter_tensors(&config(), &adapted).into_iter();
        tensors.map(|(name, shape)| (name, HostTensor { shape, values: vec![0.0; 384] })).collect()
    }

    fn refusal(change: impl FnOnce(&mut AdapterTensors)) -> String {
        let mut adapter = adapter();
        change(&mut adapter);
        tensors(&adapter, &config(), &modules()).unwrap_err().to_string()
    }

    const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

    #[test]
    fn every_tensor_has_a_place_and_every_place_a_tensor() {
        tensors(&adapter(), &config(), &modules()).unwrap();
        let missing = refusal(|adapter| drop(adapter.shift_remove(A)));
        assert!(missing.contains("1 tensors are missing") && missing.contains(A), "{missing}");
        for foreign in [A.replace("q_proj", "v_proj"), A.replace("layers.0", "layers.7"), A.replace("weight", "bias")] {
            let message = refusal(|adapter| drop(adapter.insert(foreign.clone(), HostTensor::default())));
            assert!(message.contains("belong to no module") && message.contains(&foreign), "{message}");
        }
    }

    #[test]
    fn a_rank_that_is_not_the_configured_one_names_the_tensor() {
        let message = refusal(|adapter| adapter[A].shape = vec![8, 96]);
        assert!(message.contains(A) && message.contains("[8, 96]") && message.contains("[4, 96]"), "{message}");
    }

    #[test]
    fn an_adapter_for_another_model_is_refused_as_a_whole() {
        let message = refusal(|adapter| {
            *adapter =
                adapter.drain(..).map(|(name, tensor)| (name.replace("model.layers", "gpt.h"), tensor)).collect();
        });
        assert!(message.contains("no tensor of the adapter belongs"), "{message}");
    }
}
