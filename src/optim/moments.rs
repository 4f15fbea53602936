//! Where the moments of a parameter lie between two steps.

use burn::optim::{AdamWState, AdaptiveMomentumState};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::recipe::Offload;

/// The state of AdamW for one parameter, where the recipe keeps it.
pub(super) enum Moments<B: Backend> {
    Device(AdamWState<B, 1>),
    Host(HostMoments),
}

/// The same in host memory, bit for bit.
#[derive(Clone)]
pub(super) struct HostMoments {
    /// Steps taken.
    pub time: usize,
    /// Running mean of gradients.
    pub exp_avg: Vec<f32>,
    /// Running mean of squared gradients.
    pub exp_avg_sq: Vec<f32>,
}

impl<B: Backend> Moments<B> {
    /// Puts away what a step left.
    pub fn stepped(state: AdamWState<B, 1>, offload: Offload) -> Self {
        match offload {
            Offload::Device => Self::Device(state),
            Offload::Host => Self::Host(HostMoments::off(state)),
        }
    }

    /// Puts away what a checkpoint had.
    pub fn restored(host: HostMoments, offload: Offload, device: &B::Device) -> Self {
        match offload {
            Offload::Device => Self::Device(host.onto(device)),
            Offload::Host => Self::Host(host),
        }
    }

    /// Ready for a step on `device`.
    pub fn onto(self, device: &B::Device) -> AdamWState<B, 1> {
        match self {
            Self::Device(state) => state,
            Self::Host(host) => host.onto(device),
        }
    }

    /// A copy in host memory.
    pub fn read(&self) -> HostMoments {
        match self {
            Self::Device(state) => HostMoments::off(state.clone()),
            Self::Host(host) => host.clone(),
        }
    }
}

impl HostMoments {
    /// Waits for the device: with the parameters taken one after the other, it holds the moments of one at a time.
    fn off<B: Backend>(AdamWState { momentum }: AdamWState<B, 1>) -> Self {
        let values = |moment: Tensor<B, 1>| {
            moment.into_data().convert::<f32>().into_vec().expect("was made f32 in the call before")
        };
        let AdaptiveMomentumState { time, moment_1, moment_2, .. } = momentum;
        Self { time, exp_avg: values(moment_1), exp_avg_sq: values(moment_2) }
    }

    fn onto<B: Backend>(self, device: &B::Device) -> AdamWState<B, 1> {
        let tensor = |values: Vec<f32>| {
            let shape = [values.len()];
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        AdamWState::new(AdaptiveMomentumState::new(self.time, tensor(self.exp_avg), tensor(self.exp_avg_sq)))
    }
}
