//! Safetensors checkpoints: one file, a sharded directory, or bytes compiled in.
//!
//! The `safetensors` crate is the judge of a header. [`header`] runs first for what the crate lets pass
//! (duplicate names, offsets whose sum overflows) and for messages that name the tensor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::mapped::{FileBytes, refuse_look_alikes};
use super::source::{WeightSource, finite, no_such_tensor, sha256};
use super::{header, sharded};
use crate::{Error, Result};

/// Read-only weights in one or several safetensors files.
pub struct Safetensors {
    path: PathBuf,
    files: Vec<(PathBuf, FileBytes)>,
    tensors: BTreeMap<String, Entry>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Byte range in the file.
    range: std::ops::Range<usize>,
}

impl Safetensors {
    /// A Hugging Face directory with `model.safetensors`, or `model.safetensors.index.json` and its shards.
    pub fn open_dir(dir: &Path) -> Result<Self> {
        let shards = sharded::files(dir)?;
        let mut all = Self::empty(dir);
        for path in shards.files {
            all.add(path.clone(), FileBytes::map(&path)?)?;
        }
        match shards.expected.iter().find(|name| !all.tensors.contains_key(*name)) {
            Some(name) => {
                Err(Error::input("the index lists a tensor that no shard holds").file(dir).tensor(name).into())
            }
            None => Ok(all),
        }
    }

    /// One file, an adapter for example.
    pub fn open_file(path: &Path) -> Result<Self> {
        let mut all = Self::empty(path);
        all.add(path.to_path_buf(), FileBytes::map(path)?)?;
        Ok(all)
    }

    /// A file compiled into the program; `label` stands for its path in messages.
    pub fn from_static(bytes: &'static [u8], label: &Path) -> Result<Self> {
        let mut all = Self::empty(label);
        all.add(label.to_path_buf(), FileBytes::Embedded(bytes))?;
        Ok(all)
    }

    fn empty(path: &Path) -> Self {
        Self { path: path.to_path_buf(), files: Vec::new(), tensors: BTreeMap::new() }
    }

    fn add(&mut self, path: PathBuf, bytes: FileBytes) -> Result<()> {
        refuse_look_alikes(&bytes, &path)?;
        header::check(&bytes, &path)?;
        let (header_len, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|error| Error::input(format!("not a safetensors file: {error}")).file(&path))?;
        let data = 8 + header_len;
        for (name, info) in metadata.tensors() {
            let range = data + info.data_offsets.0..data + info.data_offsets.1;
            let entry = Entry { file: self.files.len(), dtype: info.dtype, shape: info.shape.clone(), range };
            if let Some(first) = self.tensors.insert(name.clone(), entry) {
                let first = self.files[first.file].0.display().to_string();
                return Err(Error::input("the same tensor in two shards").file(&path).tensor(name).found(first).into());
            }
        }
        self.files.push((path, bytes));
        Ok(())
    }
}

impl Safetensors {
    /// Type and bytes of a tensor as they lie in its file.
    pub(crate) fn stored(&self, name: &str) -> Option<(Dtype, &[u8])> {
        let entry = self.tensors.get(name)?;
        Some((entry.dtype, &self.files[entry.file].1[entry.range.clone()]))
    }
}

impl WeightSource for Safetensors {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|entry| entry.shape.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let entry = self.tensors.get(name).ok_or_else(|| no_such_tensor(name, &self.path))?;
        let (path, bytes) = &self.files[entry.file];
        let values = decode(entry.dtype, &bytes[entry.range.clone()]);
        bytes.release();
        let values = values.ok_or_else(|| {
            let error = Error::input("cannot read this data type").file(path).tensor(name);
            error.found(entry.dtype).expected("F32, F16, BF16 or F64")
        })?;
        finite(values, name, path)
    }

    fn dtype(&self, name: &str) -> String {
        self.tensors.get(name).map(|entry| entry.dtype.to_string()).unwrap_or_default()
    }

    fn stored_bytes(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, |entry| entry.range.len() as u64)
    }

    fn sha256(&self) -> String {
        let hash = sha256(self.files.iter().map(|(_, bytes)| &bytes[..]));
        self.files.iter().for_each(|(_, bytes)| bytes.release());
        hash
    }
}

/// Little-endian values as f32, or `None` for a type that is no float we read.
fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => values(bytes, f32::from_le_bytes),
        Dtype::F16 => values(bytes, |raw| f16::from_le_bytes(raw).to_f32()),
        Dtype::BF16 => values(bytes, |raw| bf16::from_le_bytes(raw).to_f32()),
        Dtype::F64 => values(bytes, |raw| f64::from_le_bytes(raw) as f32),
        _ => return None,
    })
}

fn values<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&raw| value(raw)).collect()
}
