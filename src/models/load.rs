//! Builds a model on a device from named host tensors, one at a time.

use std::collections::HashMap;

use burn::module::Param;
use burn::tensor::Tensor;
use lowrank_kernels::LowRankBackend;
use lowrank_kernels::four_bit::Quantised;

use super::families::{Model, Norms, Own};
use super::{ModelConfig, Stored, WeightSource};
use crate::adapters::{Factors, Loftq, Module, ModuleKind};
use crate::nn::{Embedding, LayerNorm, Linear, RmsNorm, Storage, Weight};
use crate::recipe::BaseStorage;
use crate::tensors::HostTensors;
use crate::{Error, Result};

/// The frozen base: every tensor the architecture names, in the asked storage. With it what fresh adapters start from under LoftQ, by path.
pub fn load<B: LowRankBackend>(
    config: &ModelConfig,
    source: &dyn WeightSource,
    storage: BaseStorage,
    loftq: Option<Loftq<'_>>,
    device: &B::Device,
) -> Result<(Model<B>, HostTensors)> {
    let source = Stored::new(source, storage)?.around(loftq.map(|loftq| loftq.plan.clone()))?;
    let stored = |module: &Module| module.kind != ModuleKind::Head || !config.has_tied_head();
    let modules = Module::list(config).into_iter().filter(stored);
    let mut reader = Reader {
        config,
        modules: modules.map(|module| (module.path.clone(), module)).collect(),
        source,
        storage: Storage::new(storage, device),
        loftq,
        done: 0,
        left: HostTensors::new(),
    };
    Ok((Model::read(&mut reader)?, reader.left))
}

/// Hands out layers by path.
pub struct Reader<'a, B: LowRankBackend> {
    pub config: &'a ModelConfig,
    /// Those with tensors of their own.
    modules: HashMap<String, Module>,
    source: Stored<'a>,
    storage: Storage<B>,
    loftq: Option<Loftq<'a>>,
    /// Layers of LoftQ's plan that have been read.
    done: usize,
    /// What they left for fresh adapters.
    left: HostTensors,
}

impl<B: LowRankBackend> Reader<'_, B> {
    /// Whether the model has something under `path`.
    pub fn has(&self, path: &str) -> bool {
        let below = |found: &String| found.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.modules.contains_key(path) || self.modules.keys().any(below)
    }

    pub fn linear(&mut self, path: &str) -> Result<Linear<B>> {
        let module = self.module(path)?;
        let bias = module.biased.then(|| self.vector(&format!("{path}.bias"), module.rows)).transpose()?;
        Ok(Linear::new(self.weight(path, [module.rows, module.cols])?, bias))
    }

    pub fn embedding(&mut self, path: &str) -> Result<Embedding<B>> {
        let module = self.module(path)?;
        Ok(Embedding { weight: self.weight(path, [module.rows, module.cols])?, adapter: None })
    }

    pub fn rms_norm(&self, path: &str) -> Result<RmsNorm<B>> {
        let weight = self.vector(&format!("{path}.weight"), self.module(path)?.rows)?;
        let Norms { epsilon: eps, plus } = self.config.architecture.family().norms();
        Ok(RmsNorm { weight, eps, plus })
    }

    pub fn layer_norm(&self, path: &str) -> Result<LayerNorm<B>> {
        let width = self.module(path)?.rows;
        let [weight, bias] = ["weight", "bias"].map(|field| self.vector(&format!("{path}.{field}"), width));
        Ok(LayerNorm { weight: weight?, bias: bias?, eps: self.config.architecture.family().norms().epsilon })
    }

    /// The keys of the family's own.
    pub fn own<C: Own>(&self) -> Option<&C> {
        C::of(&self.config.architecture)
    }

    fn module(&self, path: &str) -> Result<Module> {
        let missing = || Error::Failed(format!("{}: the family does not list {path}", self.config.model_type));
        self.modules.get(path).cloned().ok_or_else(missing)
    }

    fn weight(&mut self, path: &str, shape: [usize; 2]) -> Result<Weight<B>> {
        let name = format!("{path}.weight");
        self.check(&name, &shape)?;
        match self.source.four_bit(&name)? {
            Some(quantised) => {
                self.leave(path, &quantised)?;
                Ok(self.storage.four_bit(&quantised, shape))
            }
            None => Ok(self.storage.weight(self.source.read(&name)?, shape)),
        }
    }

    /// Keeps what a fresh adapter of the layer starts from, where that is LoftQ's.
    fn leave(&mut self, path: &str, quantised: &Quantised) -> Result<()> {
        let Some(Loftq { plan, factors, progress }) = self.loftq.filter(|loftq| loftq.plan.ranks.contains_key(path))
        else {
            return Ok(());
        };
        if factors == Factors::Keep {
            self.left.extend(self.source.factors(path, quantised)?);
        }
        self.done += 1;
        progress(self.done, plan.ranks.len());
        Ok(())
    }

    fn vector(&self, name: &str, len: usize) -> Result<Param<Tensor<B, 1>>> {
        self.check(name, &[len])?;
        Ok(self.storage.vector(self.source.read(name)?))
    }

    fn check(&self, name: &str, expected: &[usize]) -> Result<()> {
        let error = |what| Error::input(what).file(self.source.path()).tensor(name).expected(format!("{expected:?}"));
        match self.source.shape(name) {
            None => Err(error("missing tensor").into()),
            Some(shape) if shape != expected => Err(error("wrong shape").found(format!("{shape:?}")).into()),
            Some(_) => Ok(()),
        }
    }
}
