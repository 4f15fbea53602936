//! GGUF files: weights, configuration and tokenizer of a `llama` or `qwen2` model in one file.

mod config;
mod header;
mod metadata;
mod quant;
mod tensors;
mod tokenizer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use tokenizer::TokenizerFiles;

use self::header::TensorInfo;
use self::metadata::Metadata;
use super::ModelConfig;
use super::mapped::{FileBytes, refuse_look_alikes};
use super::source::{WeightSource, finite, no_such_tensor, sha256};
use crate::{Error, Result};

/// A mapped GGUF file. Tensors go by their Hugging Face names and are dequantised when read.
pub struct GgufFile {
    path: PathBuf,
    bytes: FileBytes,
    metadata: Metadata,
    config: ModelConfig,
    tensors: BTreeMap<String, TensorInfo>,
}

impl GgufFile {
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = FileBytes::map(path)?;
        refuse_look_alikes(&bytes, path)?;
        let header = header::parse(&bytes, path)?;
        let metadata = Metadata::new(header.metadata, path);
        let mut tensors = BTreeMap::new();
        for tensor in header.tensors {
            let name = tensors::hugging_face_name(&tensor.name);
            if let Some(first) = tensors.insert(name.clone(), tensor) {
                let error = Error::input("two tensors for one place").file(path).tensor(name);
                return Err(error.found(first.name).into());
            }
        }
        let rope_factors = tensors.remove(tensors::ROPE_FACTORS).map(|info| info.quant.decode(&bytes[info.range]));
        let config = config::config(&metadata, rope_factors.as_deref(), |name| {
            tensors.get(name).map(|info| info.shape.clone())
        })?;
        Ok(Self { path: path.to_path_buf(), bytes, metadata, config, tensors })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tokenizer of the metadata as the two files a Hugging Face directory would have.
    pub fn tokenizer(&self) -> Result<TokenizerFiles> {
        tokenizer::files(&self.metadata)
    }
}

impl WeightSource for GgufFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|info| info.shape.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.tensors.get(name).ok_or_else(|| no_such_tensor(name, &self.path))?;
        let values = finite(info.quant.decode(&self.bytes[info.range.clone()]), name, &self.path)?;
        let Some(heads) = tensors::interleaved_heads(name, &self.config) else { return Ok(values) };
        tensors::undo_interleaving(&values, info.shape.first().copied().unwrap_or(0), heads).ok_or_else(|| {
            let error = Error::input("rows are no whole number of heads").file(&self.path).tensor(name);
            error.found(format!("shape {:?}", info.shape)).expected(format!("{heads} heads of even size")).into()
        })
    }

    fn stored_bytes(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, |info| info.range.len() as u64)
    }

    fn sha256(&self) -> String {
        sha256([&self.bytes[..]])
    }
}
