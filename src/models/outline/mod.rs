//! A model as far as its size goes: its modules, and what a block needs in memory. It takes neither weights nor a family that runs it.

mod built_in;
mod sketches;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use built_in::names as built_in_names;

use super::config_json::MAX_CONFIG_BYTES;
use super::families::{Footprint, ModelType};
use super::json::Json;
use super::mapped::read_small;
use super::{ModelConfig, gguf};
use crate::adapters::{Module, ModuleKind};
use crate::recipe::Quant;
use crate::{Error, Result};

/// What sizes follow from.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    pub model_type: String,
    /// In forward order, with the head even where it is the embedding table.
    pub modules: Vec<Module>,
    pub tie_word_embeddings: bool,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub max_position_embeddings: usize,
    pub footprint: Footprint,
    /// Floats that a block keeps for each pair of tokens of a row.
    pub scores: usize,
    /// How the weights are quantised in their files, if they are; in blocks of 64, which is all that bitsandbytes writes by itself.
    pub quant: Option<Quant>,
    /// What PEFT adapts where nothing is said; empty where it wants to be told.
    pub default_targets: &'static [&'static str],
}

/// Where an outline comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutlineSource {
    /// A model whose published configuration, or whole self, is in the program.
    BuiltIn,
    /// A `config.json`.
    Config(PathBuf),
    /// The header of a GGUF file.
    Gguf(PathBuf),
}

impl fmt::Display for OutlineSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutlineSource::BuiltIn => f.write_str("built in"),
            OutlineSource::Config(path) | OutlineSource::Gguf(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Outline {
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            model_type: config.model_type.clone(),
            modules: Module::list(config),
            tie_word_embeddings: config.has_tied_head(),
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            num_hidden_layers: config.num_hidden_layers,
            max_position_embeddings: config.positions(),
            footprint: config.architecture.family().footprint(config),
            scores: config.architecture.family().scores(config),
            quant: None,
            default_targets: ModelType::find(&config.model_type).map_or(&[], |row| row.default_targets),
        }
    }

    /// The model that `name` means: a built-in one, a directory with a `config.json`, such a file, or a GGUF file of which the header is
    /// read. As where a model is opened names come first: a directory that is called like one is `./NAME`.
    ///
    /// # Errors
    /// An input error for a name that is none of these, and for a configuration that is incomplete or of an unknown `model_type`.
    pub fn find(name: &str) -> Result<(Self, OutlineSource)> {
        if let Some(config) = built_in::find(name) {
            return Ok((Self::from_json(config, Path::new(name))?, OutlineSource::BuiltIn));
        }
        let path = Path::new(name);
        if path.is_dir() {
            let config = path.join("config.json");
            let outline = Self::read_config(&config)?.ok_or_else(|| no_config(path))?;
            return Ok((outline, OutlineSource::Config(config)));
        }
        if path.exists() { Self::read_file(path) } else { Err(built_in::unknown(name)) }
    }

    fn read_file(path: &Path) -> Result<(Self, OutlineSource)> {
        if gguf::is_gguf(path) {
            return Ok((Self::of(&gguf::read_config(path)?), OutlineSource::Gguf(path.to_path_buf())));
        }
        if path.extension().is_some_and(|extension| extension == "json")
            && let Some(outline) = Self::read_config(path)?
        {
            return Ok((outline, OutlineSource::Config(path.to_path_buf())));
        }
        let expected = "a config.json, a directory that holds one, or a .gguf file";
        Err(Error::input("says nothing about the size of a model").file(path).expected(expected).into())
    }

    /// `None` if there is no such file.
    fn read_config(path: &Path) -> Result<Option<Self>> {
        read_small(path, MAX_CONFIG_BYTES)?.map(|bytes| Self::from_json(&bytes, path)).transpose()
    }

    /// From the bytes of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        let map: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| Error::input(format!("not a model configuration: {error}")).file(path))?;
        let json = Json::new(&map, path);
        let model_type = json.text("model_type")?.unwrap_or_default();
        if let Some(sketch) = sketches::read(model_type, &json)? {
            return Ok(sketch);
        }
        if ModelType::find(model_type).is_none() {
            let known = format!("{}, {}", ModelType::names(), sketches::names());
            return Err(json.refusal("model_type", "unsupported architecture", &known));
        }
        let config = ModelConfig::from_json(bytes, path)?;
        let quant = ModelConfig::quantisation(bytes, path)?.map(|settings| settings.format().into());
        Ok(Self { quant, ..Self::of(&config) })
    }

    /// Name and shape of every tensor the checkpoint must hold, in the order of the layers.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let stored = |module: &&Module| module.kind != ModuleKind::Head || !self.tie_word_embeddings;
        self.modules.iter().filter(stored).flat_map(Module::tensors).collect()
    }

    /// Whether a family can run the model; others are known for their size alone.
    pub fn runs(&self) -> bool {
        ModelType::find(&self.model_type).is_some()
    }

    /// All parameters of the model.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

fn no_config(dir: &Path) -> Error {
    let error = Error::input("this directory holds no model").file(dir).expected("config.json");
    match dir.join("adapter_config.json").exists() {
        true => error.hint("it is an adapter: give the model it was trained on").into(),
        false => error.into(),
    }
}
