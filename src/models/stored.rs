//! The frozen base of a run as its device holds it, read on the host.

use std::path::Path;

use half::bf16;
use lowrank_kernels::four_bit::{Format, Quantised};

use super::WeightSource;
use super::source::stored_format;
use crate::recipe::{BaseDtype, BaseStorage, Quant};
use crate::{Error, Result};

/// What `storage` makes of a checkpoint: this decides, for the loader, for estimates and for what is written, which
/// tensors are in four bits. A checkpoint that is quantised already keeps its codes, and what it left in floats.
pub struct Stored<'a> {
    source: &'a dyn WeightSource,
    storage: BaseStorage,
    /// What linear layers of blocks are still to be brought to.
    quantise: Option<Format>,
}

impl<'a> Stored<'a> {
    /// # Errors
    /// If `storage` asks for another four-bit format than the checkpoint has.
    pub fn new(source: &'a dyn WeightSource, storage: BaseStorage) -> Result<Self> {
        let asked = storage.quant.map(Quant::format);
        let Some(own) = stored_format(source) else { return Ok(Self { source, storage, quantise: asked }) };
        let own = Quant::from(own);
        if let Some(asked) = storage.quant.filter(|asked| *asked != own) {
            let error = Error::input("the checkpoint is quantised already, in another format").file(source.path());
            let error = error.key("base.quant").found(asked.describe()).expected(own.describe());
            return Err(error.hint("leave `base.quant` out").into());
        }
        Ok(Self { source, storage: BaseStorage { quant: Some(own), ..storage }, quantise: None })
    }

    /// With the format of a checkpoint that is quantised already.
    pub fn storage(&self) -> BaseStorage {
        self.storage
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
        let linear = name.starts_with("model.layers.") && self.is_matrix(name);
        self.quantise.filter(|_| linear).or_else(|| self.source.four_bit_format(name))
    }

    fn four_bit(&self, name: &str) -> Result<Option<Quantised>> {
        match self.quantise.and_then(|_| self.four_bit_format(name)) {
            Some(format) => Ok(Some(Quantised::new(&self.source.read(name)?, format))),
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
