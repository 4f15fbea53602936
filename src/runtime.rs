//! The object-safe face of a backend: everything above it speaks plain data, everything below it is
//! generic over the backend and instantiated once, in that backend's own crate.

use crate::Result;
use crate::data::Batch;

/// A device a runtime can use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// `flex`, `wgpu:0`, ...: what `--device` accepts.
    pub name: String,
    /// What the driver calls it.
    pub description: String,
}

/// Greedy generation unless `temperature` is above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    pub max_new_tokens: usize,
    pub temperature: f64,
    pub seed: u64,
    pub stop: Vec<u32>,
}

/// A loaded model, with or without an adapter, on some device.
pub trait LanguageModel {
    /// Logits of every position, `rows × len × vocab`, row-major.
    fn logits(&self, batch: &Batch) -> Result<Vec<f32>>;
    /// Sum of the negative log-likelihood over the trained positions, and their number.
    fn loss(&self, batch: &Batch) -> Result<(f64, usize)>;
    /// Continues `prompt`; calls `on_token` for each new token and stops early when it returns false.
    fn generate(&self, prompt: &[u32], sampling: &Sampling, on_token: &mut dyn FnMut(u32) -> bool) -> Result<Vec<u32>>;
}
