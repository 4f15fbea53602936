//! Parameters by path: list, read, assign, collect gradients, update.
//!
//! A path is the checkpoint's name of the module and the field, `model.layers.0.self_attn.q_proj.lora_A`:
//! enum variants and the `adapter` field of a layer leave no trace in it.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use indexmap::IndexMap;

use crate::tensors::{HostTensor, HostTensors};

/// Flattened gradients by path, in module order.
pub type GradMap<B> = IndexMap<String, Tensor<B, 1>>;

/// Path and shape of every parameter that trains, in module order.
pub fn trainable<B: Backend, M: Module<B>>(module: &M) -> IndexMap<String, Vec<usize>> {
    let mut visitor = Trainable { path: Path::default(), found: IndexMap::new() };
    module.visit(&mut visitor);
    visitor.found
}

/// Values of every parameter that trains, in module order.
pub fn read<B: Backend, M: Module<B>>(module: &M) -> HostTensors {
    let mut visitor = Read { path: Path::default(), found: IndexMap::new() };
    module.visit(&mut visitor);
    visitor.found
}

/// Replaces parameters that train by the values of the same path; returns the paths of `values` that matched nothing.
pub fn assign<B: Backend, M: Module<B>>(module: M, values: &HostTensors) -> (M, Vec<String>) {
    let mut mapper = Assign { path: Path::default(), values, used: Vec::new() };
    let module = module.map(&mut mapper);
    let used = mapper.used;
    (module, values.keys().filter(|key| !used.contains(key)).cloned().collect())
}

/// Adds the gradients that `module`'s parameters have in `grads` to `into`.
pub fn collect_grads<B: AutodiffBackend, M: Module<B>>(
    module: &M,
    prefix: &str,
    grads: &B::Gradients,
    into: &mut GradMap<B::InnerBackend>,
) {
    let path = Path(prefix.split('.').filter(|part| !part.is_empty()).map(String::from).collect());
    module.visit(&mut Collect::<B> { path, grads, into });
}

/// Replaces each parameter that trains by `step(path, flat values)`, on the inner backend.
pub fn update<B: AutodiffBackend, M: Module<B>>(
    module: M,
    step: impl FnMut(&str, Tensor<B::InnerBackend, 1>) -> Tensor<B::InnerBackend, 1>,
) -> M {
    module.map(&mut Update { path: Path::default(), step })
}

#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        if !hidden(name, container) {
            self.0.push(name.to_string());
        }
    }
    fn exit(&mut self, name: &str, container: &str) {
        if !hidden(name, container) {
            self.0.pop();
        }
    }
    fn join(&self) -> String {
        self.0.join(".")
    }
}

fn hidden(name: &str, container: &str) -> bool {
    name == "adapter" || container.starts_with("Enum:")
}

macro_rules! track_path {
    () => {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
        }
        fn exit_module(&mut self, name: &str, container_type: &str) {
            self.path.exit(name, container_type);
        }
    };
}

struct Trainable {
    path: Path,
    found: IndexMap<String, Vec<usize>>,
}

impl<B: Backend> ModuleVisitor<B> for Trainable {
    track_path!();
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if param.is_require_grad() {
            self.found.insert(self.path.join(), param.dims().to_vec());
        }
    }
}

struct Read {
    path: Path,
    found: HostTensors,
}

impl<B: Backend> ModuleVisitor<B> for Read {
    track_path!();
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if param.is_require_grad() {
            let values = param.val().into_data().convert::<f32>().into_vec().unwrap_or_default();
            self.found.insert(self.path.join(), HostTensor { shape: param.dims().to_vec(), values });
        }
    }
}

struct Assign<'a> {
    path: Path,
    values: &'a HostTensors,
    used: Vec<&'a String>,
}

impl<B: Backend> ModuleMapper<B> for Assign<'_> {
    track_path!();
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let found = self.values.get_key_value(&self.path.join());
        match found {
            Some((key, host)) if param.is_require_grad() && param.dims()[..] == host.shape[..] => {
                self.used.push(key);
                param.map(|old| {
                    let data = TensorData::new(host.values.clone(), host.shape.clone());
                    Tensor::from_data(data, &old.device()).require_grad()
                })
            }
            _ => param,
        }
    }
}

struct Collect<'a, B: AutodiffBackend> {
    path: Path,
    grads: &'a B::Gradients,
    into: &'a mut GradMap<B::InnerBackend>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Collect<'_, B> {
    track_path!();
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !param.is_require_grad() {
            return;
        }
        if let Some(grad) = param.val().grad(self.grads) {
            let grad = grad.reshape([-1]);
            let sum = match self.into.get(&self.path.join()) {
                Some(earlier) => earlier.clone() + grad,
                None => grad,
            };
            self.into.insert(self.path.join(), sum);
        }
    }
}

struct Update<F> {
    path: Path,
    step: F,
}

impl<B: AutodiffBackend, F> ModuleMapper<B> for Update<F>
where
    F: FnMut(&str, Tensor<B::InnerBackend, 1>) -> Tensor<B::InnerBackend, 1>,
{
    track_path!();
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if !param.is_require_grad() {
            return param;
        }
        let path = self.path.join();
        param.map(|value| {
            let shape = value.shape();
            let new = (self.step)(&path, value.inner().reshape([-1]));
            Tensor::from_inner(new.reshape(shape)).require_grad()
        })
    }
}
