//! Between our parameters by path and the tensors of PEFT's file.

use super::slot::{Part, Slot};
use crate::Result;
use crate::adapters::{AdapterConfig, Module, Origin};
use crate::tensors::HostTensors;

/// Values by path under the names that PEFT gives them. `config` is one that PEFT has.
pub fn to_file(values: HostTensors, config: &AdapterConfig, modules: &[Module]) -> Result<HostTensors> {
    let adapted = config.select(modules, Origin::AdapterFile)?;
    let mut names = std::collections::HashMap::new();
    if let Some(spec) = config.spec() {
        let common = spec.common_parts(&adapted).into_iter().map(|(part, _)| Slot::common(part));
        let own =
            adapted.iter().flat_map(|site| spec.parts(site).into_iter().map(|(part, _)| Slot::new(&site.path, part)));
        names.extend(common.chain(own).filter_map(|slot| Some((slot.parameter()?, slot))));
    }
    let slot = |path: &str| {
        if let Some(slot) = names.get(path) {
            return slot.key();
        }
        let (module, field) = path.rsplit_once('.').unwrap_or(("", path));
        let part = match field {
            "bias" if adapted.iter().any(|site| site.path == module) => Part::BaseLayerBias,
            "bias" => Part::Bias,
            _ => Part::Weight,
        };
        Slot::new(module, part).key()
    };
    Ok(values.into_iter().map(|(path, tensor)| (slot(&path), tensor)).collect())
}

/// Values by path from a file's tensors. Copies of frozen weights, which PEFT keeps beside an embedding's adapter, are left out,
/// and so are the empty tensors of modules of rank 0.
pub fn from_file(tensors: HostTensors) -> HostTensors {
    let path = |key: &str| Slot::parse(key)?.parameter();
    let tensors = tensors.into_iter().filter(|(_, tensor)| !tensor.values.is_empty());
    tensors.filter_map(|(key, tensor)| Some((path(&key)?, tensor))).collect()
}
