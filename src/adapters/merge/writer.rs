//! A safetensors file, written tensor by tensor in any order. What is only known at the end goes to the end.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::dtype::OutDtype;
use crate::models::bnb::Part;
use crate::{Error, Result};

/// Bytes of a header's entry beside the name, at most.
const ENTRY: usize = 128;

pub(super) struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    header: Map<String, Value>,
    /// Bytes that the header may take; the values follow.
    room: usize,
    /// First byte of each tensor, counted from the first value.
    starts: HashMap<String, usize>,
    /// Tensors that follow the last of `starts`, with their bytes.
    late: Vec<(Part, Vec<u8>)>,
    end: usize,
    buffer: Vec<u8>,
}

impl Writer {
    /// Creates the file with room for `parts`, and for tensors named `late` whose lengths are told later.
    pub fn create(path: &Path, mut parts: Vec<Part>, late: &[String]) -> Result<Self> {
        // Readers ask that a value starts at a multiple of its width.
        parts.sort_by_key(|part| Reverse(part.width()));
        let mut header = Map::from_iter([("__metadata__".to_string(), json!({ "format": "pt" }))]);
        let (mut end, mut starts) = (0, HashMap::new());
        for part in parts {
            starts.insert(part.name.clone(), end);
            end += enter(&mut header, part, end);
        }
        let room = json!(header).to_string().len() + late.iter().map(|name| name.len() + ENTRY).sum::<usize>();
        // The values start at a multiple of 8 bytes, as the format asks.
        let room = room.next_multiple_of(8);
        let file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
        Ok(Self { path: path.into(), file, header, room, starts, late: Vec::new(), end, buffer: Vec::new() })
    }

    /// Casts and writes the values of `tensor`; returns the largest change by the cast.
    pub fn values(&mut self, tensor: &str, values: &[f32], dtype: OutDtype) -> Result<f32> {
        self.seek(tensor)?;
        let mut rounding = 0f32;
        for chunk in values.chunks(1 << 16) {
            let mut bytes = std::mem::take(&mut self.buffer);
            bytes.clear();
            for value in chunk {
                let rounded = dtype.encode(*value, &mut bytes);
                if !rounded.is_finite() {
                    return Err(Error::input("a merged value is not finite in the output format")
                        .tensor(tensor)
                        .found(value)
                        .expected(format!("a number that fits {}", dtype.name()))
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

    /// Writes `tensor` as it is.
    pub fn bytes(&mut self, tensor: &str, bytes: &[u8]) -> Result<()> {
        self.seek(tensor)?;
        self.put(bytes)
    }

    /// Keeps one of the late tensors for the end of the file.
    pub fn late(&mut self, part: Part, bytes: Vec<u8>) {
        self.late.push((part, bytes));
    }

    /// Writes what was kept, and the header, and brings everything to the disk.
    pub fn finish(mut self) -> Result<()> {
        self.seek_to(8 + self.room + self.end)?;
        for (part, bytes) in std::mem::take(&mut self.late) {
            self.end += enter(&mut self.header, part, self.end);
            self.put(&bytes)?;
        }
        let mut header = json!(self.header).to_string();
        header.push_str(&" ".repeat(self.room.saturating_sub(header.len())));
        self.seek_to(0)?;
        self.put(&(self.room as u64).to_le_bytes())?;
        self.put(header.as_bytes())?;
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(Error::io(&self.path))
    }

    fn seek(&mut self, tensor: &str) -> Result<()> {
        let start = *self.starts.get(tensor).ok_or_else(|| Error::Failed(format!("no room for tensor {tensor}")))?;
        self.seek_to(8 + self.room + start)
    }

    fn seek_to(&mut self, at: usize) -> Result<()> {
        self.file.seek(SeekFrom::Start(at as u64)).map(drop).map_err(Error::io(&self.path))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))
    }
}

/// Adds a tensor that begins at `start`; returns its length.
fn enter(header: &mut Map<String, Value>, part: Part, start: usize) -> usize {
    let bytes = part.bytes();
    let entry = json!({ "dtype": part.dtype, "shape": part.shape, "data_offsets": [start, start + bytes] });
    header.insert(part.name, entry);
    bytes
}
