//! PEFT's adapter directory: `adapter_config.json` and `adapter_model.safetensors`.

mod check;
mod config;
mod fields;
mod file;
mod slot;

use std::path::Path;

pub use config::PeftConfig;
pub use file::{AdapterTensors, HostTensor};
pub use slot::{Part, Slot};

use super::Module;
use crate::{Error, Result};

pub const CONFIG_FILE: &str = "adapter_config.json";
pub const TENSORS_FILE: &str = "adapter_model.safetensors";

/// Reads the adapter in `dir` and checks it against the modules of its model. `model_type` is the
/// `model_type` of the model's `config.json`; it decides PEFT's default targets.
pub fn read(dir: &Path, model_type: &str, modules: &[Module]) -> Result<(PeftConfig, AdapterTensors)> {
    let config = PeftConfig::read(&dir.join(CONFIG_FILE), model_type)?;
    let path = dir.join(TENSORS_FILE);
    if !path.exists() && dir.join("adapter_model.bin").exists() {
        return Err(Error::input("the adapter is a pickle, which can run code when opened")
            .file(dir.join("adapter_model.bin"))
            .expected(TENSORS_FILE)
            .hint("load it in Python and save it again with `save_pretrained(..., safe_serialization=True)`")
            .into());
    }
    let tensors = file::read(&path, &config.lora, modules)?;
    Ok((config, tensors))
}

/// Writes both files into the existing directory `dir`. The same adapter always gives the same bytes.
pub fn write(dir: &Path, config: &PeftConfig, tensors: &AdapterTensors, modules: &[Module]) -> Result<()> {
    config.write(&dir.join(CONFIG_FILE), modules)?;
    file::write(&dir.join(TENSORS_FILE), tensors)
}
