//! Puts adapters into a loaded model and decides what trains.

use lowrank_kernels::LowRankBackend;

use super::method::{Pool, Start};
use super::{Adapter, AdapterConfig, BiasMode, Module, ModuleKind, Origin, Selected, Shared, saved};
use crate::Result;
use crate::models::llama::Llama;
use crate::models::{ModelConfig, Site};
use crate::nn::{Linear, Weight};
use crate::tensors::HostTensors;

/// What to put into a model.
pub struct Injection<'a> {
    pub adapter: &'a AdapterConfig,
    pub origin: Origin,
    pub seed: u64,
    /// Values known beforehand, by path; see [`Start::values`].
    pub values: Option<&'a HostTensors>,
}

/// Makes exactly the parameters train that the adapter asks for; everything else stays frozen.
/// Returns the adapted modules, in module order.
pub fn inject<B: LowRankBackend>(
    model: &mut Llama<B>,
    config: &ModelConfig,
    injection: &Injection<'_>,
) -> Result<Vec<Selected>> {
    match injection.adapter.shared() {
        Some(shared) => attach(model, config, injection, &shared),
        None => {
            if matches!(injection.adapter, AdapterConfig::Full(_)) {
                model.sites().into_iter().for_each(|(_, site)| site.make_trainable());
            }
            Ok(Vec::new())
        }
    }
}

fn attach<B: LowRankBackend>(
    model: &mut Llama<B>,
    config: &ModelConfig,
    injection: &Injection<'_>,
    shared: &Shared,
) -> Result<Vec<Selected>> {
    let modules = Module::list(config);
    let selected = injection.adapter.select(&modules, injection.origin)?;
    let whole = saved(&modules, shared, injection.origin)?;
    // A tied head goes its own way as soon as it, or the embedding under it, is trained.
    let named = |name: &str| whole.iter().any(|m| m.path == name) || selected.iter().any(|s| s.path == name);
    if named("lm_head") || whole.iter().any(|module| module.kind == ModuleKind::Embedding) {
        model.untie_head();
    }
    let mut pool = Pool::new();
    for (path, site) in model.sites() {
        let chosen = selected.iter().find(|selected| selected.path == path);
        if whole.iter().any(|module| module.path == path) {
            site.make_trainable();
            continue;
        }
        let mut adapter = |weight: &Weight<B>| match chosen {
            None => Ok(None),
            Some(chosen) => {
                let Injection { adapter, seed, values, .. } = *injection;
                let (device, pool) = (weight.device(), &mut pool);
                Adapter::new(chosen, adapter, &mut Start { seed, device, selected: &selected, weight, pool, values })
            }
        };
        match site {
            Site::Linear(linear) => {
                linear.adapter = adapter(&linear.weight)?;
                if shared.bias == BiasMode::All || (shared.bias == BiasMode::LoraOnly && chosen.is_some()) {
                    train_bias(linear);
                }
            }
            Site::Embedding(embedding) => embedding.adapter = adapter(&embedding.weight)?,
            Site::Norm(_) => {}
        }
    }
    Ok(selected)
}

fn train_bias<B: LowRankBackend>(linear: &mut Linear<B>) {
    linear.bias = linear.bias.take().map(|bias| bias.set_require_grad(true));
}
