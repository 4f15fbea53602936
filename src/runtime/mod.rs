//! The object-safe face of a backend.
//!
//! Above it everything speaks plain data and is compiled once; below it everything is generic over the
//! backend and instantiated once, in that backend's own crate, through [`Program`].

mod generate;
mod goal;
mod host;
mod learner;
mod program;
mod self_test;
mod step;

pub use generate::Sampling;
pub use host::Host;
pub(crate) use host::kibibytes;
pub use program::{Plug, Program};
pub use self_test::{Frozen, Matmul, SelfTest};

use indexmap::IndexMap;
pub use lowrank_kernels::DropoutKey;

use crate::Result;
use crate::adapters::{AdapterConfig, Loftq, Origin, Selected};
use crate::data::Batch;
use crate::events::Event;
use crate::models::{ModelConfig, WeightSource};
use crate::recipe::{BaseStorage, Optim};
use crate::tensors::HostTensors;

/// A device a runtime can use.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// What `--device` accepts: `flex`, `wgpu:0`, ...
    pub name: String,
    /// What the driver calls it.
    pub description: String,
    /// Driver and its version, where there is one.
    pub driver: Option<String>,
    /// Bytes of memory, where the driver says.
    pub memory: Option<u64>,
    /// Most bytes that one buffer may have, where the driver says.
    pub largest_buffer: Option<u64>,
}

/// What a backend computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Processor {
    /// Code compiled with the program, on memory of the process.
    Cpu,
    /// Kernels compiled when they are first used, on memory of the device.
    Gpu,
}

/// Threads that the CPU backends use.
pub fn cpu_threads() -> usize {
    rayon::current_num_threads()
}

/// One compiled backend.
pub trait Runtime: Sync {
    /// `flex`, `ndarray`, `wgpu`, `cuda`.
    fn name(&self) -> &'static str;
    fn processor(&self) -> Processor;
    /// Devices found now; empty when a driver is missing.
    fn devices(&self) -> Vec<DeviceInfo>;
    /// Tries for about a second, kernel compilation aside, what training needs of device number `device`.
    ///
    /// # Errors
    /// [`crate::Error::Failed`] if a result is wrong, the device refuses, or its driver panics.
    fn self_test(&self, device: usize) -> Result<SelfTest>;
    /// Loads a frozen base onto device number `device`.
    fn load(&self, device: usize, base: &BaseSpec<'_>) -> Result<Box<dyn Base>>;
}

/// A frozen base to load.
pub struct BaseSpec<'a> {
    pub config: &'a ModelConfig,
    pub weights: &'a dyn WeightSource,
    pub storage: BaseStorage,
    /// Layers that are quantised for a start with LoftQ, if any. Needs `storage.quant`.
    pub loftq: Option<Loftq<'a>>,
}

/// A frozen base on a device, shared by every learner attached to it.
pub trait Base {
    /// A model that shares this base, with fresh adapters and a fresh optimizer.
    fn attach(&self, spec: &AdapterSpec<'_>) -> Result<Box<dyn Learner>>;
    /// Bytes of the weights as stored on the device.
    fn bytes(&self) -> u64;
}

/// What to attach.
pub struct AdapterSpec<'a> {
    pub adapter: &'a AdapterConfig,
    pub origin: Origin,
    pub optim: &'a Optim,
    pub seed: u64,
    /// Optimizer steps that the run will take, for methods that plan ahead.
    pub total_steps: usize,
    /// Values read from a file, by path, where the adapter comes from one.
    pub values: Option<&'a HostTensors>,
}

impl<'a> AdapterSpec<'a> {
    /// A fresh adapter of a recipe.
    pub fn fresh(adapter: &'a AdapterConfig, optim: &'a Optim, seed: u64) -> Self {
        Self { adapter, origin: Origin::Recipe, optim, seed, total_steps: 0, values: None }
    }
}

/// How one forward and backward is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Micro {
    /// The summed loss of this batch is multiplied by this before the backward pass:
    /// 1 / (trained tokens of the whole accumulated step).
    pub weight: f64,
    pub dropout: Option<DropoutKey>,
    /// Keep only the inputs of blocks and recompute the rest (Chen et al. 2016).
    pub gradient_checkpointing: bool,
}

/// What one forward and backward gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct MicroResult {
    /// Summed negative log-likelihood over the trained tokens, in nats.
    pub loss: f64,
    pub forward_ms: f64,
    pub backward_ms: f64,
}

/// A model on a device: evaluated, generated from and, where something trains, trained.
pub trait Learner {
    /// Modules that carry an adapter, in module order.
    fn adapted(&self) -> &[Selected];
    /// Path and shape of every parameter that trains, in module order.
    fn trainable(&self) -> IndexMap<String, Vec<usize>>;

    /// The head's outputs at every position, `[rows × len × outputs]`, row-major: logits of the vocabulary or of classes; hidden
    /// states of a model without a head. Where there is a decoder, at its positions.
    fn logits(&self, batch: &Batch) -> Result<Vec<f32>>;
    /// The summed loss of the batch's goal: of classes the negative log-likelihood, in nats.
    fn loss(&self, batch: &Batch) -> Result<f64>;
    /// Both, of one forward pass.
    fn loss_and_logits(&self, batch: &Batch) -> Result<(f64, Vec<f32>)> {
        Ok((self.loss(batch)?, self.logits(batch)?))
    }
    /// For each adapted linear module the sum of ‖correction‖² over the positions that are not padding, in module order.
    /// Modules whose method does not report its correction are absent.
    fn update_energy(&self, batch: &Batch) -> Result<IndexMap<String, f64>>;
    /// Continues `prompt` up to the model's last position, or answers it, where an encoder reads it; each new token goes to `on_token`, which ends the text by returning false.
    fn generate(&self, prompt: &[u32], sampling: &Sampling, on_token: &mut dyn FnMut(u32) -> bool) -> Result<Vec<u32>>;

    /// Adds the gradients of one batch to those gathered since the last step. A non-finite loss adds nothing.
    fn accumulate(&mut self, batch: &Batch, micro: &Micro) -> Result<MicroResult>;
    /// Euclidean norm of all gathered gradients together, summed in module order. What a method adds to them is in.
    fn grad_norm(&mut self) -> f64;
    /// One optimizer step with the gathered gradients times `grad_scale`; forgets them.
    fn step(&mut self, lr: f64, grad_scale: f64);
    /// Forgets the gathered gradients.
    fn discard(&mut self);
    /// Learning rate of each parameter group when the recipe's is `lr`.
    fn rates(&self, lr: f64) -> IndexMap<String, f64>;

    /// Active ranks as [`Event::Ranks`], of a method that changes them.
    fn ranks(&self) -> Option<Event>;
    /// No more steps follow: a method settles what it had planned for later.
    fn finish(&mut self);

    /// Values of everything that trains, and of what adapters keep frozen.
    fn export(&self) -> HostTensors;
    /// Gathered gradients, flat, by path.
    fn gradients(&self) -> IndexMap<String, Vec<f32>>;
    /// Replaces values of what [`Self::export`] lists; an unknown path or another shape is an error.
    fn import(&mut self, values: &HostTensors) -> Result<()>;
    /// State of optimizer and method, by path and what it is.
    fn state(&self) -> HostTensors;
    /// Takes up where [`Self::state`] left off, `step` optimizer steps into the run.
    fn set_state(&mut self, state: &HostTensors, step: usize) -> Result<()>;
}
