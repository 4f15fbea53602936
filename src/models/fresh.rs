//! A model that has not been trained: what pretraining starts from.

use std::path::Path;

use super::ModelConfig;
use crate::adapters::Module;
use crate::adapters::random::Stream;
use crate::tensors::{self, HostTensor, HostTensors};
use crate::{Error, Result};

/// Deviation of initial weights, as in GPT-2 (Radford et al. 2019); norms start at one, biases at zero.
const DEVIATION: f64 = 0.02;

/// Writes an untrained Hugging Face model, `config.json` and `model.safetensors`, into the existing directory `dir`.
pub fn write_untrained(config: &ModelConfig, seed: u64, dir: &Path) -> Result<()> {
    let transposed = |name: &str| {
        let modules = Module::list(config).into_iter();
        modules.filter(|module| module.transposed).any(|module| name.strip_suffix(".weight") == Some(&module.path))
    };
    let one = 1.0 - config.architecture.family().norms().plus as f32;
    let value = |(name, mut shape): (String, Vec<usize>)| {
        if transposed(&name) {
            shape.reverse();
        }
        let n = shape.iter().product();
        let values = match shape.len() {
            1 if name.ends_with("bias") => vec![0.0; n],
            1 => vec![one; n],
            _ => Stream::new(seed, &name).normal(n, DEVIATION),
        };
        (name, HostTensor { shape, values })
    };
    let weights: HostTensors = config.tensors().into_iter().map(value).collect();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).map_err(Error::io(&path))
    };
    write("model.safetensors", &tensors::encode(&weights)?)?;
    write("config.json", format!("{:#}\n", config.to_json("float32")).as_bytes())
}
