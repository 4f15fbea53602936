//! PEFT's adapter directory: `adapter_config.json` and `adapter_model.safetensors`.

mod adalora;
mod check;
mod config;
mod fields;
mod file;
mod form;
mod names;
mod slot;
mod stacked;

use std::path::Path;

pub use config::PeftConfig;
pub use file::AdapterTensors;
pub use names::{file_shapes, from_file, to_file};
pub use slot::{Part, Slot};

use super::Module;
use crate::{Error, Result, tensors};

/// An adapter as its directory holds it.
pub type PeftAdapter = (PeftConfig, AdapterTensors);

pub const CONFIG_FILE: &str = "adapter_config.json";
pub const TENSORS_FILE: &str = "adapter_model.safetensors";

/// Reads the adapter in `dir` and checks it against the modules of its model. `model_type` is the
/// `model_type` of the model's `config.json`; it decides PEFT's default targets.
pub fn read(dir: &Path, model_type: &str, modules: &[Module]) -> Result<PeftAdapter> {
    let mut config = PeftConfig::read(&dir.join(CONFIG_FILE), model_type)?;
    let path = dir.join(TENSORS_FILE);
    if !path.exists() && dir.join("adapter_model.bin").exists() {
        return Err(Error::input("the adapter is a pickle, which can run code when opened")
            .file(dir.join("adapter_model.bin"))
            .expected(TENSORS_FILE)
            .hint("load it in Python and save it again with `save_pretrained(..., safe_serialization=True)`")
            .into());
    }
    let tensors = file::read(&path, &config.adapter, model_type, modules, &mut config.warnings)?;
    Ok((config, tensors))
}

/// Both files as names and bytes. The same adapter always gives the same bytes.
pub fn to_files(config: &PeftConfig, tensors: &AdapterTensors, modules: &[Module]) -> Result<Vec<(String, Vec<u8>)>> {
    let text = format!("{:#}\n", config.to_json(modules));
    Ok(vec![(CONFIG_FILE.into(), text.into_bytes()), (TENSORS_FILE.into(), tensors::encode(tensors)?)])
}

/// Writes both files into the existing directory `dir`.
pub fn write(dir: &Path, config: &PeftConfig, tensors: &AdapterTensors, modules: &[Module]) -> Result<()> {
    to_files(config, tensors, modules)?.into_iter().try_for_each(|(name, bytes)| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).map_err(Error::io(&path))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;
    use crate::adapters::modules::tiny;
    use crate::adapters::{Module, ModuleKind, Origin, saved};
    use crate::models::ModelConfig;

    fn adapters(model: &str) -> Vec<PathBuf> {
        let dir = format!("{}/tests/golden/e2e/{model}/adapters", env!("CARGO_MANIFEST_DIR"));
        let mut dirs: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        dirs.sort();
        dirs
    }

    /// Models and the adapters of each.
    fn models() -> Vec<(ModelConfig, Vec<PathBuf>)> {
        let heads = [
            "bert/seq_cls",
            "bert/token_cls",
            "bert/qa",
            "roberta/seq_cls",
            "distilbert/seq_cls",
            "distilbert/features",
        ];
        let config = |set: &str| {
            let path = format!("{}/tests/golden/tasks/{set}/base/config.json", env!("CARGO_MANIFEST_DIR"));
            ModelConfig::from_json(&std::fs::read(&path).unwrap(), Path::new(&path)).unwrap()
        };
        let heads = heads.map(|set| (config(set), adapters(&format!("../tasks/{set}"))));
        [(tiny::llama(), adapters("llama")), (tiny::qwen2(), adapters("qwen2"))].into_iter().chain(heads).collect()
    }

    /// Every key PEFT wrote is one we would write for the modules we select, and the other way round.
    #[test]
    fn selects_the_modules_peft_saved() {
        for (model, dirs) in models() {
            let modules = Module::list(&model);
            assert!(dirs.len() >= 2);
            for dir in dirs {
                let (config, tensors) = read(&dir, &model.model_type, &modules).unwrap();
                assert!(config.warnings.is_empty(), "{:?}", config.warnings);
                let mut expected = BTreeSet::new();
                let (spec, selected) =
                    (config.adapter.spec().unwrap(), config.adapter.select(&modules, Origin::AdapterFile).unwrap());
                expected.extend(spec.common_parts(&selected).into_iter().map(|(part, _)| Slot::common(part).key()));
                for module in selected {
                    let embedding = (module.kind == ModuleKind::Embedding).then_some(Part::BaseLayerWeight);
                    let parts = spec.parts(&module).into_iter().map(|(part, _)| part).chain(embedding);
                    expected.extend(parts.map(|part| Slot::new(&module.path, part).key()));
                }
                let shared = config.adapter.shared().unwrap();
                let whole = saved(&modules, &shared, Origin::AdapterFile).unwrap();
                for module in whole {
                    let bias = module.biased.then_some(Part::Bias);
                    let parts = [Part::Weight].into_iter().chain(bias);
                    expected.extend(parts.map(|part| Slot::new(&module.path, part).key()));
                }
                assert_eq!(tensors.keys().cloned().collect::<BTreeSet<_>>(), expected, "{}", dir.display());
            }
        }
    }

    /// The tensor file comes out byte for byte, the configuration value for value.
    #[test]
    fn writes_back_what_peft_wrote() {
        for (model, dirs) in models() {
            let modules = Module::list(&model);
            for dir in dirs {
                let (config, tensors) = read(&dir, &model.model_type, &modules).unwrap();
                let copy = tempfile::tempdir().unwrap();
                write(copy.path(), &config, &tensors, &modules).unwrap();
                let bytes = |dir: &Path, name| std::fs::read(dir.join(name)).unwrap();
                assert!(bytes(&dir, TENSORS_FILE) == bytes(copy.path(), TENSORS_FILE), "{}", dir.display());
                let json = |dir| serde_json::from_slice::<serde_json::Value>(&bytes(dir, CONFIG_FILE)).unwrap();
                let (theirs, ours) = (json(&dir), json(copy.path()));
                for (key, value) in ours.as_object().unwrap() {
                    let same = *value == theirs[key] || *value == serde_json::json!([theirs[key]]);
                    assert!(same, "{} {key}: {value} is not {}", dir.display(), theirs[key]);
                }
                assert_eq!(read(copy.path(), &model.model_type, &modules).unwrap(), (config, tensors));
            }
        }
    }

    #[test]
    fn a_task_has_the_name_that_peft_gives_it() {
        for (model, dirs) in models() {
            for dir in dirs {
                let config = PeftConfig::read(&dir.join(CONFIG_FILE), &model.model_type).unwrap();
                let ours = PeftConfig::new(config.adapter, "base").for_task(model.task);
                assert_eq!(ours.task_type, config.task_type, "{}", dir.display());
            }
        }
    }

    /// `all-linear` of PEFT takes the pooler too, which nothing is computed with where hidden states are the result.
    #[test]
    fn an_idle_pooler_is_passed_over_with_a_word() {
        let set = format!("{}/tests/golden/tasks/bert/features", env!("CARGO_MANIFEST_DIR"));
        let opened = crate::models::open(&format!("{set}/base"), Path::new("/")).unwrap();
        let (config, tensors) =
            read(&Path::new(&set).join("adapters/lora_all_linear"), "bert", &Module::list(&opened.config)).unwrap();
        assert!(config.warnings.len() == 1 && config.warnings[0].contains("pooler"), "{:?}", config.warnings);
        assert!(tensors.len() == 24 && tensors.keys().all(|name| name.contains("encoder.layer")));
    }

    #[test]
    fn refuses_a_pickle() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_FILE), r#"{"peft_type": "LORA"}"#).unwrap();
        std::fs::write(dir.path().join("adapter_model.bin"), "").unwrap();
        let error = read(dir.path(), "llama", &Module::list(&tiny::llama())).unwrap_err();
        assert!(error.to_string().contains("pickle"), "{error}");
    }
}
