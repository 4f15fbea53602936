//! One burn optimizer per label; a label function over parameter paths chooses learning rate and decay.

use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, SimpleOptimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use indexmap::IndexMap;

use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result, recipe};

/// Parameters that share a learning rate and a decay.
struct Group {
    name: &'static str,
    /// Times the recipe's learning rate.
    rate: f64,
    adamw: AdamW,
}

/// Matrices decay, vectors (norms and biases) do not, as in Hugging Face's trainer.
fn label(shape: &[usize]) -> &'static str {
    if shape.len() > 1 { "matrices" } else { "vectors" }
}

/// AdamW (Loshchilov and Hutter 2019) with its state by parameter path.
pub struct Optimizer<B: Backend> {
    groups: Vec<Group>,
    /// Path to index of its group.
    member: IndexMap<String, usize>,
    shapes: IndexMap<String, Vec<usize>>,
    state: IndexMap<String, AdamWState<B, 1>>,
}

impl<B: Backend> Optimizer<B> {
    pub fn new(optim: &recipe::Optim, parameters: &IndexMap<String, Vec<usize>>) -> Self {
        let mut optimizer =
            Self { groups: Vec::new(), member: IndexMap::new(), shapes: parameters.clone(), state: IndexMap::new() };
        for (path, shape) in parameters {
            let group = optimizer.group(label(shape), &optim.adamw);
            optimizer.member.insert(path.clone(), group);
        }
        optimizer
    }

    fn group(&mut self, name: &'static str, adamw: &recipe::AdamW) -> usize {
        self.groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
            let decay = if name == "vectors" { 0.0 } else { adamw.weight_decay };
            let config = AdamWConfig::new()
                .with_beta_1(adamw.beta1 as f32)
                .with_beta_2(adamw.beta2 as f32)
                .with_epsilon(adamw.eps as f32)
                .with_weight_decay(decay as f32);
            self.groups.push(Group { name, rate: 1.0, adamw: config.build() });
            self.groups.len() - 1
        })
    }

    /// Learning rate of each group.
    pub fn rates(&self, lr: f64) -> IndexMap<String, f64> {
        self.groups.iter().map(|group| (group.name.to_string(), lr * group.rate)).collect()
    }

    /// The new value of the parameter at `path`, all tensors flat.
    pub fn step(&mut self, path: &str, lr: f64, value: Tensor<B, 1>, grad: Tensor<B, 1>) -> Tensor<B, 1> {
        let Some(&member) = self.member.get(path) else { return value };
        let group = &self.groups[member];
        let state = self.state.swap_remove(path);
        let (value, state) = group.adamw.step(lr * group.rate, value, grad, state);
        if let Some(state) = state {
            self.state.insert(path.to_string(), state);
        }
        value
    }

    /// `PATH.exp_avg`, `PATH.exp_avg_sq` and `PATH.step` of every parameter that has been stepped, in module order.
    pub fn moments(&self) -> HostTensors {
        let host = |tensor: &Tensor<B, 1>| tensor.to_data().convert::<f32>().into_vec::<f32>().unwrap_or_default();
        let mut moments = IndexMap::new();
        for (path, shape) in &self.shapes {
            if let Some(AdamWState { momentum }) = self.state.get(path) {
                let mut put = |name: &str, shape: &[usize], values| {
                    moments.insert(format!("{path}.{name}"), HostTensor { shape: shape.to_vec(), values })
                };
                put("exp_avg", shape, host(&momentum.moment_1));
                put("exp_avg_sq", shape, host(&momentum.moment_2));
                put("step", &[1], vec![momentum.time as f32]);
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
            let tensor = |values: &Vec<f32>| Tensor::from_data(TensorData::from(&values[..]), device);
            let first = tensor(get("exp_avg", shape)?);
            let second = tensor(get("exp_avg_sq", shape)?);
            let time = get("step", &[1])?[0] as usize;
            state.insert(path.clone(), AdamWState::new(AdaptiveMomentumState::new(time, first, second)));
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
