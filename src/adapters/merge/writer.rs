//! A safetensors file written front to back: the header first, then tensor after tensor.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, json};

use super::dtype::OutDtype;
use super::output::Output;
use crate::{Error, Result};

pub(super) struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    dtype: OutDtype,
    buffer: Vec<u8>,
}

impl Writer {
    /// Creates the file and writes the header; the values must follow in the order of `outputs`.
    pub fn create(path: &Path, dtype: OutDtype, outputs: &[Output]) -> Result<Self> {
        let mut header = Map::from_iter([("__metadata__".to_string(), json!({ "format": "pt" }))]);
        let mut end = 0;
        for Output { name, shape, .. } in outputs {
            let start = end;
            end += shape.iter().product::<usize>() * dtype.bytes();
            header.insert(name.clone(), json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [start, end] }));
        }
        let mut header = json!(header).to_string();
        // The values start at a multiple of 8 bytes, as the format asks.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let file = File::create(path).map_err(Error::io(path))?;
        let mut writer = Self { path: path.into(), file: BufWriter::new(file), dtype, buffer: Vec::new() };
        writer.put(&(header.len() as u64).to_le_bytes())?;
        writer.put(header.as_bytes())?;
        Ok(writer)
    }

    /// Casts and writes the next values of `tensor`; returns the largest change by the cast.
    pub fn write(&mut self, tensor: &str, values: &[f32]) -> Result<f32> {
        let mut rounding = 0f32;
        for chunk in values.chunks(1 << 16) {
            let mut bytes = std::mem::take(&mut self.buffer);
            bytes.clear();
            for value in chunk {
                let rounded = self.dtype.encode(*value, &mut bytes);
                if !rounded.is_finite() {
                    return Err(Error::input("a merged value is not finite in the output format")
                        .tensor(tensor)
                        .found(value)
                        .expected(format!("a number that fits {}", self.dtype.name()))
                        .hint("bf16 and f32 hold larger numbers than f16")
                        .into());
                }
                rounding = rounding.max((rounded - value).abs());
            }
            self.put(&bytes)?;
            self.buffer = bytes;
        }
        Ok(rounding)
    }

    /// Brings everything to the disk.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(Error::io(&self.path))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))
    }
}
