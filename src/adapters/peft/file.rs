//! `adapter_model.safetensors`: the tensors of an adapter under PEFT's names.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use half::{bf16, f16};
use indexmap::IndexMap;
use safetensors::tensor::{SafeTensors, TensorView};
use safetensors::{Dtype, SafeTensorError};
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::check;
use crate::adapters::{LoraConfig, Module};
use crate::error::InputError;
use crate::{Error, Result};

/// A tensor in ordinary memory, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Tensors by their name in the file, sorted.
pub type AdapterTensors = IndexMap<String, HostTensor>;

/// Reads a whole adapter file as f32 and checks every tensor against the configuration and the
/// modules of the model.
pub(super) fn read(path: &Path, config: &LoraConfig, modules: &[Module]) -> Result<AdapterTensors> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let tensors = decode(&bytes).map_err(|error| Error::from(error.file(path)))?;
    check::tensors(&tensors, config, modules).map_err(|error| match error {
        Error::Input(problem) => problem.file(path).into(),
        Error::Inputs(problems) => Error::Inputs(problems.into_iter().map(|problem| problem.file(path)).collect()),
        other => other,
    })?;
    Ok(tensors)
}

/// Writes f32 tensors in the order of their names with the metadata PEFT asks for.
pub(super) fn write(path: &Path, tensors: &AdapterTensors) -> Result<()> {
    std::fs::write(path, encode(tensors)?).map_err(Error::io(path))
}

fn encode(tensors: &AdapterTensors) -> Result<Vec<u8>> {
    let bytes: Vec<Vec<u8>> =
        tensors.values().map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        view.map(|view| (name, view)).map_err(|error| Error::Failed(format!("cannot write tensor {name}: {error}")))
    });
    let views: Vec<_> = views.collect::<Result<_>>()?;
    let metadata = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize(views, Some(metadata))
        .map_err(|error| Error::Failed(format!("cannot write the adapter: {error}")))
}

fn decode(bytes: &[u8]) -> Result<AdapterTensors, InputError> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| not_safetensors(bytes, &error))?;
    let (header_bytes, _) = SafeTensors::read_metadata(bytes).map_err(|error| not_safetensors(bytes, &error))?;
    unique_names(&bytes[8..8 + header_bytes])?;
    let mut views: Vec<_> = file.iter().collect();
    views.sort_unstable_by_key(|(name, _)| *name);
    let tensors = views.into_iter().filter(|(name, _)| !is_leak(name));
    tensors.map(|(name, view)| Ok((name.to_string(), to_f32(&view).map_err(|error| error.tensor(name))?))).collect()
}

/// With `bias="all"` PEFT saves the bias of a module that trains whole three times: under its own
/// name, and by oversight under the names of its two copies in memory.
fn is_leak(name: &str) -> bool {
    name.contains(".modules_to_save.") || name.contains(".original_module.")
}

fn to_f32(view: &TensorView) -> Result<HostTensor, InputError> {
    let (words, _) = view.data().as_chunks::<2>();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => words.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::BF16 => words.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        other => return Err(InputError::new("unsupported number format").found(other).expected("F32, F16 or BF16")),
    };
    match values.iter().filter(|value| !value.is_finite()).count() {
        0 => Ok(HostTensor { shape: view.shape().to_vec(), values }),
        count => Err(InputError::new("holds NaN or infinity").found(format!("{count} of {} values", values.len()))),
    }
}

fn not_safetensors(bytes: &[u8], error: &SafeTensorError) -> InputError {
    let problem = InputError::new(format!("not a safetensors file ({error})"));
    if bytes.starts_with(b"version https://git-lfs") {
        problem.hint("this is a Git LFS pointer: run `git lfs pull`")
    } else if bytes.trim_ascii_start().starts_with(b"<") {
        problem.hint("this is a web page: download the file itself")
    } else {
        problem.hint("the file may be cut short: download it again")
    }
}

/// JSON parsers keep the last of two equal names, so a second tensor could hide a first.
fn unique_names(header: &[u8]) -> Result<(), InputError> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen = HashSet::new();
            while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                if seen.contains(&name) {
                    return Err(A::Error::custom(format!("tensor {name} appears twice")));
                }
                seen.insert(name);
            }
            Ok(())
        }
    }
    let names = serde_json::Deserializer::from_slice(header).deserialize_map(Names);
    names.map_err(|error| InputError::new(format!("damaged header ({error})")))
}
