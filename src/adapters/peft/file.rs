//! `adapter_model.safetensors`: the tensors of an adapter under PEFT's names.

use std::path::Path;

use super::{Slot, check, stacked};
use crate::adapters::{AdapterConfig, Module};
use crate::tensors::{self, HostTensors};
use crate::{Error, Result};

/// Tensors by their name in the file, sorted.
pub type AdapterTensors = HostTensors;

/// Reads a whole adapter file as f32 and checks every tensor against the configuration and the
/// modules of the model.
pub(super) fn read(
    path: &Path,
    config: &AdapterConfig,
    model_type: &str,
    modules: &[Module],
    warnings: &mut Vec<String>,
) -> Result<AdapterTensors> {
    let bytes = std::fs::read(path).map_err(Error::unreadable(path))?;
    let mut tensors = tensors::decode(&bytes, path)?;
    tensors.retain(|name, _| !is_leak(name));
    let all = tensors.len();
    tensors.retain(|name, _| !is_of_absent_pooler(name, modules));
    if tensors.len() < all {
        warnings.push("the adapter of the pooler is passed over: nothing is computed with it here".into());
    }
    tensors::check_finite(&tensors).map_err(|error| error.file(path))?;
    let checked = stacked::apart(tensors, model_type, modules).and_then(|tensors| {
        check::tensors(&tensors, config, modules)?;
        Ok(tensors)
    });
    checked.map_err(|error| match error {
        Error::Input(problem) => problem.file(path).into(),
        Error::Inputs(problems) => Error::Inputs(problems.into_iter().map(|problem| problem.file(path)).collect()),
        other => other,
    })
}

/// With `bias="all"` PEFT saves the bias of a module that trains whole three times: under its own
/// name, and by oversight under the names of its two copies in memory.
fn is_leak(name: &str) -> bool {
    name.contains(".modules_to_save.") || name.contains(".original_module.")
}

/// `all-linear` of PEFT also adapts the pooler of a BERT that is asked for the hidden states alone, and never trains it.
fn is_of_absent_pooler(name: &str, modules: &[Module]) -> bool {
    let slot = Slot::parse(name).filter(|slot| slot.path.ends_with("pooler.dense"));
    slot.is_some_and(|slot| modules.iter().all(|module| module.path != slot.path))
}
