//! The frozen base of a run as its device holds it, read on the host.

use std::path::Path;

use half::bf16;
use lowrank_kernels::four_bit::{Format, Quantised};

use super::WeightSource;
use super::source::{no_such_tensor, stored_format};
use crate::adapters::LoftqPlan;
use crate::recipe::{BaseDtype, BaseStorage, Quant};
use crate::tensors::HostTensors;
use crate::{Error, Result};

/// What `storage` makes of a checkpoint: this decides, for the loader, for estimates and for what is written, which
/// tensors are in four bits. A checkpoint that is quantised already keeps its codes, and what it left in floats.
pub struct Stored<'a> {
    source: &'a dyn WeightSource,
    storage: BaseStorage,
    /// What linear layers of blocks are still to be brought to.
    quantise: Option<Format>,
    /// Layers that are quantised around a start with LoftQ.
    plan: Option<LoftqPlan>,
}

/// Whether this is the weight of a linear layer of a block: what four bits are for. Routers choose between experts, and are not;
/// tables of distances are no linear layers.
pub(crate) fn is_linear_of_block(name: &str, shape: &[usize]) -> bool {
    let numbered = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let others = [".gate.weight", ".shared_expert_gate.weight", ".relative_attention_bias.weight"];
    let other = others.iter().any(|end| name.ends_with(end));
    shape.len() == 2 && name.ends_with(".weight") && !other && name.split('.').any(numbered)
}

impl<'a> Stored<'a> {
    /// # Errors
    /// If `storage` asks for another four-bit format than the checkpoint has.
    pub fn new(source: &'a dyn WeightSource, storage: BaseStorage) -> Result<Self> {
        let asked = storage.quant.map(Quant::format);
        let Some(own) = stored_format(source) else { return Ok(Self { source, storage, quantise: asked, plan: None }) };
        let own = Quant::from(own);
        if let Some(asked) = storage.quant.filter(|asked| *asked != own) {
            let error = Error::input("the checkpoint is quantised already, in another format").file(source.path());
            let error = error.key("base.quant").found(asked.describe()).expected(own.describe());
            return Err(error.hint("leave `base.quant` out").into());
        }
        Ok(Self { source, storage: BaseStorage { quant: Some(own), ..storage }, quantise: None, plan: None })
    }

    /// The same with the layers of `plan`, if there is one, quantised for a start with LoftQ.
    ///
    /// # Errors
    /// If nothing is quantised here, so that there is nothing to make up for.
    pub fn around(self, plan: Option<LoftqPlan>) -> Result<Self> {
        if plan.is_some() && self.quantise.is_none() {
            let what = "LoftQ starts from what quantising takes off the weights, and these are not quantised here";
            let error = Error::input(what).file(self.source.path()).key("init");
            return Err(error.hint("it needs `base.quant` and a checkpoint that is not quantised yet").into());
        }
        Ok(Self { plan, ..self })
    }

    /// What a fresh adapter of the layer `path` with these codes starts from, by parameter path; nothing where the plan says nothing.
    ///
    /// # Errors
    /// If the weight cannot be read or decomposed.
    pub fn factors(&self, path: &str, quantised: &Quantised) -> Result<HostTensors> {
        let Some(plan) = self.plan.as_ref().filter(|plan| plan.ranks.contains_key(path)) else {
            return Ok(HostTensors::new());
        };
        let name = format!("{path}.weight");
        plan.factors(path, &self.source.read(&name)?, quantised, self.matrix(&name)?)
    }

    /// With the format of a checkpoint that is quantised already.
    pub fn storage(&self) -> BaseStorage {
        self.storage
    }

    fn matrix(&self, name: &str) -> Result<[usize; 2]> {
        match self.source.shape(name).as_deref() {
            Some(&[rows, cols]) => Ok([rows, cols]),
            _ => Err(no_such_tensor(name, self.source.path())),
        }
    }

    fn is_matrix(&self, name: &str) -> bool {
        self.source.shape(name).is_some_and(|shape| shape.len() == 2)
    }
}

impl WeightSource for Stored<'_> {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn names(&self) -> Vec<String> {
        self.source.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source.shape(name)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        if let Some(quantised) = self.four_bit(name)? {
            return Ok(quantised.dequantise());
        }
        let mut values = self.source.read(name)?;
        if self.storage.dtype == BaseDtype::Bf16 && self.is_matrix(name) {
            values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
        }
        Ok(values)
    }

    fn dtype(&self, name: &str) -> String {
        match self.four_bit_format(name) {
            Some(format) => format.code.name().to_uppercase(),
            None => self.source.dtype(name),
        }
    }

    fn stored_bytes(&self, name: &str) -> u64 {
        self.source.stored_bytes(name)
    }

    fn sha256(&self) -> String {
        self.source.sha256()
    }

    fn four_bit_format(&self, name: &str) -> Option<Format> {
        let linear = self.source.shape(name).is_some_and(|shape| is_linear_of_block(name, &shape));
        self.quantise.filter(|_| linear).or_else(|| self.source.four_bit_format(name))
    }

    fn four_bit(&self, name: &str) -> Result<Option<Quantised>> {
        match self.quantise.and_then(|_| self.four_bit_format(name)) {
            Some(format) => {
                let values = self.source.read(name)?;
                let path = name.trim_end_matches(".weight");
                Ok(Some(match &self.plan {
                    Some(plan) => plan.quantised(path, &values, self.matrix(name)?, format)?,
                    None => Quantised::new(&values, format),
                }))
            }
            None => self.source.four_bit(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::open;
    use crate::recipe::Blocks;

    fn qwen2() -> super::super::Opened {
        open("base", &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/e2e/qwen2")).unwrap()
    }

    #[test]
    fn linears_of_blocks_and_nothing_else_are_quantised() {
        let opened = qwen2();
        let quant = Some(Quant::Fp4(Blocks { block: 32, double: false }));
        let stored = Stored::new(opened.weights.as_ref(), BaseStorage { quant, ..BaseStorage::default() }).unwrap();
        let quantised = stored.names().into_iter().filter(|name| stored.four_bit_format(name).is_some());
        let quantised: Vec<String> = quantised.collect();
        assert_eq!(quantised.len(), 14);
        assert!(quantised.iter().all(|name| name.contains("_proj.weight") && stored.dtype(name) == "FP4"));
        let bias = "model.layers.0.self_attn.q_proj.bias";
        assert_eq!(stored.read(bias).unwrap(), opened.weights.read(bias).unwrap());
    }

    #[test]
    fn layers_of_a_plan_have_codes_of_their_own_and_leave_a_start() {
        let opened = qwen2();
        let storage = BaseStorage { quant: Some(Quant::Nf4(Blocks::default())), ..BaseStorage::default() };
        let stored = |storage| Stored::new(opened.weights.as_ref(), storage).unwrap();
        let (own, other) = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj");
        let plan = LoftqPlan { iterations: 2, ranks: [(own.to_string(), 4)].into() };
        let planned = stored(storage).around(Some(plan.clone())).unwrap();
        let codes = |of: &Stored<'_>, path: &str| of.four_bit(&format!("{path}.weight")).unwrap().unwrap();
        assert_ne!(codes(&planned, own), codes(&stored(storage), own));
        assert_eq!(codes(&planned, other), codes(&stored(storage), other));
        let left = |path| planned.factors(path, &codes(&planned, path)).unwrap();
        assert!(left(own).keys().eq(&[format!("{own}.lora_A"), format!("{own}.lora_B")]) && left(other).is_empty());
        let refused = stored(BaseStorage::default()).around(Some(plan)).err().unwrap().to_string();
        assert!(refused.contains("not quantised here") && refused.contains("base.quant"), "{refused}");
        assert!(stored(BaseStorage::default()).around(None).is_ok());
    }

    #[test]
    fn sixteen_bits_round_matrices_alone() {
        let opened = qwen2();
        let stored = Stored::new(opened.weights.as_ref(), BaseDtype::Bf16.into()).unwrap();
        for (name, rounded) in [("model.embed_tokens.weight", true), ("model.norm.weight", false)] {
            let exact = opened.weights.read(name).unwrap();
            let cast: Vec<f32> = exact.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
            assert_ne!(exact, cast);
            assert_eq!(stored.read(name).unwrap(), if rounded { cast } else { exact });
        }
    }
}
