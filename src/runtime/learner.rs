//! [`Learner`] on tensors.

use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use indexmap::IndexMap;
use lowrank_kernels::{LowRankBackend, TrainBackend, path_hash};

use super::generate::{self, Bounds, Sampling};
use super::{AdapterSpec, Learner, Micro, MicroResult, goal, step};
use crate::adapters::{Adapter, ModuleKind, Moment, Rule, Selected, Spec};
use crate::data::Batch;
use crate::events::Event;
use crate::models::{Model, ModelConfig};
use crate::nn::params::{GradMap, Register};
use crate::nn::{Layout, Meter, Pass, Stack, Views};
use crate::optim::Optimizer;
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

/// Starts the names of a method's own state in a checkpoint.
const RULE: &str = "rule.";

pub(super) struct TensorLearner<B: TrainBackend> {
    /// Always present; taken only while a step rebuilds it.
    model: Option<Model<B>>,
    device: B::Device,
    views: Views,
    bounds: Bounds,
    adapted: Vec<Selected>,
    register: Register,
    trainable: IndexMap<String, Vec<usize>>,
    optimizer: Optimizer<B::InnerBackend>,
    rule: Option<Box<dyn Rule<B::InnerBackend>>>,
    /// Optimizer steps taken.
    steps: usize,
    grads: GradMap<B::InnerBackend>,
    /// Whether the rule has had its say on `grads`.
    regularised: bool,
}

impl<B: TrainBackend> TensorLearner<B> {
    pub fn new(
        model: Model<B>,
        config: &ModelConfig,
        adapted: Vec<Selected>,
        spec: &AdapterSpec<'_>,
        device: &B::Device,
    ) -> Result<Self> {
        let register = Register::named(&model, |fields| model.path(fields));
        let trainable = register.trainable();
        let form = spec.adapter.spec().map(Spec::optimizer).unwrap_or_default();
        let mut learner = Self {
            device: device.clone(),
            views: config.architecture.family().views(config),
            bounds: Bounds::of(config),
            rule: Adapter::rule(spec.adapter, &adapted, spec.total_steps),
            optimizer: Optimizer::new(spec.optim, form, &trainable, &adapted),
            adapted,
            register,
            trainable,
            model: Some(model),
            steps: 0,
            grads: GradMap::new(),
            regularised: false,
        };
        learner.loaded()?;
        Ok(learner)
    }

    /// Tells the rule that parameters have values it has not seen.
    fn loaded(&mut self) -> Result<()> {
        let Some(mut rule) = self.rule.take() else { return Ok(()) };
        let told = rule.loaded(&self.flat());
        self.rule = Some(rule);
        told
    }

    fn regularise(&mut self) {
        if self.regularised || self.grads.is_empty() {
            return;
        }
        self.regularised = true;
        if let Some(mut rule) = self.rule.take() {
            rule.regularise(&self.flat(), &mut self.grads);
            self.rule = Some(rule);
        }
    }

    fn flat(&self) -> GradMap<B::InnerBackend> {
        self.register.flat(self.model())
    }

    /// Changes the model by `change`.
    fn rebuild(&mut self, change: impl FnOnce(&mut Self, Model<B>) -> Model<B>) {
        let model = self.model.take().expect("the model is only away during a step");
        self.model = Some(change(self, model));
    }

    fn replace(&mut self, mut values: GradMap<B::InnerBackend>) {
        if !values.is_empty() {
            self.rebuild(|this, model| this.register.update(model, |path, _| values.swap_remove(path)));
        }
    }

    fn tell_adapters(&mut self, moment: Moment) {
        let step = self.steps;
        self.rebuild(|_, mut model| {
            model.adapters().for_each(|adapter| adapter.at_step(step, moment));
            model
        });
    }

    fn model(&self) -> &Model<B> {
        self.model.as_ref().expect("the model is only away during a step")
    }

    /// The model on the backend underneath: burn's autodiff registers a step even for operations that nobody
    /// differentiates, and keeps it until the next backward pass.
    fn frozen(&self) -> Model<B::InnerBackend> {
        self.model().valid()
    }

    /// Hidden states of a batch, on the backend underneath.
    fn hidden(&self, model: &Model<B::InnerBackend>, batch: &Batch) -> Tensor<B::InnerBackend, 2> {
        model.blocks(ids(batch, &self.device), &self.layout(batch), Pass::EVAL)
    }

    fn shape_of(&self, path: &str) -> Option<&[usize]> {
        self.register.iter().find(|owned| owned.path == path).map(|owned| owned.shape.as_slice())
    }

    fn layout<T: LowRankBackend<Device = B::Device>>(&self, batch: &Batch) -> Layout<T> {
        Layout::new(batch, &self.views, &self.device)
    }
}

/// All tokens of a batch, those of a decoder last.
fn ids<B: Backend>(batch: &Batch, device: &B::Device) -> Tensor<B, 1, Int> {
    let decoder = batch.decoder.as_ref().map_or(&[][..], |decoder| &decoder.ids);
    Tensor::from_data(TensorData::from(&[&batch.ids[..], decoder].concat()[..]), device)
}

fn outputs<B: LowRankBackend>(model: &Model<B>, hidden: Tensor<B, 2>, batch: &Batch) -> Result<Vec<f32>> {
    to_host(model.head(goal::answering(hidden, batch), Pass::EVAL).reshape([-1]))
}

fn summed<B: LowRankBackend>(model: &Model<B>, hidden: Tensor<B, 2>, batch: &Batch) -> Result<f64> {
    match goal::loss(model, hidden, batch, Pass::EVAL) {
        Some(loss) => Ok(f64::from(to_host(loss)?[0])),
        None => Ok(0.0),
    }
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
        outputs(&model, hidden, batch)
    }

    fn loss(&self, batch: &Batch) -> Result<f64> {
        let model = self.frozen();
        let hidden = self.hidden(&model, batch);
        summed(&model, hidden, batch)
    }

    fn loss_and_logits(&self, batch: &Batch) -> Result<(f64, Vec<f32>)> {
        let model = self.frozen();
        let hidden = self.hidden(&model, batch);
        let loss = summed(&model, hidden.clone(), batch)?;
        Ok((loss, outputs(&model, hidden, batch)?))
    }

    fn update_energy(&self, batch: &Batch) -> Result<IndexMap<String, f64>> {
        let (model, meter) = (self.frozen(), Meter::new(batch));
        let pass = Pass { meter: Some(&meter), ..Pass::EVAL };
        let hidden = model.blocks(ids(batch, &self.device), &self.layout(batch), pass);
        if self.adapted.iter().any(|site| site.kind == ModuleKind::Head) {
            let stack = if batch.decoder.is_some() { Stack::Decoder } else { Stack::Encoder };
            model.head(goal::answering(hidden, batch), pass.over(stack));
        }
        let energy = |site: &Selected| Some((site.path.clone(), meter.energy(path_hash(&site.path))?));
        Ok(self.adapted.iter().filter_map(energy).collect())
    }

    fn generate(&self, prompt: &[u32], sampling: &Sampling, on_token: &mut dyn FnMut(u32) -> bool) -> Result<Vec<u32>> {
        generate::generate(&self.frozen(), &self.views, prompt, sampling, self.bounds, on_token, &self.device)
    }

    fn accumulate(&mut self, batch: &Batch, micro: &Micro) -> Result<MicroResult> {
        let (ids, layout) = (ids(batch, &self.device), self.layout(batch));
        let model = self.model.as_ref().expect("the model is only away during a step");
        let run = if micro.gradient_checkpointing { step::recomputed } else { step::plain };
        self.regularised = false;
        run(model, ids, &layout, batch, micro, &self.register, &mut self.grads)
    }

    fn grad_norm(&mut self) -> f64 {
        self.regularise();
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
        self.regularise();
        let grads = std::mem::take(&mut self.grads);
        let grads: GradMap<_> = grads.into_iter().map(|(path, grad)| (path, grad.mul_scalar(grad_scale))).collect();
        self.rebuild(|this, model| {
            let (optimizer, rule) = (&mut this.optimizer, &this.rule);
            this.register.update(model, |path, value| {
                let grad = grads.get(path)?.clone();
                let grad = rule.as_ref().map_or(grad.clone(), |rule| rule.direct(path, grad));
                Some(optimizer.step(path, lr, value, grad))
            })
        });
        self.steps += 1;
        self.tell_adapters(Moment::Stepped);
        if let Some(mut rule) = self.rule.take() {
            let changed = rule.stepped(self.steps, &self.flat(), &grads);
            self.rule = Some(rule);
            self.replace(changed);
        }
    }

    fn discard(&mut self) {
        self.grads.clear();
    }

    fn rates(&self, lr: f64) -> IndexMap<String, f64> {
        self.optimizer.rates(lr)
    }

    fn ranks(&self) -> Option<Event> {
        self.rule.as_ref()?.ranks(self.steps)
    }

    fn finish(&mut self) {
        if let Some(mut rule) = self.rule.take() {
            let changed = rule.finish(self.steps, &self.flat());
            self.rule = Some(rule);
            self.replace(changed);
        }
    }

    fn export(&self) -> HostTensors {
        self.register.read(self.model())
    }

    fn gradients(&self) -> IndexMap<String, Vec<f32>> {
        let host = |grad: &Tensor<_, 1>| to_host(grad.clone()).unwrap_or_default();
        self.grads.iter().map(|(path, grad)| (path.clone(), host(grad))).collect()
    }

    fn import(&mut self, values: &HostTensors) -> Result<()> {
        let model = self.model.take().expect("the model is only away during a step");
        let (model, unmatched) = self.register.assign(model, values);
        self.model = Some(model);
        match unmatched.first() {
            None => self.loaded(),
            Some(path) => Err(Error::input("no parameter of this name and shape")
                .tensor(path)
                .found(format!("{:?}", values[path].shape))
                .expected(self.shape_of(path).map_or("no such parameter".into(), |shape| format!("{shape:?}")))
                .into()),
        }
    }

    fn state(&self) -> HostTensors {
        let mut state = self.optimizer.moments();
        state
            .extend(self.rule.iter().flat_map(|rule| rule.state()).map(|(name, host)| (format!("{RULE}{name}"), host)));
        state
    }

    fn set_state(&mut self, state: &HostTensors, step: usize) -> Result<()> {
        let of_rule = |(name, host): (&String, &HostTensor)| Some((name.strip_prefix(RULE)?.to_string(), host.clone()));
        let moments = state.iter().filter(|(name, _)| !name.starts_with(RULE));
        let moments = moments.map(|(name, host)| (name.clone(), host.clone())).collect();
        self.optimizer.set_moments(&moments, &self.device)?;
        if let Some(rule) = &mut self.rule {
            rule.set_state(&state.iter().filter_map(of_rule).collect(), &self.device)?;
        }
        self.steps = step;
        self.tell_adapters(Moment::Resumed);
        Ok(())
    }
}

/// Reads a tensor back; a device that fails says so instead of panicking.
pub(super) fn to_host<B: Backend>(tensor: Tensor<B, 1>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data().map_err(|error| Error::Failed(format!("device: {error:?}")))?;
    data.convert::<f32>().into_vec().map_err(|error| Error::Failed(format!("device: {error:?}")))
}
