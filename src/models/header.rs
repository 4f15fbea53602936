//! The header of a safetensors file, checked tensor by tensor before the `safetensors` crate sees it.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::InputError;
use crate::{Error, Result};

const MAX_HEADER_BYTES: u64 = 100_000_000;
const MAX_TENSORS: usize = 1_000_000;
const MAX_DIMS: usize = 8;

/// Refuses impossible lengths, duplicate names, absurd shapes and data outside the file. Whether the
/// tensors tile the data exactly is left to the `safetensors` crate.
pub(super) fn check(bytes: &[u8], path: &Path) -> Result<()> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| {
        Error::input("too short for a safetensors file").file(path).found(format!("{} bytes", bytes.len()))
    })?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES || length > rest.len() as u64 {
        let error = Error::input("safetensors header is longer than the file or the limit").file(path);
        let limit = format!("at most {}", MAX_HEADER_BYTES.min(rest.len() as u64));
        return Err(error.found(format!("{length} bytes")).expected(limit).hint("truncated download?").into());
    }
    let (header, data) = rest.split_at(length as usize);
    if !header.starts_with(b"{") {
        return Err(Error::input("safetensors header does not begin with `{`").file(path).into());
    }
    let entries: Entries = serde_json::from_slice(header)
        .map_err(|error| Error::input(format!("safetensors header: {error}")).file(path))?;
    let mut seen = HashSet::new();
    for (name, entry) in &entries.0 {
        let wrong = if seen.insert(name) { entry.fault(data.len() as u64) } else { Some(Error::input("listed twice")) };
        if let Some(error) = wrong {
            return Err(error.file(path).tensor(name).into());
        }
    }
    Ok(())
}

/// Entries of the header in order, repetitions kept (a map would keep the last one in silence).
struct Entries(Vec<(String, Entry)>);

#[derive(Deserialize)]
struct Entry {
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Entry {
    fn fault(&self, data_len: u64) -> Option<InputError> {
        let (begin, end) = self.data_offsets;
        if self.shape.len() > MAX_DIMS {
            let found = format!("{} dimensions", self.shape.len());
            Some(Error::input("too many dimensions").found(found).expected(format!("at most {MAX_DIMS}")))
        } else if begin > end || end > data_len {
            let expected = format!("within the {data_len} bytes of data");
            Some(Error::input("data outside the file").found(format!("{begin}..{end}")).expected(expected))
        } else {
            None
        }
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Self, M::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else if self.0.len() == MAX_TENSORS {
                return Err(de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            } else {
                let entry = map.next_value().map_err(|error| de::Error::custom(format!("tensor {name}: {error}")))?;
                self.0.push((name, entry));
            }
        }
        Ok(self)
    }
}
