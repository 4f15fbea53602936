//! [`Learner`] on tensors.

use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use indexmap::IndexMap;
use lowrank_kernels::{AttentionLayout, LowRankBackend, TrainBackend};

use super::generate::{self, Sampling};
use super::{Learner, Micro, MicroResult, step};
use crate::adapters::Selected;
use crate::data::Batch;
use crate::models::ModelConfig;
use crate::models::llama::Llama;
use crate::nn::params::{self, GradMap};
use crate::nn::{Pass, positions};
use crate::optim::Optimizer;
use crate::recipe::AdamW;
use crate::tensors::HostTensors;
use crate::{Error, Result};

pub(super) struct TensorLearner<B: TrainBackend> {
    /// Always present; taken only while a step rebuilds it.
    model: Option<Llama<B>>,
    device: B::Device,
    frequencies: Vec<f32>,
    max_positions: usize,
    adapted: Vec<Selected>,
    trainable: IndexMap<String, Vec<usize>>,
    optimizer: Optimizer<B::InnerBackend>,
    grads: GradMap<B::InnerBackend>,
}

impl<B: TrainBackend> TensorLearner<B> {
    pub fn new(model: Llama<B>, config: &ModelConfig, adapted: Vec<Selected>, adamw: &AdamW) -> Self {
        let trainable = params::trainable(&model);
        Self {
            device: model.device(),
            frequencies: config.rope.frequencies(config.head_dim),
            max_positions: config.max_position_embeddings,
            adapted,
            optimizer: Optimizer::new(adamw, &trainable),
            trainable,
            model: Some(model),
            grads: GradMap::new(),
        }
    }

    fn model(&self) -> &Llama<B> {
        self.model.as_ref().expect("the model is only away during a step")
    }

    /// The model on the backend underneath: burn's autodiff registers a step even for operations that nobody
    /// differentiates, and keeps it until the next backward pass.
    fn frozen(&self) -> Llama<B::InnerBackend> {
        self.model().valid()
    }

    /// Hidden states of a batch, on the backend underneath.
    fn hidden(&self, model: &Llama<B::InnerBackend>, batch: &Batch) -> Tensor<B::InnerBackend, 2> {
        model.blocks(ids(batch, &self.device), &self.layout(batch), Pass::EVAL)
    }

    fn layout<T: LowRankBackend<Device = B::Device>>(&self, batch: &Batch) -> AttentionLayout<T> {
        AttentionLayout::new(positions(batch, &self.frequencies), &self.device)
    }
}

fn ids<B: Backend>(batch: &Batch, device: &B::Device) -> Tensor<B, 1, Int> {
    Tensor::from_data(TensorData::from(&batch.ids[..]), device)
}

impl<B: TrainBackend> Learner for TensorLearner<B> {
    fn adapted(&self) -> &[Selected] {
        &self.adapted
    }

    fn trainable(&self) -> IndexMap<String, Vec<usize>> {
        self.trainable.clone()
    }

    fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        let model = self.frozen();
        let hidden = self.hidden(&model, batch);
        to_host(model.head(hidden, Pass::EVAL).reshape([-1]))
    }

    fn loss(&self, batch: &Batch) -> Result<f64> {
        let model = self.frozen();
        let hidden = self.hidden(&model, batch);
        match step::loss(&model, hidden, batch, Pass::EVAL) {
            Some(loss) => Ok(f64::from(to_host(loss)?[0])),
            None => Ok(0.0),
        }
    }

    fn generate(&self, prompt: &[u32], sampling: &Sampling, on_token: &mut dyn FnMut(u32) -> bool) -> Result<Vec<u32>> {
        generate::generate(
            &self.frozen(),
            &self.frequencies,
            prompt,
            sampling,
            self.max_positions,
            on_token,
            &self.device,
        )
    }

    fn accumulate(&mut self, batch: &Batch, micro: &Micro) -> Result<MicroResult> {
        let (ids, layout) = (ids(batch, &self.device), self.layout(batch));
        let model = self.model.as_ref().expect("the model is only away during a step");
        let run = if micro.gradient_checkpointing { step::recomputed } else { step::plain };
        run(model, ids, &layout, batch, micro, &mut self.grads)
    }

    fn grad_norm(&self) -> f64 {
        // One scalar per tensor, added up in module order in f64: the same on every run.
        let grads = self.trainable.keys().filter_map(|path| self.grads.get(path));
        let squares = grads.map(|grad| (grad.clone() * grad.clone()).sum());
        let squares: Vec<_> = squares.collect();
        if squares.is_empty() {
            return 0.0;
        }
        let squares = to_host(Tensor::cat(squares, 0)).unwrap_or_else(|_| vec![f32::NAN]);
        squares.into_iter().map(f64::from).sum::<f64>().sqrt()
    }

    fn step(&mut self, lr: f64, grad_scale: f64) {
        let grads = std::mem::take(&mut self.grads);
        let optimizer = &mut self.optimizer;
        let model = self.model.take().expect("the model is only away during a step");
        self.model = Some(params::update(model, |path, value| match grads.get(path) {
            Some(grad) => optimizer.step(path, lr, value, grad.clone().mul_scalar(grad_scale)),
            None => value,
        }));
    }

    fn discard(&mut self) {
        self.grads.clear();
    }

    fn rates(&self, lr: f64) -> IndexMap<String, f64> {
        self.optimizer.rates(lr)
    }

    fn export(&self) -> HostTensors {
        params::read(self.model())
    }

    fn gradients(&self) -> IndexMap<String, Vec<f32>> {
        let host = |grad: &Tensor<_, 1>| to_host(grad.clone()).unwrap_or_default();
        self.grads.iter().map(|(path, grad)| (path.clone(), host(grad))).collect()
    }

    fn import(&mut self, values: &HostTensors) -> Result<()> {
        let model = self.model.take().expect("the model is only away during a step");
        let (model, unmatched) = params::assign(model, values);
        self.model = Some(model);
        match unmatched.first() {
            None => Ok(()),
            Some(path) => Err(Error::input("no trainable parameter of this name and shape")
                .tensor(path)
                .found(format!("{:?}", values[path].shape))
                .expected(self.trainable.get(path).map_or("no such parameter".into(), |shape| format!("{shape:?}")))
                .into()),
        }
    }

    fn moments(&self) -> HostTensors {
        self.optimizer.moments()
    }

    fn set_moments(&mut self, moments: &HostTensors) -> Result<()> {
        self.optimizer.set_moments(moments, &self.device)
    }
}

/// Reads a tensor back; a device that fails says so instead of panicking.
pub(super) fn to_host<B: Backend>(tensor: Tensor<B, 1>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data().map_err(|error| Error::Failed(format!("device: {error:?}")))?;
    data.convert::<f32>().into_vec().map_err(|error| Error::Failed(format!("device: {error:?}")))
}
