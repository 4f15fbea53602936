//! How much each triplet matters (section 3.2 of the paper).

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use indexmap::IndexMap;

use super::rule::Triplets;
use crate::nn::params::GradMap;
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

/// Ends the names of Ī and of U in a checkpoint.
const SENSITIVITY: &str = "sensitivity";
const UNCERTAINTY: &str = "uncertainty";

/// Running means over the steps, for every entry of A, E and B; flat, by path. Empty before the first step.
pub struct Importance<B: Backend> {
    beta1: f64,
    beta2: f64,
    /// Ī ← β1 Ī + (1 − β1) I with I = |w · g| (equations 8 and 9).
    sensitivity: GradMap<B>,
    /// U ← β2 U + (1 − β2) |I − Ī| (equation 10), with the new Ī as in the authors' code and in PEFT.
    uncertainty: GradMap<B>,
}

impl<B: Backend> Importance<B> {
    pub fn new(beta1: f64, beta2: f64) -> Self {
        Self { beta1, beta2, sensitivity: GradMap::new(), uncertainty: GradMap::new() }
    }

    /// Takes in a step: values after it, and the gradients that the optimizer saw.
    pub fn observe(&mut self, modules: &[Triplets], params: &IndexMap<String, Tensor<B, 1>>, grads: &GradMap<B>) {
        for path in modules.iter().flat_map(Triplets::paths) {
            let (Some(w), Some(g)) = (params.get(&path), grads.get(&path)) else { continue };
            let importance = (w.clone() * g.clone()).abs();
            let sensitivity = mean(&mut self.sensitivity, &path, self.beta1, importance.clone());
            mean(&mut self.uncertainty, &path, self.beta2, (importance - sensitivity).abs());
        }
    }

    /// `S = s(E_i) + mean_j s(A_ij) + mean_j s(B_ji)` with `s = Ī · U` (equations 7 and 11), one for each triplet of each module.
    pub fn scores(&self, modules: &[Triplets]) -> Vec<Vec<f32>> {
        modules.iter().map(|module| self.scores_of(module).unwrap_or_else(|| vec![0.0; module.rank])).collect()
    }

    fn scores_of(&self, module: &Triplets) -> Option<Vec<f32>> {
        let s = |path: &str| Some(self.sensitivity.get(path)?.clone() * self.uncertainty.get(path)?.clone());
        let [a, e, b] = module.paths();
        let (r, a, b) = (module.rank, s(&a)?, s(&b)?);
        let a = a.reshape([r, module.cols]).mean_dim(1).reshape([r]);
        let b = b.reshape([module.out, r]).mean_dim(0).reshape([r]);
        Some((s(&e)? + (a + b)).into_data().iter::<f32>().collect())
    }

    /// No step has been taken in yet.
    pub fn clear(&mut self) {
        self.sensitivity.clear();
        self.uncertainty.clear();
    }

    /// `PATH.sensitivity` and `PATH.uncertainty`.
    pub fn state(&self) -> HostTensors {
        let named = |means: &GradMap<B>, name: &'static str| {
            let host = move |(path, mean): (&String, &Tensor<B, 1>)| {
                let values: Vec<f32> = mean.to_data().iter::<f32>().collect();
                (format!("{path}.{name}"), HostTensor { shape: vec![values.len()], values })
            };
            means.iter().map(host).collect::<Vec<_>>()
        };
        let means = [named(&self.sensitivity, SENSITIVITY), named(&self.uncertainty, UNCERTAINTY)];
        means.into_iter().flatten().collect()
    }

    /// Moves what [`Self::state`] gave out of `state`.
    pub fn set_state(&mut self, modules: &[Triplets], state: &mut HostTensors, device: &B::Device) -> Result<()> {
        self.clear();
        for (path, size) in modules.iter().flat_map(|module| module.paths().into_iter().zip(module.sizes())) {
            let means = [(&mut self.sensitivity, SENSITIVITY), (&mut self.uncertainty, UNCERTAINTY)];
            for (means, name) in means {
                let Some(host) = state.shift_remove(&format!("{path}.{name}")) else { continue };
                if host.values.len() != size {
                    let problem =
                        Error::input("the importance does not fit the parameter").tensor(format!("{path}.{name}"));
                    return Err(problem.found(host.values.len()).expected(size).into());
                }
                means.insert(path.clone(), Tensor::from_data(TensorData::from(&host.values[..]), device));
            }
        }
        if self.sensitivity.len() == self.uncertainty.len() {
            return Ok(());
        }
        Err(Error::input("half of the importances are missing from the checkpoint").into())
    }
}

/// The running mean at `path`, from zero on, after one more value.
fn mean<B: Backend>(means: &mut GradMap<B>, path: &str, beta: f64, value: Tensor<B, 1>) -> Tensor<B, 1> {
    let value = value.mul_scalar(1.0 - beta);
    let mean = match means.get(path) {
        Some(mean) => mean.clone().mul_scalar(beta) + value,
        None => value,
    };
    means.insert(path.to_string(), mean.clone());
    mean
}
