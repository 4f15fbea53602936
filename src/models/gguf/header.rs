//! The header of a GGUF file, versions 2 and 3: metadata, tensor table and where the data begin.
//!
//! Every length is compared with the bytes that remain before it is used, so a lying header costs no more
//! memory or time than its own size. Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use super::quant::Quant;
use crate::error::InputError;
use crate::{Error, Result};

const MAX_NAME_BYTES: usize = 64;
const MAX_KEY_BYTES: usize = 65_535;

/// The path is added at the end.
pub(super) type Parsed<T> = Result<T, Box<InputError>>;

/// A metadata value; integers of every width are one kind, and so are the floats.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Int(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Ints(Vec<i128>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
}

pub(super) struct Header {
    pub metadata: HashMap<String, Value>,
    pub tensors: Vec<TensorInfo>,
}

pub(super) struct TensorInfo {
    pub name: String,
    pub quant: Quant,
    /// Outermost dimension first, as in Hugging Face files (GGUF stores the reverse).
    pub shape: Vec<usize>,
    /// Byte range in the file.
    pub range: Range<usize>,
}

pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Header> {
    parse_start(bytes, bytes.len(), path)
}

/// From the first bytes of a file of `len` bytes, which must hold the header whole.
pub(super) fn parse_start(bytes: &[u8], len: usize, path: &Path) -> Result<Header> {
    let located = |error: Box<InputError>| Error::from(error.file(path));
    let mut cursor = Cursor { rest: bytes };
    version(&mut cursor).map_err(located)?;
    let tensor_count = cursor.u64().map_err(located)?;
    let key_count = cursor.u64().map_err(located)?;
    let metadata = metadata(&mut cursor, key_count).map_err(located)?;
    let declared = declarations(&mut cursor, tensor_count).map_err(located)?;
    let alignment = alignment(&metadata).map_err(located)?;
    let header_len = bytes.len() - cursor.rest.len();
    let tensors = place(declared, header_len.next_multiple_of(alignment), alignment, len).map_err(located)?;
    Ok(Header { metadata, tensors })
}

fn version(cursor: &mut Cursor) -> Parsed<()> {
    if cursor.take(4)? != b"GGUF" {
        return Err(Error::input("not a GGUF file").expected("the letters GGUF at its start").into());
    }
    match cursor.u32()? {
        2 | 3 => Ok(()),
        other if other.swap_bytes() <= 3 => Err(Error::input("big-endian GGUF is not read").into()),
        other => Err(Error::input("unknown GGUF version").found(other).expected("2 or 3").into()),
    }
}

fn metadata(cursor: &mut Cursor, count: u64) -> Parsed<HashMap<String, Value>> {
    let mut all = HashMap::new();
    for _ in 0..count {
        let key = cursor.text()?;
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(Error::input("metadata key of impossible length").found(key.len()).into());
        }
        let kind = cursor.u32()?;
        let value = cursor.value(kind).map_err(|error| error.key(&key))?;
        if all.insert(key.clone(), value).is_some() {
            return Err(Error::input("metadata key given twice").key(key).into());
        }
    }
    Ok(all)
}

fn alignment(metadata: &HashMap<String, Value>) -> Parsed<usize> {
    match metadata.get("general.alignment") {
        None => Ok(32),
        Some(&Value::Int(bytes)) if (1..=1 << 20).contains(&bytes) && bytes.count_ones() == 1 => Ok(bytes as usize),
        Some(other) => {
            let error = Error::input("impossible alignment").key("general.alignment");
            Err(error.found(format!("{other:?}")).expected("a power of two").into())
        }
    }
}

/// A tensor as the table declares it; the offset counts from the start of the data.
struct Declared {
    name: String,
    quant: Quant,
    shape: Vec<usize>,
    offset: u64,
}

fn declarations(cursor: &mut Cursor, count: u64) -> Parsed<Vec<Declared>> {
    let mut all = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..count {
        let name = cursor.text()?;
        let declared = declaration(cursor, &name).map_err(|error| error.tensor(name.escape_debug().to_string()))?;
        if !names.insert(name.clone()) {
            return Err(Error::input("listed twice").tensor(name).into());
        }
        all.push(declared);
    }
    Ok(all)
}

fn declaration(cursor: &mut Cursor, name: &str) -> Parsed<Declared> {
    if name.is_empty() || name.len() >= MAX_NAME_BYTES {
        return Err(Error::input("tensor name of impossible length").found(name.len()).into());
    }
    let dims = cursor.u32()?;
    if dims > 4 {
        return Err(Error::input("too many dimensions").found(dims).expected("at most 4").into());
    }
    let mut shape = Vec::new();
    for _ in 0..dims {
        let size = cursor.u64()?;
        shape.push(usize::try_from(size).map_err(|_| Error::input("dimension too large").found(size))?);
    }
    shape.reverse();
    let quant = Quant::from_id(cursor.u32()?)?;
    Ok(Declared { name: name.to_string(), quant, shape, offset: cursor.u64()? })
}

/// Turns offsets into ranges of the file. Tensors follow each other without holes or overlaps, each
/// padded to the alignment.
fn place(declared: Vec<Declared>, start: usize, alignment: usize, len: usize) -> Parsed<Vec<TensorInfo>> {
    let mut next = start;
    let mut all = Vec::new();
    for Declared { name, quant, shape, offset } in declared {
        let expected = (next - start) as u64;
        if offset != expected {
            let error = Error::input("tensor data overlap or leave a hole").tensor(name);
            return Err(error.found(format!("offset {offset}")).expected(expected).into());
        }
        let Some(size) = quant.stored_bytes(&shape) else {
            let found = format!("{} of shape {shape:?}", quant.name());
            return Err(Error::input("impossible shape").tensor(name).found(found).into());
        };
        let end = next.checked_add(size).filter(|&end| end <= len);
        let Some(end) = end else {
            let found = format!("{size} bytes of data at {next} in a file of {len}");
            return Err(Error::input("file too short").tensor(name).found(found).hint("truncated download?").into());
        };
        all.push(TensorInfo { name, quant, shape, range: next..end });
        next = end.next_multiple_of(alignment);
    }
    Ok(all)
}

/// What is left to parse.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: u64) -> Parsed<&'a [u8]> {
        let split = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let Some((taken, rest)) = split else {
            let error = Error::input("GGUF header ends early").found(format!("{} bytes left", self.rest.len()));
            return Err(error.expected(len).hint("truncated download?").into());
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Parsed<String> {
        let len = self.u64()?;
        let bytes = self.take(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Error::input("text in the header is not UTF-8").into())
    }

    fn value(&mut self, kind: u32) -> Parsed<Value> {
        Ok(match kind {
            0..=5 | 10 | 11 => Value::Int(self.int(kind)?),
            6 | 12 => Value::Float(self.float(kind)?),
            7 => Value::Bool(self.bool()?),
            8 => Value::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                let count = self.u64()?;
                self.list(kind, count)?
            }
            other => return Err(Error::input("unknown type of metadata value").found(other).into()),
        })
    }

    fn list(&mut self, kind: u32, count: u64) -> Parsed<Value> {
        if count > self.rest.len() as u64 {
            let error = Error::input("list longer than the file").found(format!("{count} elements"));
            return Err(error.expected(format!("at most {}", self.rest.len())).into());
        }
        Ok(match kind {
            0..=5 | 10 | 11 => Value::Ints((0..count).map(|_| self.int(kind)).collect::<Parsed<_>>()?),
            6 | 12 => Value::Floats((0..count).map(|_| self.float(kind)).collect::<Parsed<_>>()?),
            7 => Value::Bools((0..count).map(|_| self.bool()).collect::<Parsed<_>>()?),
            8 => Value::Texts((0..count).map(|_| self.text()).collect::<Parsed<_>>()?),
            9 => return Err(Error::input("list of lists in the metadata").into()),
            other => return Err(Error::input("unknown type of metadata value").found(other).into()),
        })
    }

    fn int(&mut self, kind: u32) -> Parsed<i128> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => u32::from_le_bytes(self.array()?).into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            10 => u64::from_le_bytes(self.array()?).into(),
            _ => i64::from_le_bytes(self.array()?).into(),
        })
    }

    /// An f32 becomes the f64 of the same shortest decimal: 1e-5 and not 9.99999974e-6.
    fn float(&mut self, kind: u32) -> Parsed<f64> {
        if kind == 12 {
            return self.array().map(f64::from_le_bytes);
        }
        let value = f32::from_le_bytes(self.array()?);
        Ok(value.to_string().parse().unwrap_or(value.into()))
    }

    fn bool(&mut self) -> Parsed<bool> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Error::input("neither true nor false").found(other).into()),
        }
    }
}
