//! Puts adapters into a loaded model and decides what trains.

use lowrank_kernels::LowRankBackend;

use super::{Adapter, AdapterConfig, BiasMode, LoraConfig, Module, ModuleKind, Origin, Selected, saved, select};
use crate::Result;
use crate::models::llama::Llama;
use crate::models::{ModelConfig, Site};
use crate::nn::Linear;

/// Makes exactly the parameters train that `adapter` asks for; everything else stays frozen.
/// Returns the adapted modules, in module order.
pub fn inject<B: LowRankBackend>(
    model: &mut Llama<B>,
    config: &ModelConfig,
    adapter: &AdapterConfig,
    origin: Origin,
    seed: u64,
) -> Result<Vec<Selected>> {
    match adapter {
        AdapterConfig::None(_) => Ok(Vec::new()),
        AdapterConfig::Full(_) => {
            model.sites().into_iter().for_each(|(_, site)| site.make_trainable());
            Ok(Vec::new())
        }
        AdapterConfig::Lora(lora) => attach(model, config, adapter, lora, origin, seed),
    }
}

fn attach<B: LowRankBackend>(
    model: &mut Llama<B>,
    config: &ModelConfig,
    adapter: &AdapterConfig,
    shared: &LoraConfig,
    origin: Origin,
    seed: u64,
) -> Result<Vec<Selected>> {
    let modules = Module::list(config);
    let selected = select(&modules, shared, origin)?;
    let whole = saved(&modules, shared, origin)?;
    // A tied head goes its own way as soon as it, or the embedding under it, is trained.
    let named = |name: &str| whole.iter().any(|m| m.path == name) || selected.iter().any(|s| s.path == name);
    if named("lm_head") || whole.iter().any(|module| module.kind == ModuleKind::Embedding) {
        model.untie_head();
    }
    for (path, site) in model.sites() {
        let chosen = selected.iter().find(|selected| selected.path == path);
        let device = site.device();
        if whole.iter().any(|module| module.path == path) {
            site.make_trainable();
            continue;
        }
        match site {
            Site::Linear(linear) => {
                linear.adapter = chosen.and_then(|chosen| Adapter::new(chosen, adapter, seed, &device));
                if shared.bias == BiasMode::All || (shared.bias == BiasMode::LoraOnly && chosen.is_some()) {
                    train_bias(linear);
                }
            }
            Site::Embedding(embedding) => {
                embedding.adapter = chosen.and_then(|chosen| Adapter::new(chosen, adapter, seed, &device));
            }
            Site::Norm(_) => {}
        }
    }
    Ok(selected)
}

fn train_bias<B: LowRankBackend>(linear: &mut Linear<B>) {
    linear.bias = linear.bias.take().map(|bias| bias.set_require_grad(true));
}
