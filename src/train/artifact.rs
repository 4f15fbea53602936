//! Between a learner's values by path and the files of an adapter (or, for `full`, of a model).

use std::path::Path;

use super::Job;
use crate::adapters::peft::{self, AdapterTensors, PeftConfig};
use crate::adapters::{AdapterConfig, Module, Origin};
use crate::models::ModelConfig;
use crate::recipe::Optim;
use crate::runtime::{AdapterSpec, Base, Learner};
use crate::tensors::{self, HostTensors};
use crate::{Error, Result};

const MODEL_FILE: &str = "model.safetensors";

/// The files of `final/`: a PEFT adapter; a Hugging Face model where every weight trains; nothing for `none`.
pub fn files(job: &Job, values: HostTensors) -> Result<Vec<(String, Vec<u8>)>> {
    let Some(spec) = job.recipe.adapter.spec() else { return model_files(job, values) };
    let modules = Module::list(&job.opened.config);
    let (saved_as, values) = spec.export(values, &job.selected)?;
    let tensors = peft::to_file(values, &saved_as, &modules)?;
    let config = PeftConfig::new(saved_as, job.recipe.model.path.clone()).for_task(job.opened.config.task);
    peft::to_files(&config, &tensors, &modules)
}

fn model_files(job: &Job, values: HostTensors) -> Result<Vec<(String, Vec<u8>)>> {
    if matches!(job.recipe.adapter, AdapterConfig::None(_)) {
        return Ok(Vec::new());
    }
    let mut files = vec![
        (MODEL_FILE.to_string(), tensors::encode(&values)?),
        ("config.json".to_string(), format!("{:#}\n", job.opened.config.to_json("float32")).into_bytes()),
    ];
    files.extend(job.opened.tokenizer.files());
    Ok(files)
}

/// The values of a fully trained model from the files that [`files`] made.
pub(super) fn model_values(files: &[(String, Vec<u8>)], origin: &Path) -> Result<HostTensors> {
    let found = files.iter().find(|(file, _)| file == MODEL_FILE);
    let (_, bytes) = found.ok_or_else(|| Error::input("missing from the checkpoint").file(origin.join(MODEL_FILE)))?;
    tensors::decode(bytes, &origin.join(MODEL_FILE))
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
    let (adapter, tensors) = peft::read(dir, &config.model_type, &Module::list(config))?;
    Ok((attach_adapter(base, &adapter, tensors)?, adapter))
}

/// Attaches a PEFT adapter to `base`.
pub(super) fn attach_adapter(
    base: &dyn Base,
    adapter: &PeftConfig,
    tensors: AdapterTensors,
) -> Result<Box<dyn Learner>> {
    let mut values = peft::from_file(tensors);
    let optim = Optim::default();
    let spec = AdapterSpec {
        adapter: &adapter.adapter,
        origin: Origin::AdapterFile,
        optim: &optim,
        seed: 0,
        total_steps: 0,
        values: Some(&values),
    };
    let mut learner = base.attach(&spec)?;
    // What the modules share has gone into the adapters when they were made.
    values.retain(|path, _| path.contains('.'));
    learner.import(&values)?;
    Ok(learner)
}

/// A plain base, evaluated as it is.
pub fn attach_none(base: &dyn Base) -> Result<Box<dyn Learner>> {
    base.attach(&AdapterSpec::fresh(&AdapterConfig::none(), &Optim::default(), 0))
}
