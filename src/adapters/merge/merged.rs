//! A model with an adapter folded in, as a source of weights: each is computed when it is read.

use std::collections::HashSet;
use std::path::Path;

use lowrank_kernels::four_bit::{Format, Quantised};

use super::output::{self, Output, Plan, Values};
use super::{AdapterTensors, OutDtype, PeftConfig, apply};
use crate::adapters::Module;
use crate::models::{ModelConfig, WeightSource, is_linear_of_block};
use crate::{Error, Result};

/// What becomes of a base in four bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Every weight in floats.
    Dense,
    /// What the base has in four bits stays so: a sum is quantised again, in the base's format, and a weight that does
    /// not change keeps its codes.
    Requantised,
}

/// `base` with an adapter folded in.
pub struct Merged<'a> {
    base: &'a dyn WeightSource,
    config: ModelConfig,
    plan: Plan<'a>,
    form: Form,
    /// Weights of `Conv1D`s.
    transposed: HashSet<String>,
}

impl<'a> Merged<'a> {
    /// # Errors
    /// If a tensor of the adapter has no place in the base.
    pub fn new(
        base: &'a dyn WeightSource,
        config: &ModelConfig,
        (peft, tensors): &'a (PeftConfig, AdapterTensors),
        form: Form,
    ) -> Result<Self> {
        let plan = output::plan(base, config, &Module::list(config), &peft.adapter, tensors)?;
        let config = ModelConfig { tie_word_embeddings: config.tie_word_embeddings && !plan.untied, ..config.clone() };
        Ok(Self { base, transposed: transposed(&config), config, plan, form })
    }

    /// The base alone.
    pub fn plain(base: &'a dyn WeightSource, config: &ModelConfig, form: Form) -> Self {
        let outputs = config.tensors().into_iter().map(|(name, shape)| Output {
            values: Values::Base(name.clone()),
            name,
            shape,
            update: None,
        });
        let plan = Plan { outputs: outputs.collect(), untied: false };
        Self { base, transposed: transposed(config), config: config.clone(), plan, form }
    }

    /// Its head no longer shares the embedding's weight where only one of them was adapted.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether the file holds a tensor transposed: weights of a `Conv1D`, but for those in four bits.
    pub(super) fn is_transposed(&self, name: &str) -> bool {
        self.transposed.contains(name) && self.four_bit_format(name).is_none()
    }

    pub(super) fn is_untied(&self) -> bool {
        self.plan.untied
    }

    /// Tensors that differ from the base.
    pub(super) fn changed(&self) -> usize {
        self.plan.outputs.iter().filter(|output| output.is_changed()).count()
    }

    /// Names and shapes as they are written.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.plan.outputs.iter().map(|output| (output.name.as_str(), output.shape.as_slice()))
    }

    /// Modules that transformers would quantise and that are not.
    pub(super) fn linears_in_floats(&self) -> Vec<String> {
        let weights = self.tensors().filter(|(name, shape)| is_linear_of_block(name, shape));
        let weights = weights.map(|(name, _)| name).filter(|name| self.four_bit_format(name).is_none());
        let blocks = weights.filter_map(|name| name.strip_suffix(".weight")).map(str::to_string);
        blocks.chain(self.config.head().layers.into_iter().map(|layer| layer.module.path)).collect()
    }

    fn output(&self, name: &str) -> Option<&Output<'a>> {
        self.plan.outputs.iter().find(|output| output.name == name)
    }

    fn sum(&self, output: &Output<'_>) -> Result<Vec<f32>> {
        let mut values = match &output.values {
            Values::Base(name) => self.base.read(name)?,
            Values::Adapter(tensor) => tensor.values.clone(),
        };
        if let Some(update) = &output.update {
            apply(update, &mut values);
        }
        Ok(values)
    }
}

fn transposed(config: &ModelConfig) -> HashSet<String> {
    let modules = Module::list(config).into_iter().filter(|module| module.transposed);
    modules.map(|module| module.path + ".weight").collect()
}

impl WeightSource for Merged<'_> {
    /// The base's.
    fn path(&self) -> &Path {
        self.base.path()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.tensors().map(|(name, _)| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.output(name)?.shape.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        if let Some(quantised) = self.four_bit(name)? {
            return Ok(quantised.dequantise());
        }
        let missing = || Error::input("no such tensor").file(self.path()).tensor(name);
        self.sum(self.output(name).ok_or_else(missing)?)
    }

    fn dtype(&self, name: &str) -> String {
        match self.four_bit_format(name) {
            Some(format) => format.code.name().to_uppercase(),
            None => OutDtype::F32.name().into(),
        }
    }

    fn stored_bytes(&self, name: &str) -> u64 {
        self.base.stored_bytes(name)
    }

    /// The base's.
    fn sha256(&self) -> String {
        self.base.sha256()
    }

    fn four_bit_format(&self, name: &str) -> Option<Format> {
        match (self.form, &self.output(name)?.values) {
            (Form::Requantised, Values::Base(source)) => self.base.four_bit_format(source),
            (Form::Requantised, Values::Adapter(_)) => self.base.four_bit_format(name),
            (Form::Dense, _) => None,
        }
    }

    fn four_bit(&self, name: &str) -> Result<Option<Quantised>> {
        match (self.four_bit_format(name), self.output(name)) {
            (Some(_), Some(Output { values: Values::Base(source), update: None, .. })) => self.base.four_bit(source),
            (Some(format), Some(output)) => {
                let sum = self.sum(output)?;
                match sum.iter().find(|value| !value.is_finite()) {
                    None => Ok(Some(Quantised::new(&sum, format))),
                    Some(value) => {
                        let error = Error::input("a merged value is not finite").tensor(name);
                        Err(error.found(value).expected("a number that can be quantised").into())
                    }
                }
            }
            _ => Ok(None),
        }
    }
}
