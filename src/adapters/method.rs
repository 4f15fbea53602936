//! What a method does with tensors: at its layer, and across layers around an optimizer step.

use std::collections::HashMap;

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use indexmap::IndexMap;
use lowrank_kernels::{LowRank, LowRankBackend, dropout, low_rank};

use super::Selected;
use super::random::Stream;
use crate::events::Event;
use crate::nn::params::GradMap;
use crate::nn::{Embedding, Linear, Pass, Weight};
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

/// The adapter of one layer. Its `Param` fields train unless `set_require_grad(false)`; all of them are saved.
pub trait Method<B: LowRankBackend>: Sized {
    type Config;

    /// A fresh adapter; random parts come from [`Start::stream`].
    fn new(site: &Selected, config: &Self::Config, start: &mut Start<'_, B>) -> Result<Self>;

    /// `[n, in] → [n, out]`: base and correction together. `base.base(x)` is the frozen layer alone.
    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2>;

    /// `[n] → [n, hidden]`; only called where [`adapts_embeddings`](super::Spec::adapts_embeddings).
    fn embed(&self, ids: Tensor<B, 1, Int>, base: &Embedding<B>) -> Tensor<B, 2> {
        base.base(ids)
    }

    /// `step` optimizer steps are behind the adapter: after each of them, and once when a checkpoint was read.
    fn at_step(&mut self, _step: usize, _moment: Moment) {}

    /// What happens across layers around a step, if anything.
    fn rule(_config: &Self::Config, _selected: &[Selected], _total_steps: usize) -> Option<Box<dyn Rule<B>>> {
        None
    }
}

/// When [`Method::at_step`] is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The optimizer has just stepped.
    Stepped,
    /// Values and state of that step were read from a checkpoint.
    Resumed,
}

/// What a method may do across layers around an optimizer step. All tensors are flat, on the backend under autodiff, by path.
pub trait Rule<B: Backend> {
    /// Parameters have the values to go on from: when the learner is made, and when others were read into it.
    fn loaded(&mut self, _params: &IndexMap<String, Tensor<B, 1>>) -> Result<()> {
        Ok(())
    }

    /// Changes the gathered gradients before their norm is taken: a regulariser adds its own here, once a step.
    fn regularise(&mut self, _params: &IndexMap<String, Tensor<B, 1>>, _grads: &mut GradMap<B>) {}

    /// The gradient that the optimizer is to see in place of `grad` (clipped already).
    fn direct(&self, _path: &str, grad: Tensor<B, 1>) -> Tensor<B, 1> {
        grad
    }

    /// The optimizer took step number `step` (from 1). `grads` are those it saw. Returns new values of parameters, by path.
    fn stepped(&mut self, _step: usize, _params: &IndexMap<String, Tensor<B, 1>>, _grads: &GradMap<B>) -> GradMap<B> {
        GradMap::new()
    }

    /// No more steps follow; may settle what a full run would have settled by itself. Returns new values, by path.
    fn finish(&mut self, _step: usize, _params: &IndexMap<String, Tensor<B, 1>>) -> GradMap<B> {
        GradMap::new()
    }

    /// [`Event::Ranks`] of a method whose ranks change.
    fn ranks(&self, _step: usize) -> Option<Event> {
        None
    }

    /// What a checkpoint must hold beside values and moments.
    fn state(&self) -> HostTensors {
        HostTensors::new()
    }

    /// Takes up where [`Self::state`] left off.
    fn set_state(&mut self, _state: &HostTensors, _device: &B::Device) -> Result<()> {
        Ok(())
    }
}

/// What a fresh adapter starts from.
pub struct Start<'a, B: Backend> {
    pub seed: u64,
    pub device: B::Device,
    /// All modules that get an adapter.
    pub selected: &'a [Selected],
    /// The frozen weight under the adapter.
    pub weight: &'a Weight<B>,
    /// Parameters that several layers share, by a name the method gives them.
    pub pool: &'a mut Pool<B>,
    /// Values known beforehand, by path: of the file that the adapter comes from, or what loading the base left for its start.
    pub values: Option<&'a HostTensors>,
}

/// Parameters that several layers share. Clones of a parameter have one identity: it is trained, counted and saved once.
pub type Pool<B> = HashMap<String, Param<Tensor<B, 2>>>;

impl<B: LowRankBackend> Start<'_, B> {
    /// The random numbers of `site`: they depend on the seed and the path alone.
    pub fn stream(&self, site: &Selected) -> Stream {
        Stream::new(self.seed, &site.path)
    }

    /// A parameter that trains.
    pub fn param<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<B, D>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    /// A parameter that stays as it is.
    pub fn frozen<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<B, D>> {
        self.param(values, shape).set_require_grad(false)
    }

    /// The pooled parameter of this name, made by `make` for the first layer that asks.
    pub fn shared(&mut self, name: &str, make: impl FnOnce(&Self) -> Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>> {
        if let Some(param) = self.pool.get(name) {
            return param.clone();
        }
        let param = make(self);
        self.pool.insert(name.to_string(), param.clone());
        param
    }

    /// The frozen weight's values, row-major; for starts that factorise it.
    pub fn weight_values(&self) -> Result<Vec<f32>> {
        let data = self.weight.dense().into_data().convert::<f32>();
        data.into_vec().map_err(|error| Error::Failed(format!("device: {error:?}")))
    }
}

/// The adapter branch's input: x, or x with entries dropped.
pub fn dropped<B: LowRankBackend>(x: Tensor<B, 2>, p: f64, layer: u64, pass: Pass) -> Tensor<B, 2> {
    match pass.dropout {
        Some(key) if drops(p, pass) => dropout(x, p, key.layer(layer)),
        _ => x,
    }
}

/// Whether the adapter branch sees anything but x.
pub fn drops(p: f64, pass: Pass) -> bool {
    pass.dropout.is_some() && p > 0.0
}

/// The layer and a low-rank term of its input, in one where both see the same.
pub fn corrected<B: LowRankBackend>(
    x: Tensor<B, 2>,
    base: &Linear<B>,
    term: LowRank<B>,
    (p, layer): (f64, u64),
    pass: Pass,
) -> Tensor<B, 2> {
    match drops(p, pass) {
        true => base.base(x.clone()) + low_rank(dropped(x, p, layer, pass), term),
        false => base.base_with(x, term, pass),
    }
}

/// The tensor `path.field`, or an error that names it.
pub fn field<'a>(values: &'a HostTensors, path: &str, field: &str) -> Result<&'a HostTensor> {
    let name = format!("{path}.{field}");
    values.get(&name).ok_or_else(|| Error::input("missing from the adapter").tensor(name).into())
}

#[cfg(test)]
mod tests {
    use lowrank_kernels::DropoutKey;

    use super::*;
    use crate::adapters::fixtures::B;

    #[test]
    fn the_backward_pass_draws_the_mask_of_the_forward() {
        let ones = || Tensor::<B, 2>::ones([20, 30], &Default::default());
        let x = ones().require_grad();
        let pass = Pass { dropout: Some(DropoutKey { seed: 1, step: 2, micro: 3 }), ..Pass::EVAL };
        let y = dropped(x.clone(), 0.3, 9, pass);
        let grads = (y.clone() * ones().mul_scalar(2.0)).sum().backward();
        let y = y.inner();
        let zeros = y.to_data().iter::<f32>().filter(|y| *y == 0.0).count();
        assert!((100..260).contains(&zeros), "{zeros} of 600");
        assert_eq!(x.grad(&grads).unwrap().into_data(), y.mul_scalar(2.0).into_data());
    }
}
