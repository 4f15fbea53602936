//! GGUF files: weights, configuration and tokenizer of a `llama` or `qwen2` model in one file.

mod config;
mod header;
#[cfg(test)]
mod hostile;
mod metadata;
mod quant;
mod tensors;
mod tokenizer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
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
        let mut tensors = named(header.tensors, path)?;
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

/// By Hugging Face name.
fn named(listed: Vec<TensorInfo>, path: &Path) -> Result<BTreeMap<String, TensorInfo>> {
    let mut tensors = BTreeMap::new();
    for tensor in listed {
        let name = tensors::hugging_face_name(&tensor.name);
        if let Some(first) = tensors.insert(name.clone(), tensor) {
            let error = Error::input("two tensors for one place").file(path).tensor(name);
            return Err(error.found(first.name).into());
        }
    }
    Ok(tensors)
}

/// Whether the file begins as a GGUF file does, or is called one.
pub(super) fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    let begins = path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok();
    (begins && &magic == b"GGUF") || path.extension().is_some_and(|extension| extension == "gguf")
}

/// The configuration, from the header alone: no tensor is read, and the file may end with its header. Rotary factors, which are a
/// tensor, are left out: sizes do not depend on them.
pub(super) fn read_config(path: &Path) -> Result<ModelConfig> {
    let bytes = FileBytes::map(path)?;
    refuse_look_alikes(&bytes, path)?;
    // Half of what could be addressed: no rounding up to an alignment overflows.
    let header = header::parse_start(&bytes, isize::MAX as usize, path)?;
    let tensors = named(header.tensors, path)?;
    config::config(&Metadata::new(header.metadata, path), None, |name| tensors.get(name).map(|info| info.shape.clone()))
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
        let values = info.quant.decode(&self.bytes[info.range.clone()]);
        self.bytes.release();
        let values = finite(values, name, &self.path)?;
        let Some(heads) = tensors::interleaved_heads(name, &self.config) else { return Ok(values) };
        tensors::undo_interleaving(&values, info.shape.first().copied().unwrap_or(0), heads).ok_or_else(|| {
            let error = Error::input("rows are no whole number of heads").file(&self.path).tensor(name);
            error.found(format!("shape {:?}", info.shape)).expected(format!("{heads} heads of even size")).into()
        })
    }

    fn dtype(&self, name: &str) -> String {
        self.tensors.get(name).map(|info| info.quant.name().to_string()).unwrap_or_default()
    }

    fn stored_bytes(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, |info| info.range.len() as u64)
    }

    fn sha256(&self) -> String {
        let hash = sha256([&self.bytes[..]]);
        self.bytes.release();
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(file: &str) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/gguf")).join(file)
    }

    #[test]
    fn tensors_equal_those_that_were_converted() {
        let file = GgufFile::open(&golden("llama.gguf")).unwrap();
        let original = crate::models::Safetensors::open_file(&golden("llama.safetensors")).unwrap();
        assert_eq!(file.names(), original.names());
        for name in original.names() {
            assert_eq!(file.shape(&name), original.shape(&name), "{name}");
            assert_eq!(file.read(&name).unwrap(), original.read(&name).unwrap(), "{name}");
        }
    }

    #[test]
    fn the_metadata_make_the_configuration() {
        let file = GgufFile::open(&golden("llama.gguf")).unwrap();
        let config = file.config();
        let own = config.llama();
        assert_eq!((config.vocab_size, config.hidden_size, own.intermediate_size), (512, 32, 64));
        assert_eq!((config.num_attention_heads, config.num_key_value_heads, config.head_dim), (2, 1, 16));
        assert_eq!((own.rms_norm_eps, own.rope.theta), (1e-5, 50000.0));
        assert!(config.tie_word_embeddings && !own.qkv_bias);
        assert_eq!((config.bos_token_id, &config.eos_token_ids[..], config.pad_token_id), (Some(1), &[2][..], Some(0)));
    }

    #[test]
    fn stored_bytes_are_those_of_the_file() {
        let file = GgufFile::open(&golden("llama.gguf")).unwrap();
        assert_eq!(file.stored_bytes("model.embed_tokens.weight"), 512 * 34);
        assert_eq!(file.dtype("model.embed_tokens.weight"), "Q8_0");
        assert_eq!(file.sha256().len(), 64);
    }
}
