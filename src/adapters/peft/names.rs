//! Between our parameters by path and the tensors of PEFT's file.

use std::collections::HashSet;

use super::slot::{Part, Slot};
use crate::Result;
use crate::adapters::{AdapterConfig, Module, Origin, Selected, trainable};
use crate::models::Outline;
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
        beside(path, |module| adapted.iter().any(|site| site.path == module))
    };
    Ok(values.into_iter().map(|(path, tensor)| (slot(&path), tensor)).collect())
}

/// Names and shapes of the tensors that [`to_file`] makes of a trained adapter, which `config` is as PEFT has it.
pub fn file_shapes(config: &AdapterConfig, outline: &Outline) -> Result<Vec<(String, Vec<usize>)>> {
    let adapted = config.select(&outline.modules, Origin::AdapterFile)?;
    let Some(spec) = config.spec() else { return Ok(Vec::new()) };
    let common = spec.common_parts(&adapted).into_iter().map(|(part, shape)| (Slot::common(part).key(), shape));
    let own = |site: &Selected| {
        let path = site.path.clone();
        spec.parts(site).into_iter().map(move |(part, shape)| (Slot::new(path.clone(), part).key(), shape))
    };
    let mut shapes: Vec<_> = common.chain(adapted.iter().filter(|site| site.rank > 0).flat_map(own)).collect();
    let adapters = spec.trains(&adapted);
    let sites: HashSet<&str> = adapted.iter().map(|site| site.path.as_str()).collect();
    for (path, shape) in
        trainable(outline, config, &adapted).into_iter().filter(|(path, _)| !adapters.contains_key(path))
    {
        shapes.push((beside(&path, |module| sites.contains(module)), shape));
    }
    Ok(shapes)
}

/// The name of a bias, or of the weight of a module that trains whole.
fn beside(path: &str, is_adapted: impl Fn(&str) -> bool) -> String {
    let (module, field) = path.rsplit_once('.').unwrap_or(("", path));
    let part = match field {
        "bias" if is_adapted(module) => Part::BaseLayerBias,
        "bias" => Part::Bias,
        _ => Part::Weight,
    };
    Slot::new(module, part).key()
}

/// Values by path from a file's tensors. Copies of frozen weights, which PEFT keeps beside an embedding's adapter, are left out,
/// and so are the empty tensors of modules of rank 0.
pub fn from_file(tensors: HostTensors) -> HostTensors {
    let path = |key: &str| Slot::parse(key)?.parameter();
    let tensors = tensors.into_iter().filter(|(_, tensor)| !tensor.values.is_empty());
    tensors.filter_map(|(key, tensor)| Some((path(&key)?, tensor))).collect()
}
