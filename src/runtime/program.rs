//! The tensor program of one backend: a [`Plug`] names the backend, [`Program`] makes a [`Runtime`] of it.

use std::marker::PhantomData;

use burn::tensor::ops::Device;
use lowrank_kernels::TrainBackend;

use super::learner::TensorLearner;
use super::{AdapterSpec, Base, BaseSpec, DeviceInfo, Learner, Processor, Runtime};
use crate::adapters::{Injection, inject};
use crate::models::llama::Llama;
use crate::models::{self, ModelConfig};
use crate::{Error, Result};

/// What a backend's crate says of itself.
pub trait Plug: Sync + 'static {
    type Backend: TrainBackend;
    /// `flex`, `ndarray`, `wgpu`, `cuda`.
    const NAME: &'static str;
    const PROCESSOR: Processor;
    /// Devices found now, with what `--device` calls them.
    fn devices() -> Vec<(DeviceInfo, Device<Self::Backend>)>;
}

/// A [`Runtime`] from a [`Plug`].
pub struct Program<P>(PhantomData<fn() -> P>);

impl<P> Program<P> {
    pub const fn new() -> Self {
        Program(PhantomData)
    }
}

impl<P> Default for Program<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Plug> Runtime for Program<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn processor(&self) -> Processor {
        P::PROCESSOR
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        P::devices().into_iter().map(|(info, _)| info).collect()
    }

    fn load(&self, device: usize, base: &BaseSpec<'_>) -> Result<Box<dyn Base>> {
        let found = P::devices();
        let names = || found.iter().map(|(info, _)| info.name.as_str()).collect::<Vec<_>>().join(", ");
        let Some((_, device)) = found.get(device) else {
            return Err(Error::input(format!("no device {}:{device}", P::NAME)).expected(names()).into());
        };
        let model = models::load::<P::Backend>(base.config, base.weights, base.dtype, device)?;
        Ok(Box::new(TensorBase { model, config: base.config.clone() }))
    }
}

struct TensorBase<B: TrainBackend> {
    model: Llama<B>,
    config: ModelConfig,
}

impl<B: TrainBackend> Base for TensorBase<B> {
    fn attach(&self, spec: &AdapterSpec<'_>) -> Result<Box<dyn Learner>> {
        let mut model = self.model.clone();
        let AdapterSpec { adapter, origin, seed, values, .. } = *spec;
        let adapted = inject(&mut model, &self.config, &Injection { adapter, origin, seed, values })?;
        Ok(Box::new(TensorLearner::new(model, &self.config, adapted, spec)?))
    }

    fn bytes(&self) -> u64 {
        self.model.bytes()
    }
}
