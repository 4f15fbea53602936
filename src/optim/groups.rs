//! One optimizer per label; a parameter's label chooses learning rate and decay.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use indexmap::IndexMap;

use super::adam::{Adam, Form};
use super::label::Label;
use super::moments::{HostMoments, Moments};
use crate::adapters::Selected;
use crate::recipe::{self, Offload};
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

/// Parameters that share a learning rate and a decay.
struct Group {
    label: Label,
    /// Times the recipe's learning rate.
    rate: f64,
    adam: Adam,
}

/// AdamW with its state by parameter path.
pub struct Optimizer<B: Backend> {
    groups: Vec<Group>,
    /// Path to index of its group.
    member: IndexMap<String, usize>,
    shapes: IndexMap<String, Vec<usize>>,
    offload: Offload,
    state: IndexMap<String, Moments<B>>,
}

impl<B: Backend> Optimizer<B> {
    /// For `parameters`, path to shape; `adapted` are the modules that carry an adapter.
    pub fn new(
        optim: &recipe::Optim,
        form: Form,
        parameters: &IndexMap<String, Vec<usize>>,
        adapted: &[Selected],
    ) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut member = IndexMap::new();
        for (path, shape) in parameters {
            let label = Label::of(path, shape, optim, adapted);
            let known = groups.iter().position(|group| group.label == label);
            let index = known.unwrap_or_else(|| {
                let adam = form.build(&optim.adamw, label.weight_decay(optim));
                groups.push(Group { label, rate: label.rate(optim), adam });
                groups.len() - 1
            });
            member.insert(path.clone(), index);
        }
        Self { groups, member, shapes: parameters.clone(), offload: optim.offload, state: IndexMap::new() }
    }

    /// Learning rate of each group.
    pub fn rates(&self, lr: f64) -> IndexMap<String, f64> {
        self.groups.iter().map(|group| (group.label.name().to_string(), lr * group.rate)).collect()
    }

    /// The new value of the parameter at `path`, all tensors flat.
    pub fn step(&mut self, path: &str, lr: f64, value: Tensor<B, 1>, grad: Tensor<B, 1>) -> Tensor<B, 1> {
        let Some(&member) = self.member.get(path) else { return value };
        let group = &self.groups[member];
        let state = self.state.swap_remove(path).map(|moments| moments.onto(&value.device()));
        let (value, state) = group.adam.step(lr * group.rate, value, grad, state);
        if let Some(state) = state {
            self.state.insert(path.to_string(), Moments::stepped(state, self.offload));
        }
        value
    }

    /// `PATH.exp_avg`, `PATH.exp_avg_sq` and `PATH.step` of every parameter that has been stepped, in module order.
    pub fn moments(&self) -> HostTensors {
        let mut moments = IndexMap::new();
        for (path, shape) in &self.shapes {
            if let Some(HostMoments { time, exp_avg, exp_avg_sq }) = self.state.get(path).map(Moments::read) {
                let mut put = |name: &str, shape: &[usize], values| {
                    moments.insert(format!("{path}.{name}"), HostTensor { shape: shape.to_vec(), values })
                };
                put("exp_avg", shape, exp_avg);
                put("exp_avg_sq", shape, exp_avg_sq);
                put("step", &[1], vec![time as f32]);
            }
        }
        moments
    }

    /// Takes up where [`Self::moments`] left off.
    pub fn set_moments(&mut self, moments: &HostTensors, device: &B::Device) -> Result<()> {
        let mut state = IndexMap::new();
        let stepped = |path: &&String| moments.contains_key(&format!("{path}.step"));
        for (path, shape) in self.shapes.iter().filter(|(path, _)| stepped(path)) {
            let get = |name: &str, shape: &[usize]| match moments.get(&format!("{path}.{name}")) {
                Some(host) if host.shape == shape => Ok(&host.values),
                found => Err(Error::input("optimizer state does not fit the parameters")
                    .tensor(format!("{path}.{name}"))
                    .found(found.map_or("nothing".into(), |host| format!("{:?}", host.shape)))
                    .expected(format!("{shape:?}"))),
            };
            let host = HostMoments {
                time: get("step", &[1])?[0] as usize,
                exp_avg: get("exp_avg", shape)?.clone(),
                exp_avg_sq: get("exp_avg_sq", shape)?.clone(),
            };
            state.insert(path.clone(), Moments::restored(host, self.offload, device));
        }
        if let Some(unknown) = moments.keys().find(|key| !self.owns(key)) {
            return Err(Error::input("optimizer state of a parameter that does not train").tensor(unknown).into());
        }
        self.state = state;
        Ok(())
    }

    fn owns(&self, key: &str) -> bool {
        key.rsplit_once('.').is_some_and(|(path, _)| self.shapes.contains_key(path))
    }
}
