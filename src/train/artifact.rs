//! Between a learner's values by path and the files of an adapter (or, for `full`, of a model).

use std::path::Path;

use super::Job;
use crate::adapters::peft::{self, Part, PeftConfig, Slot};
use crate::adapters::{AdapterConfig, Module, ModuleKind, NoneConfig, Origin};
use crate::models::ModelConfig;
use crate::recipe::AdamW;
use crate::runtime::{AdapterSpec, Base, Learner};
use crate::tensors::{self, HostTensors};
use crate::{Error, Result};

const MODEL_FILE: &str = "model.safetensors";

/// The files of `final/`: a PEFT adapter; a Hugging Face model where every weight trains; nothing for `none`.
pub fn files(job: &Job, values: HostTensors) -> Result<Vec<(String, Vec<u8>)>> {
    match &job.recipe.adapter {
        AdapterConfig::None(_) => Ok(Vec::new()),
        AdapterConfig::Full(_) => {
            let mut files = vec![
                (MODEL_FILE.to_string(), tensors::encode(&values)?),
                ("config.json".to_string(), format!("{:#}\n", job.opened.config.to_json("float32")).into_bytes()),
            ];
            files.extend(job.opened.tokenizer.files());
            Ok(files)
        }
        AdapterConfig::Lora(lora) => {
            let modules = Module::list(&job.opened.config);
            let config = PeftConfig::new(lora.clone(), job.recipe.model.path.clone());
            peft::to_files(&config, &to_slots(values, &modules), &modules)
        }
    }
}

/// A learner's values from the files that [`files`] made.
pub(super) fn saved_values(adapter: &AdapterConfig, files: &[(String, Vec<u8>)], origin: &Path) -> Result<HostTensors> {
    let name = if matches!(adapter, AdapterConfig::Full(_)) { MODEL_FILE } else { peft::TENSORS_FILE };
    let found = files.iter().find(|(file, _)| file == name);
    let (_, bytes) = found.ok_or_else(|| Error::input("missing from the checkpoint").file(origin.join(name)))?;
    let values = tensors::decode(bytes, &origin.join(name))?;
    Ok(if name == MODEL_FILE { values } else { from_slots(values) })
}

/// A learner from `final/` as it lies on disk.
pub(super) fn read_back(job: &Job, base: &dyn Base, dir: &Path) -> Result<Box<dyn Learner>> {
    match &job.recipe.adapter {
        AdapterConfig::Full(_) => {
            let mut learner = base.attach(&job.adapter_spec())?;
            let path = dir.join(MODEL_FILE);
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            learner.import(&tensors::decode(&bytes, &path)?)?;
            Ok(learner)
        }
        _ => Ok(attach_saved(base, &job.opened.config, dir)?.0),
    }
}

/// Attaches the PEFT adapter in `dir` to `base`.
pub fn attach_saved(base: &dyn Base, config: &ModelConfig, dir: &Path) -> Result<(Box<dyn Learner>, PeftConfig)> {
    let modules = Module::list(config);
    let (adapter, values) = peft::read(dir, &config.model_type, &modules)?;
    let spec = AdapterSpec {
        adapter: &AdapterConfig::Lora(adapter.lora.clone()),
        origin: Origin::AdapterFile,
        optimizer: &AdamW::default(),
        seed: 0,
    };
    let mut learner = base.attach(&spec)?;
    learner.import(&from_slots(values))?;
    Ok((learner, adapter))
}

/// A plain base, evaluated as it is.
pub fn attach_none(base: &dyn Base) -> Result<Box<dyn Learner>> {
    let adapter = AdapterConfig::None(NoneConfig {});
    let spec = AdapterSpec { adapter: &adapter, origin: Origin::Recipe, optimizer: &AdamW::default(), seed: 0 };
    base.attach(&spec)
}

fn to_slots(values: HostTensors, modules: &[Module]) -> HostTensors {
    let adapted: Vec<String> =
        values.keys().filter_map(|path| path.strip_suffix(".lora_A")).map(String::from).collect();
    let slot = |path: &str| {
        let (module, field) = path.rsplit_once('.').unwrap_or(("", path));
        let embedding = modules.iter().any(|m| m.path == module && m.kind == ModuleKind::Embedding);
        let part = match field {
            "lora_A" if embedding => Part::EmbeddingA,
            "lora_A" => Part::LoraA,
            "lora_B" if embedding => Part::EmbeddingB,
            "lora_B" => Part::LoraB,
            "bias" if adapted.iter().any(|path| path == module) => Part::BaseLayerBias,
            "bias" => Part::Bias,
            _ => Part::Weight,
        };
        Slot::new(module, part).key()
    };
    values.into_iter().map(|(path, tensor)| (slot(&path), tensor)).collect()
}

fn from_slots(values: HostTensors) -> HostTensors {
    let path = |key: &str| {
        let slot = Slot::parse(key)?;
        let field = match slot.part {
            Part::LoraA | Part::EmbeddingA => "lora_A",
            Part::LoraB | Part::EmbeddingB => "lora_B",
            Part::Weight => "weight",
            Part::Bias | Part::BaseLayerBias => "bias",
            // A copy of the frozen weight that PEFT keeps beside an embedding's adapter.
            Part::BaseLayerWeight => return None,
        };
        Some(format!("{}.{field}", slot.path))
    };
    values.into_iter().filter_map(|(key, tensor)| Some((path(&key)?, tensor))).collect()
}
