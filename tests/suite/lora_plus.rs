//! LoRA+: two learning rates in one model.

use lowrank::adapters::{AdapterConfig, LoraConfig, Targets};
use lowrank::recipe::{BaseDtype, Optim};
use lowrank::runtime::{AdapterSpec, Base, Learner, Micro, Runtime};

use super::golden::{Fixtures, e2e, load, open};

const RATIO: f64 = 16.0;

fn learner(base: &dyn Base, lora_plus_ratio: Option<f64>) -> Box<dyn Learner> {
    let targets = Targets::Names(["embed_tokens", "q_proj"].map(String::from).to_vec());
    let adapter = AdapterConfig::from(LoraConfig { targets, ..LoraConfig::default() });
    let optim = Optim { lora_plus_ratio, ..Optim::default() };
    base.attach(&AdapterSpec::fresh(&adapter, &optim, 3)).unwrap()
}

/// Clipping sees raw gradients, and each group moves at its own rate.
pub fn rates_differ_and_the_gradient_norm_does_not(runtime: &dyn Runtime) {
    let base = load(runtime, &open("llama"), BaseDtype::F32);
    let batch = Fixtures::read(e2e("llama").join("fixtures.safetensors")).train_batch(0);
    let run = |ratio| {
        let mut learner = learner(base.as_ref(), ratio);
        let before = learner.export();
        let micro = Micro { weight: 1.0 / batch.terms() as f64, ..Micro::default() };
        learner.accumulate(&batch, &micro).unwrap();
        let norm = learner.grad_norm();
        learner.step(2e-4, 1.0);
        let after = learner.export();
        let moved = |path: &str| {
            let pairs = after[path].values.iter().zip(&before[path].values);
            pairs.map(|(after, before)| f64::from((after - before).abs())).fold(0.0, f64::max)
        };
        let moved = ["model.layers.0.self_attn.q_proj.lora_B", "model.embed_tokens.lora_A"].map(moved);
        (norm, moved, learner.rates(2e-4))
    };
    let ((norm, moved, rates), (plus_norm, plus_moved, plus_rates)) = (run(None), run(Some(RATIO)));
    // A GPU may add up in another order each time.
    assert!(norm > 0.0 && (norm - plus_norm).abs() <= 1e-6 * norm);
    // Adam's first step is the rate.
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-2 * expected, "{found}, {expected}");
    moved.into_iter().for_each(|moved| close(moved, 2e-4));
    close(plus_moved[0], RATIO * 2e-4);
    close(plus_moved[1], 1e-6);
    assert_eq!((rates.len(), rates["matrices"]), (1, 2e-4));
    assert_eq!(plus_rates.len(), 3);
    for (group, expected) in [("embeddings", 1e-6), ("matrices", 2e-4), ("lora_B", RATIO * 2e-4)] {
        close(plus_rates[group], expected);
    }
}
