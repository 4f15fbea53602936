//! Where weights come from: named tensors on the host, read one at a time.

use std::path::Path;

use lowrank_kernels::four_bit::{Format, Quantised};

use crate::{Error, Result};

/// Frozen weights of a checkpoint under Hugging Face names and in Hugging Face orientation
/// (`[out, in]`, rotary halves not interleaved), whatever the file format.
pub trait WeightSource: Send + Sync {
    /// The directory or file, for messages.
    fn path(&self) -> &Path;
    /// Every tensor name, sorted.
    fn names(&self) -> Vec<String>;
    /// Shape of a tensor, or `None` if there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// Values of one tensor as f32, row-major. Non-finite values are an input error naming the
    /// tensor and how many there are.
    fn read(&self, name: &str) -> Result<Vec<f32>>;
    /// The file's name of the data type: `F32`, `BF16`, `Q4_K`, ...; empty if there is no such tensor.
    fn dtype(&self, name: &str) -> String;
    /// Bytes the tensor takes in its file.
    fn stored_bytes(&self, name: &str) -> u64;
    /// SHA-256 of the files as stored, in hexadecimal: which base this is.
    fn sha256(&self) -> String;

    /// Format of a tensor whose codes [`Self::four_bit`] hands out; none of any other.
    fn four_bit_format(&self, _name: &str) -> Option<Format> {
        None
    }
    /// Codes and scales of a tensor that has a [`Self::four_bit_format`], as they are stored.
    fn four_bit(&self, _name: &str) -> Result<Option<Quantised>> {
        Ok(None)
    }
}

/// The four-bit format that a source's tensors have already; all that have one have the same.
pub(crate) fn stored_format(weights: &dyn WeightSource) -> Option<Format> {
    weights.names().iter().find_map(|name| weights.four_bit_format(name))
}

/// Passes `values` on if all are finite.
pub(super) fn finite(values: Vec<f32>, name: &str, path: &Path) -> Result<Vec<f32>> {
    let bad = values.iter().filter(|value| !value.is_finite()).count();
    if bad == 0 {
        return Ok(values);
    }
    let found = format!("{bad} of {} values NaN or infinite", values.len());
    Err(Error::input("non-finite weights").file(path).tensor(name).found(found).into())
}

pub(super) fn no_such_tensor(name: &str, path: &Path) -> Error {
    Error::input("no such tensor").file(path).tensor(name).into()
}

/// SHA-256 over several byte ranges, as one stream.
pub(super) fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    format!("{:x}", hash.finalize())
}
