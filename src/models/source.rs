//! Where weights come from: named tensors on the host, read one at a time.

use std::path::Path;

use crate::Result;

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
    /// Bytes the tensor takes in its file.
    fn stored_bytes(&self, name: &str) -> u64;
}
