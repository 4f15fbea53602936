//! Which tensors a merged model has, and what each is made of.

use std::collections::HashSet;

use crate::adapters::peft::{AdapterTensors, Part, Slot};
use crate::adapters::{AdapterConfig, Module, Origin, Selected, Spec, Update};
use crate::models::arranged::is_of_head;
use crate::models::{ModelConfig, WeightSource};
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

pub(super) struct Plan<'a> {
    /// In the order of the file.
    pub outputs: Vec<Output<'a>>,
    pub untied: bool,
}

/// One tensor of the merged model.
pub(super) struct Output<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values<'a>,
    pub update: Option<Update>,
}

/// Where the values before the update come from.
pub(super) enum Values<'a> {
    Base(String),
    Adapter(&'a HostTensor),
}

impl Output<'_> {
    pub fn is_changed(&self) -> bool {
        self.update.is_some() || matches!(self.values, Values::Adapter(_))
    }
}

/// The tensors of `base` with everything in `tensors` put in its place.
pub(super) fn plan<'a>(
    base: &dyn WeightSource,
    config: &ModelConfig,
    modules: &[Module],
    adapter: &AdapterConfig,
    tensors: &'a AdapterTensors,
) -> Result<Plan<'a>> {
    let adapted = adapter.select(modules, Origin::AdapterFile)?;
    let spec = adapter.spec().ok_or_else(|| Error::input(format!("nothing to merge: `{}`", adapter.name())))?;
    let mut planner =
        Planner { base, tensors, adapted: &adapted, spec, common: HostTensors::new(), used: HashSet::new() };
    planner.take_common()?;
    let [embedding, head] = Module::vocabulary(modules).map(|module| module.map(|module| module.path.as_str()));
    let head = head.filter(|_| config.tie_word_embeddings);
    // Buffers, heads of other tasks and the copy of a tied head stay behind.
    let known: HashSet<String> = config.tensors().into_iter().map(|(name, _)| name).collect();
    let ignored = config.architecture.family().ignored();
    let stays = |name: &String| ignored.iter().any(|end| name.ends_with(end)) || is_of_head(name);
    let mut outputs = Vec::new();
    for name in base.names().into_iter().filter(|name| known.contains(name) || !stays(name)) {
        outputs.push(planner.output(&name, &name)?);
    }
    let mut untied = false;
    if let (Some(head), Some(embedding)) = (head, embedding) {
        untied =
            tensors.keys().filter_map(|key| Slot::parse(key)).any(|slot| slot.path == head || slot.path == embedding);
        if untied {
            let mut output = planner.output(&format!("{head}.weight"), &format!("{embedding}.weight"))?;
            let shared = tensors.get(&Slot::new(embedding, Part::BaseLayerWeight).key());
            if let (Values::Base(_), Some(shared)) = (&output.values, shared) {
                output.values = Values::Adapter(shared);
            }
            outputs.push(output);
        }
    }
    let homeless: Vec<_> =
        tensors.keys().filter(|key| !planner.used.contains(*key)).map(String::as_str).take(10).collect();
    if !homeless.is_empty() {
        let problem = Error::input("the base has no place for tensors of the adapter").file(base.path());
        return Err(problem.found(homeless.join(", ")).into());
    }
    outputs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Plan { outputs, untied })
}

struct Planner<'a, 'b> {
    base: &'b dyn WeightSource,
    tensors: &'a AdapterTensors,
    adapted: &'b [Selected],
    spec: &'b dyn Spec,
    /// What the modules share.
    common: HostTensors,
    /// Tensors of the adapter that have found their place.
    used: HashSet<String>,
}

impl<'a> Planner<'a, '_> {
    /// The tensor `name`, whose frozen values are the base's `source`.
    fn output(&mut self, name: &str, source: &str) -> Result<Output<'a>> {
        let shape =
            self.base.shape(source).ok_or_else(|| Error::input("missing").file(self.base.path()).tensor(source))?;
        let (path, parts) = match name.rsplit_once('.') {
            Some((path, "weight")) => (path, &[Part::Weight, Part::BaseLayerWeight][..]),
            Some((path, "bias")) => (path, &[Part::Bias, Part::BaseLayerBias][..]),
            _ => (name, &[][..]),
        };
        let replacement = parts.iter().find_map(|part| self.take(path, *part));
        let values = replacement.map_or_else(|| Values::Base(source.to_string()), Values::Adapter);
        let adapter = self.adapted.iter().find(|site| site.path == path && name.ends_with(".weight"));
        let update = adapter.map(|adapter| self.update(adapter)).transpose()?.filter(|update| update.rank > 0);
        let rows_and_cols = adapter.map(|adapter| vec![adapter.rows, adapter.cols]);
        let expected =
            replacement.map(|tensor| tensor.shape.clone()).or(rows_and_cols).unwrap_or_else(|| shape.clone());
        if shape != expected {
            let problem = Error::input("the adapter does not fit the base").file(self.base.path()).tensor(name);
            return Err(problem.found(format!("{shape:?}")).expected(format!("{expected:?}")).into());
        }
        Ok(Output { name: name.to_string(), shape, values, update })
    }

    fn update(&mut self, site: &Selected) -> Result<Update> {
        let mut values = self.common.clone();
        for (part, _) in self.spec.parts(site) {
            self.put(Slot::new(&site.path, part), &mut values)?;
        }
        self.spec.update(site, &values)
    }

    fn take_common(&mut self) -> Result<()> {
        let mut values = self.spec.derived(self.adapted);
        for (part, _) in self.spec.common_parts(self.adapted) {
            self.put(Slot::common(part), &mut values)?;
        }
        self.common = values;
        Ok(())
    }

    fn put(&mut self, slot: Slot, into: &mut HostTensors) -> Result<()> {
        let found = self.take(&slot.path, slot.part);
        let found = found.ok_or_else(|| Error::from(Error::input("missing from the adapter").tensor(slot.key())))?;
        into.extend(slot.parameter().map(|path| (path, found.clone())));
        Ok(())
    }

    fn take(&mut self, path: &str, part: Part) -> Option<&'a HostTensor> {
        let key = Slot::new(path, part).key();
        let tensor = self.tensors.get(&key)?;
        self.used.insert(key);
        Some(tensor)
    }
}
