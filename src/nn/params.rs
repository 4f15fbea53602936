//! Parameters by path: list, read, assign, collect gradients, update.
//!
//! A path is the checkpoint's name of the module and the field, `model.layers.0.self_attn.q_proj.lora_A`:
//! enum variants and the `adapter` field of a layer leave no trace in it. Layers may share a parameter: it goes by the
//! path of the first layer that has it, trains once, and its gradient is the sum over its uses.

use std::any::Any;
use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use indexmap::IndexMap;

use crate::tensors::{HostTensor, HostTensors};

/// Flat tensors by path, in module order.
pub type GradMap<B> = IndexMap<String, Tensor<B, 1>>;

/// A parameter that trains, or that an adapter keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned {
    /// Of the first layer that has it.
    pub path: String,
    pub shape: Vec<usize>,
    pub trains: bool,
}

/// The parameters that a learner owns, in module order, each once.
#[derive(Clone, Debug, Default)]
pub struct Register(IndexMap<ParamId, Owned>);

impl Register {
    /// The parameters of `module`; `name` makes a path of the names of the fields that lead to one.
    pub fn named<B: Backend, M: Module<B>>(module: &M, name: impl Fn(&str) -> String) -> Self {
        let mut visitor = List { path: Path::default(), found: IndexMap::new() };
        module.visit(&mut visitor);
        let named = |(id, owned): (ParamId, Owned)| (id, Owned { path: name(&owned.path), ..owned });
        Self(visitor.found.into_iter().map(named).collect())
    }

    /// The same, by the names of the fields.
    pub fn new<B: Backend, M: Module<B>>(module: &M) -> Self {
        Self::named(module, str::to_string)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Owned> {
        self.0.values()
    }

    /// Path and shape of what trains.
    pub fn trainable(&self) -> IndexMap<String, Vec<usize>> {
        self.iter().filter(|owned| owned.trains).map(|owned| (owned.path.clone(), owned.shape.clone())).collect()
    }

    fn path(&self, id: ParamId) -> Option<&str> {
        self.0.get(&id).map(|owned| owned.path.as_str())
    }

    /// Flat values of every parameter.
    pub fn flat<B: AutodiffBackend, M: Module<B>>(&self, module: &M) -> GradMap<B::InnerBackend> {
        let mut visitor = Flat::<B> { register: self, found: GradMap::new() };
        module.visit(&mut visitor);
        visitor.found
    }

    /// Values of every parameter, on the host.
    pub fn read<B: Backend, M: Module<B>>(&self, module: &M) -> HostTensors {
        let mut visitor = Read { register: self, found: IndexMap::new() };
        module.visit(&mut visitor);
        visitor.found
    }

    /// Replaces parameters by the values of the same path; returns the paths of `values` that matched nothing.
    pub fn assign<B: Backend, M: Module<B>>(&self, module: M, values: &HostTensors) -> (M, Vec<String>) {
        let mut mapper = Assign { register: self, values, made: Made::default() };
        let module = module.map(&mut mapper);
        let fits = |(path, host): (&String, &HostTensor)| {
            self.iter().any(|owned| owned.path == *path && owned.shape == host.shape).then(|| path.clone())
        };
        let used: HashSet<String> = values.iter().filter_map(fits).collect();
        (module, values.keys().filter(|key| !used.contains(*key)).cloned().collect())
    }

    /// Adds the gradients that `module`'s parameters have in `grads` to `into`.
    pub fn collect_grads<B: AutodiffBackend, M: Module<B>>(
        &self,
        module: &M,
        grads: &B::Gradients,
        into: &mut GradMap<B::InnerBackend>,
    ) {
        module.visit(&mut Collect::<B> { register: self, grads, into, seen: HashSet::new() });
    }

    /// Replaces each parameter that `step(path, flat values)` has a new value for, on the inner backend.
    pub fn update<B: AutodiffBackend, M: Module<B>>(
        &self,
        module: M,
        step: impl FnMut(&str, Tensor<B::InnerBackend, 1>) -> Option<Tensor<B::InnerBackend, 1>>,
    ) -> M {
        module.map(&mut Update { register: self, step, made: Made::default() })
    }
}

/// Whether a parameter of `module` trains.
pub fn trains<B: Backend, M: Module<B>>(module: &M) -> bool {
    let mut visitor = Trains(false);
    module.visit(&mut visitor);
    visitor.0
}

struct Trains(bool);

impl<B: Backend> ModuleVisitor<B> for Trains {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0 |= param.is_require_grad();
    }
}

#[derive(Default)]
struct Path {
    parts: Vec<String>,
    /// Depth of `adapter` fields around here.
    adapters: usize,
}

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        if hidden(name, container) {
            self.adapters += usize::from(name == "adapter");
        } else {
            self.parts.push(name.to_string());
        }
    }
    fn exit(&mut self, name: &str, container: &str) {
        if hidden(name, container) {
            self.adapters -= usize::from(name == "adapter");
        } else {
            self.parts.pop();
        }
    }
}

fn hidden(name: &str, container: &str) -> bool {
    name == "adapter" || container.starts_with("Enum:")
}

struct List {
    path: Path,
    found: IndexMap<ParamId, Owned>,
}

impl<B: Backend> ModuleVisitor<B> for List {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }
    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.path.exit(name, container_type);
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let trains = param.is_require_grad();
        if trains || self.path.adapters > 0 {
            let path = self.path.parts.join(".");
            self.found.entry(param.id).or_insert(Owned { path, shape: param.dims().to_vec(), trains });
        }
    }
}

struct Read<'a> {
    register: &'a Register,
    found: HostTensors,
}

impl<B: Backend> ModuleVisitor<B> for Read<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(path) = self.register.path(param.id).filter(|path| !self.found.contains_key(*path)) {
            let values = param.val().into_data().convert::<f32>().into_vec().unwrap_or_default();
            self.found.insert(path.to_string(), HostTensor { shape: param.dims().to_vec(), values });
        }
    }
}

struct Flat<'a, B: AutodiffBackend> {
    register: &'a Register,
    found: GradMap<B::InnerBackend>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Flat<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(path) = self.register.path(param.id).filter(|path| !self.found.contains_key(*path)) {
            self.found.insert(path.to_string(), param.val().inner().reshape([-1]));
        }
    }
}

/// Parameters already replaced: layers that share one must go on sharing it.
#[derive(Default)]
struct Made(HashMap<ParamId, Box<dyn Any>>);

impl Made {
    fn once<P: Clone + 'static>(&mut self, id: ParamId, make: impl FnOnce() -> P) -> P {
        let known = self.0.entry(id).or_insert_with(|| Box::new(make()));
        known.downcast_ref::<P>().cloned().expect("one parameter has one type")
    }
}

struct Assign<'a> {
    register: &'a Register,
    values: &'a HostTensors,
    made: Made,
}

impl<B: Backend> ModuleMapper<B> for Assign<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let host = self.register.path(param.id).and_then(|path| self.values.get(path));
        match host {
            Some(host) if param.dims()[..] == host.shape[..] => self.made.once(param.id, || {
                let trains = param.is_require_grad();
                param.map(|old| {
                    let data = TensorData::new(host.values.clone(), host.shape.clone());
                    let new = Tensor::from_data(data, &old.device());
                    if trains { new.require_grad() } else { new }
                })
            }),
            _ => param,
        }
    }
}

struct Collect<'a, B: AutodiffBackend> {
    register: &'a Register,
    grads: &'a B::Gradients,
    into: &'a mut GradMap<B::InnerBackend>,
    seen: HashSet<ParamId>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Collect<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        // A shared parameter is one leaf of the graph: its gradient is the sum already.
        if !param.is_require_grad() || !self.seen.insert(param.id) {
            return;
        }
        let Some(path) = self.register.path(param.id) else { return };
        if let Some(grad) = param.val().grad(self.grads) {
            let grad = grad.reshape([-1]);
            let sum = match self.into.get(path) {
                Some(earlier) => earlier.clone() + grad,
                None => grad,
            };
            self.into.insert(path.to_string(), sum);
        }
    }
}

struct Update<'a, F> {
    register: &'a Register,
    step: F,
    made: Made,
}

impl<B: AutodiffBackend, F> ModuleMapper<B> for Update<'_, F>
where
    F: FnMut(&str, Tensor<B::InnerBackend, 1>) -> Option<Tensor<B::InnerBackend, 1>>,
{
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(path) = self.register.path(param.id) else { return param };
        let step = &mut self.step;
        self.made.once(param.id, || {
            let trains = param.is_require_grad();
            let value = param.val();
            match step(path, value.clone().inner().reshape([-1])) {
                None => param,
                Some(new) => param.map(|_| {
                    let new = Tensor::from_inner(new.reshape(value.shape()));
                    if trains { new.require_grad() } else { new }
                }),
            }
        })
    }
}
