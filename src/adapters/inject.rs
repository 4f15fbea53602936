//! Puts adapters into a loaded model and decides what trains.

use lowrank_kernels::LowRankBackend;

use super::method::{Pool, Start};
use super::{Adapter, AdapterConfig, BiasMode, Module, Origin, Selected, Shared, saved};
use crate::Result;
use crate::models::{Model, ModelConfig, Site};
use crate::nn::Weight;
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
    model: &mut Model<B>,
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
    model: &mut Model<B>,
    config: &ModelConfig,
    injection: &Injection<'_>,
    shared: &Shared,
) -> Result<Vec<Selected>> {
    let modules = Module::list(config);
    let selected = injection.adapter.select(&modules, injection.origin)?;
    let whole = saved(&modules, shared, injection.origin)?;
    // A tied head goes its own way as soon as it, or the embedding under it, is trained.
    let named = |name: &str| whole.iter().any(|m| m.path == name) || selected.iter().any(|s| s.path == name);
    let [table, head] = Module::vocabulary(&modules);
    let saved = |module: &Module| whole.iter().any(|saved| saved.path == module.path);
    if let Some(head) = head.filter(|head| named(&head.path) || table.is_some_and(saved)) {
        model.untie_head(&head.path);
    }
    let mut pool = Pool::new();
    for (path, mut site) in model.sites() {
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
        match &mut site {
            Site::Linear(linear) => linear.adapter = adapter(&linear.weight)?,
            Site::Embedding(embedding) => embedding.adapter = adapter(&embedding.weight)?,
            Site::Norm(_) | Site::LayerNorm(_) => {}
        }
        if shared.bias == BiasMode::All || (shared.bias == BiasMode::LoraOnly && chosen.is_some()) {
            site.train_bias();
        }
    }
    Ok(selected)
}
