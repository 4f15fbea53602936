//! Named tensors on the host, and their safetensors form.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use half::{bf16, f16};
use indexmap::IndexMap;
use safetensors::tensor::{Metadata, SafeTensors, TensorInfo, TensorView};
use safetensors::{Dtype, SafeTensorError};
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::InputError;
use crate::{Error, Result};

/// One tensor on the host, f32, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostTensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

pub type HostTensors = IndexMap<String, HostTensor>;

/// What PEFT and transformers ask for.
fn metadata() -> HashMap<String, String> {
    [("format".to_string(), "pt".to_string())].into()
}

/// A safetensors file of f32 tensors. Equal tensors give equal bytes, whatever order they come in: the format
/// sorts by name.
pub fn encode(tensors: &HostTensors) -> Result<Vec<u8>> {
    let bytes = |tensor: &HostTensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<Vec<u8>> = tensors.values().map(bytes).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        view.map(|view| (name, view)).map_err(|error| Error::Failed(format!("cannot write tensor {name}: {error}")))
    });
    let views: Vec<_> = views.collect::<Result<_>>()?;
    safetensors::serialize(views, Some(metadata())).map_err(|error| Error::Failed(format!("cannot write: {error}")))
}

/// How many bytes [`encode`] makes of tensors of these names and shapes: a length, the header padded to eight bytes, four for each value.
pub fn encoded_len(shapes: impl IntoIterator<Item = (String, Vec<usize>)>) -> Result<u64> {
    let mut shapes: Vec<_> = shapes.into_iter().collect();
    shapes.sort_unstable();
    let mut end = 0;
    let info = |(name, shape): (String, Vec<usize>)| {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        (name, TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) })
    };
    let infos = shapes.into_iter().map(info).collect();
    let failed = |error: String| Error::Failed(format!("cannot size a file: {error}"));
    let header = Metadata::new(Some(metadata()), infos).map_err(|error| failed(error.to_string()))?;
    let header = serde_json::to_string(&header).map_err(|error| failed(error.to_string()))?;
    Ok((8 + header.len().next_multiple_of(8) + end) as u64)
}

/// The tensors of a safetensors file of F32, F16 or BF16, sorted by name. `path` is for messages.
pub fn decode(bytes: &[u8], path: &Path) -> Result<HostTensors> {
    tensors(bytes).map_err(|error| error.file(path).into())
}

fn tensors(bytes: &[u8]) -> Result<HostTensors, InputError> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| not_safetensors(bytes, &error))?;
    let (header_bytes, _) = SafeTensors::read_metadata(bytes).map_err(|error| not_safetensors(bytes, &error))?;
    unique_names(&bytes[8..8 + header_bytes])?;
    let mut views: Vec<_> = file.iter().collect();
    views.sort_unstable_by_key(|(name, _)| *name);
    let read = |(name, view): (&str, TensorView)| {
        Ok((name.to_string(), to_f32(&view).map_err(|error: InputError| error.tensor(name))?))
    };
    views.into_iter().map(read).collect()
}

fn to_f32(view: &TensorView) -> Result<HostTensor, InputError> {
    let (words, _) = view.data().as_chunks::<2>();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => words.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::BF16 => words.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        other => return Err(InputError::new("unsupported number format").found(other).expected("F32, F16 or BF16")),
    };
    Ok(HostTensor { shape: view.shape().to_vec(), values })
}

/// The first tensor that holds NaN or infinity, as an error.
pub fn check_finite(tensors: &HostTensors) -> Result<(), InputError> {
    for (name, tensor) in tensors {
        let count = tensor.values.iter().filter(|value| !value.is_finite()).count();
        if count > 0 {
            let found = format!("{count} of {} values", tensor.values.len());
            return Err(InputError::new("holds NaN or infinity").tensor(name).found(found));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tensors_have_one_encoding_and_come_back_bit_for_bit() {
        let tensor = |values: &[f32]| HostTensor { shape: vec![values.len()], values: values.to_vec() };
        let nan = f32::from_bits(0x7fc1_2345);
        let mut tensors = HostTensors::from([("b".into(), tensor(&[-0.0, nan])), ("a".into(), tensor(&[]))]);
        let bytes = encode(&tensors).unwrap();
        let back = decode(&bytes, Path::new("m")).unwrap();
        assert_eq!(back["b"].values[1].to_bits(), nan.to_bits());
        assert!(back["b"].values[0].is_sign_negative() && back["a"].values.is_empty());
        assert!(check_finite(&back).unwrap_err().to_string().contains("tensor b"));
        tensors.reverse();
        assert_eq!(encode(&tensors).unwrap(), bytes);
        let shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone()));
        assert_eq!(encoded_len(shapes).unwrap(), bytes.len() as u64);
        tensors.insert("bad".into(), HostTensor { shape: vec![2], values: vec![0.0] });
        assert!(encode(&tensors).unwrap_err().to_string().contains("bad"));
    }

    #[test]
    fn a_name_twice_is_refused() {
        let entry = r#""x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        let header = format!("{{{entry},{entry}}}");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        assert!(decode(&bytes, Path::new("m")).is_err());
    }
}
