//! The tensor program of one backend: a [`Plug`] names the backend, [`Program`] makes a [`Runtime`] of it.

use std::marker::PhantomData;

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::Device;
use lowrank_kernels::{Compute, LowRankBackend, TrainBackend};

use super::learner::TensorLearner;
use super::{AdapterSpec, Base, BaseSpec, DeviceInfo, Learner, Processor, Runtime, SelfTest, self_test};
use crate::adapters::{Injection, inject};
use crate::models::{self, Model, ModelConfig};
use crate::tensors::HostTensors;
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

    fn self_test(&self, device: usize) -> Result<SelfTest> {
        self_test::run::<<P::Backend as AutodiffBackend>::InnerBackend>(&device_number::<P>(device)?)
    }

    fn load(&self, device: usize, base: &BaseSpec<'_>) -> Result<Box<dyn Base>> {
        let device = &device_number::<P>(device)?;
        let compute = Compute::from(base.storage.compute);
        if !P::Backend::computes_in(compute, device) {
            let error = Error::input(format!("{} cannot compute in {}", P::NAME, compute.name())).key("base.compute");
            return Err(error.hint("`base.compute = \"f32\"` works everywhere").into());
        }
        let (mut model, left) =
            models::load::<P::Backend>(base.config, base.weights, base.storage, base.loftq, device)?;
        let bytes = model.bytes();
        Ok(Box::new(TensorBase { model, left, bytes, config: base.config.clone(), device: device.clone() }))
    }
}

fn device_number<P: Plug>(number: usize) -> Result<Device<P::Backend>> {
    let mut found = P::devices();
    if number < found.len() {
        return Ok(found.swap_remove(number).1);
    }
    let names = found.iter().map(|(info, _)| info.name.as_str()).collect::<Vec<_>>().join(", ");
    Err(Error::input(format!("no device {}:{number}", P::NAME)).expected(names).into())
}

struct TensorBase<B: TrainBackend> {
    model: Model<B>,
    /// What fresh adapters start from, by path; empty without LoftQ.
    left: HostTensors,
    bytes: u64,
    config: ModelConfig,
    device: Device<B>,
}

impl<B: TrainBackend> Base for TensorBase<B> {
    fn attach(&self, spec: &AdapterSpec<'_>) -> Result<Box<dyn Learner>> {
        let mut model = self.model.clone();
        let AdapterSpec { adapter, origin, seed, values, .. } = *spec;
        let values = values.or((!self.left.is_empty()).then_some(&self.left));
        let adapted = inject(&mut model, &self.config, &Injection { adapter, origin, seed, values })?;
        Ok(Box::new(TensorLearner::new(model, &self.config, adapted, spec, &self.device)?))
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
