//! Training steps against PEFT and against themselves.

use lowrank::adapters::merge::{OutDtype, merge};
use lowrank::adapters::peft::{self, PeftConfig};
use lowrank::adapters::{
    AdaLoraConfig, AdapterConfig, BiasMode, DoraConfig, LoraConfig, LoraFaConfig, LoraInit, Module, Origin, Spec,
    Targets, VeraConfig, trainable,
};
use lowrank::data::Batch;
use lowrank::models::{self, Outline};
use lowrank::recipe::{BaseDtype, Offload, Optim};
use lowrank::runtime::{AdapterSpec, BaseSpec, DropoutKey, Learner, Micro, Runtime};
use lowrank::train::attach_saved;

use super::golden::{Fixtures, assert_close, attach, e2e, load, one_after_the_other, open};

fn fixtures(model: &str) -> Fixtures {
    Fixtures::read(e2e(model).join("fixtures.safetensors"))
}

fn saved(runtime: &dyn Runtime, model: &str, adapter: &str) -> Box<dyn Learner> {
    let opened = open(model);
    let base = load(runtime, &opened, BaseDtype::F32);
    attach_saved(base.as_ref(), &opened.config, &e2e(model).join("adapters").join(adapter)).unwrap().0
}

fn fresh(runtime: &dyn Runtime, config: impl Into<AdapterConfig>) -> Box<dyn Learner> {
    attach(load(runtime, &open("llama"), BaseDtype::F32).as_ref(), &config.into(), 3)
}

/// Mean loss of one batch, its gradients gathered.
fn backward(learner: &mut dyn Learner, batch: &Batch) -> f64 {
    let trained = batch.terms() as f64;
    learner.accumulate(batch, &Micro { weight: 1.0 / trained, ..Micro::default() }).unwrap().loss / trained
}

pub fn twenty_steps_equal_peft(runtime: &dyn Runtime) {
    for (model, adapter) in [
        ("llama", "lora"),
        ("llama", "lora_rslora_pattern"),
        ("llama", "lora_embed_mts"),
        ("llama", "dora"),
        ("llama", "vera"),
        ("llama", "vera_noproj"),
        ("qwen2", "lora"),
    ] {
        let trace: serde_json::Value =
            serde_json::from_slice(&std::fs::read(e2e(model).join("trace.json")).unwrap()).unwrap();
        let (mut learner, golden) = (saved(runtime, model, adapter), fixtures(model));
        for (k, expected) in trace["adapters"][adapter]["trace"].as_array().unwrap().iter().enumerate() {
            let loss = backward(learner.as_mut(), &golden.train_batch(k));
            learner.step(1e-3, 1.0);
            let expected = expected.as_f64().unwrap();
            assert!((loss - expected).abs() < 1e-4 * expected, "{model} {adapter} step {k}: {loss}, PEFT {expected}");
        }
    }
    for adapter in ["lora", "dora"] {
        let after = Fixtures::read(e2e("llama").join("adapters").join(adapter).join("after20.safetensors"));
        let (mut learner, golden) = (saved(runtime, "llama", adapter), fixtures("llama"));
        (0..20).for_each(|k| {
            backward(learner.as_mut(), &golden.train_batch(k));
            learner.step(1e-3, 1.0);
        });
        for (path, tensor) in learner.export() {
            let name = format!("base_model.model.{path}");
            let name = after.names().into_iter().find(|known| known.trim_end_matches(".weight") == name).unwrap();
            assert_close(&tensor.values, &after.f32(&name), 5e-4, &name);
        }
    }
}

/// PiSSA, whose factors are the base's own and whose signs do not matter to Adam; then its adapter over the original base.
pub fn pissa_equals_peft(runtime: &dyn Runtime) {
    let (opened, golden) = (open("llama"), fixtures("llama"));
    let extra = e2e("llama_extra");
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(extra.join("pissa.json")).unwrap()).unwrap();
    let logits = Fixtures::read(extra.join("extra.safetensors"));
    let targets = Targets::Names(vec!["q_proj".into()]);
    let config = LoraConfig { rank: 4, alpha: 4.0, init: LoraInit::Pissa, targets, ..LoraConfig::default() };
    let base = load(runtime, &opened, BaseDtype::F32);
    let mut learner = attach(base.as_ref(), &config.clone().into(), 3);
    let batch = golden.batch("input_ids", "labels");
    assert_close(&learner.logits(&batch).unwrap(), &golden.f32("base.logits"), 1e-4, "start");
    for (k, expected) in trace["pissa_trace5"].as_array().unwrap().iter().enumerate() {
        let loss = backward(learner.as_mut(), &golden.train_batch(k));
        learner.step(1e-3, 1.0);
        let expected = expected.as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-4 * expected, "step {k}: {loss}, PEFT {expected}");
    }
    let trained = learner.logits(&batch).unwrap();
    assert_close(&trained, &logits.f32("pissa.logits_after5"), 5e-4, "after 5 steps");
    let (converted, _) = attach_saved(base.as_ref(), &opened.config, &extra.join("pissa_converted_lora")).unwrap();
    assert_close(&converted.logits(&batch).unwrap(), &logits.f32("pissa.logits_converted"), 1e-4, "PEFT's conversion");
    let (plain, values) = config.export(learner.export(), learner.adapted()).unwrap();
    let mut ours = attach(base.as_ref(), &plain, 3);
    ours.import(&values).unwrap();
    assert_close(&ours.logits(&batch).unwrap(), &trained, 2e-5, "our conversion");
}

pub fn checkpointed_gradients_equal_plain_ones(runtime: &dyn Runtime) {
    let compare = |learner: &dyn Fn() -> Box<dyn Learner>, batch: &Batch| {
        let gradients = |gradient_checkpointing| {
            let mut learner = learner();
            let micro = Micro { weight: 0.01, gradient_checkpointing, ..Micro::default() };
            let result = learner.accumulate(batch, &micro).unwrap();
            (result.loss, learner.gradients())
        };
        let ((plain_loss, plain), (loss, recomputed)) = (gradients(false), gradients(true));
        assert!((plain_loss - loss).abs() < 1e-3);
        assert_eq!(plain.len(), recomputed.len());
        plain.iter().for_each(|(path, gradient)| assert_close(gradient, &recomputed[path], 1e-5, path));
    };
    for adapter in ["lora", "lora_embed_mts", "dora", "vera"] {
        compare(&|| saved(runtime, "llama", adapter), &fixtures("llama").train_batch(0));
    }
    // Every weight, with a head of its own and with a tied one.
    for model in ["llama", "qwen2"] {
        let base = load(runtime, &open(model), BaseDtype::F32);
        let full = || attach(base.as_ref(), &AdapterConfig::full(), 0);
        compare(&full, &fixtures(model).train_batch(0));
    }
}

pub fn full_fine_tuning_equals_transformers(runtime: &dyn Runtime) {
    for model in ["llama", "qwen2"] {
        let trace: serde_json::Value =
            serde_json::from_slice(&std::fs::read(e2e(model).join("trace.json")).unwrap()).unwrap();
        let base = load(runtime, &open(model), BaseDtype::F32);
        let (mut learner, golden) = (attach(base.as_ref(), &AdapterConfig::full(), 0), fixtures(model));
        for (k, expected) in trace["full_finetune_trace"].as_array().unwrap().iter().enumerate() {
            let loss = backward(learner.as_mut(), &golden.train_batch(k));
            learner.step(1e-3, 1.0);
            let expected = expected.as_f64().unwrap();
            assert!((loss - expected).abs() < 2e-4 * expected, "{model} step {k}: {loss}, transformers {expected}");
        }
    }
}

/// PEFT leaves a tied head on the frozen table when the embedding is trained whole.
pub fn a_tied_head_stays_when_the_embedding_trains(runtime: &dyn Runtime) {
    let config = LoraConfig { modules_to_save: vec!["embed_tokens".into()], ..LoraConfig::default() };
    let base = load(runtime, &open("qwen2"), BaseDtype::F32);
    let mut learner = attach(base.as_ref(), &AdapterConfig::Lora(config), 3);
    let batch = fixtures("qwen2").train_batch(0);
    let before = learner.logits(&batch).unwrap();
    let mut values = learner.export();
    let table = values.get_mut("model.embed_tokens.weight").unwrap();
    // A token that no row contains: only a head on the trained table would notice.
    let unseen = (0..512).find(|id| !batch.ids.contains(id)).unwrap() as usize;
    let hidden = table.shape[1];
    table.values[unseen * hidden..(unseen + 1) * hidden].fill(7.0);
    learner.import(&values).unwrap();
    assert_eq!(learner.logits(&batch).unwrap(), before);
}

pub fn only_the_adapter_moves(runtime: &dyn Runtime) {
    let golden = fixtures("llama");
    let batch = golden.batch("input_ids", "labels");
    let opened = open("llama");
    let base = load(runtime, &opened, BaseDtype::F32);
    let mut learner = attach(base.as_ref(), &AdapterConfig::Lora(LoraConfig::default()), 3);
    // B starts at zero: the adapter adds exactly nothing, and A has no gradient yet.
    let untouched = attach(base.as_ref(), &AdapterConfig::none(), 0);
    assert_eq!(learner.logits(&batch).unwrap(), untouched.logits(&batch).unwrap());
    backward(learner.as_mut(), &golden.train_batch(0));
    let (gradients, trainable) = (learner.gradients(), learner.trainable());
    assert!(trainable.keys().eq(gradients.keys()), "the trainable set is what has gradients");
    assert_eq!(trainable.len(), 2 * 7 * 2);
    assert!(trainable.keys().all(|path| path.ends_with("lora_A") || path.ends_with("lora_B")));
    for (path, gradient) in gradients {
        assert_eq!(gradient.iter().all(|g| *g == 0.0), path.ends_with("lora_A"), "{path}");
    }
    learner.step(1e-2, 1.0);
    backward(learner.as_mut(), &golden.train_batch(0));
    assert!(learner.gradients().values().all(|gradient| gradient.iter().any(|g| *g != 0.0)));
    assert_ne!(learner.logits(&batch).unwrap(), untouched.logits(&batch).unwrap());
    // The base that both share is as it was.
    assert_close(&untouched.logits(&batch).unwrap(), &golden.f32("base.logits"), 1e-4, "base");
}

/// VeRA: one A and one B under layers of several widths, which training leaves as they are.
pub fn random_projections_are_shared_and_stay(runtime: &dyn Runtime) {
    let golden = fixtures("llama");
    let mut learner = fresh(runtime, VeraConfig { rank: 8, ..VeraConfig::default() });
    let (before, trainable) = (learner.export(), learner.trainable());
    let untouched = attach(load(runtime, &open("llama"), BaseDtype::F32).as_ref(), &AdapterConfig::none(), 0);
    let batch = golden.batch("input_ids", "labels");
    assert_eq!(learner.logits(&batch).unwrap(), untouched.logits(&batch).unwrap());
    let outputs: usize = learner.adapted().iter().map(|site| site.rows + 8).sum();
    assert_eq!(trainable.values().flatten().sum::<usize>(), outputs);
    let frozen: Vec<_> = before.keys().filter(|path| !trainable.contains_key(*path)).cloned().collect();
    let first = &learner.adapted()[0].path;
    assert_eq!(frozen, [format!("{first}.vera_A"), format!("{first}.vera_B")]);
    for k in 0..3 {
        backward(learner.as_mut(), &golden.train_batch(k));
        learner.step(1e-2, 1.0);
    }
    for (path, tensor) in learner.export() {
        assert_eq!(tensor == before[&path], frozen.contains(&path), "{path}");
    }
}

pub fn accumulation_equals_one_big_batch(runtime: &dyn Runtime) {
    let golden = fixtures("llama");
    let (a, b) = (golden.train_batch(0), golden.train_batch(1));
    let both = one_after_the_other(&a, &b);
    let weight = 1.0 / both.terms() as f64;
    let gradients = |batches: &[&Batch]| {
        let mut learner = saved(runtime, "llama", "lora");
        for batch in batches {
            learner.accumulate(batch, &Micro { weight, ..Micro::default() }).unwrap();
        }
        let norm = learner.grad_norm();
        (norm, learner.gradients())
    };
    let ((norm, split), (big_norm, big)) = (gradients(&[&a, &b]), gradients(&[&both]));
    split.iter().for_each(|(path, gradient)| assert_close(gradient, &big[path], 1e-6, path));
    let by_hand: f64 = big.values().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    assert!((norm - big_norm).abs() < 1e-5 && (big_norm - by_hand).abs() < 1e-5 * by_hand);
}

pub fn dropout_is_counted_not_streamed(runtime: &dyn Runtime) {
    let batch = fixtures("llama").train_batch(0);
    let loss = |step| {
        let mut learner = fresh(runtime, LoraConfig { dropout: 0.5, ..LoraConfig::default() });
        // Move B away from zero, so that the mask shows.
        backward(learner.as_mut(), &batch);
        learner.step(0.05, 1.0);
        let dropout = Some(DropoutKey { seed: 1, step, micro: 0 });
        learner.accumulate(&batch, &Micro { weight: 1.0, dropout, gradient_checkpointing: false }).unwrap().loss
    };
    assert_eq!(loss(4).to_bits(), loss(4).to_bits());
    assert_ne!(loss(4), loss(5));
}

pub fn moments_survive_a_round_trip(runtime: &dyn Runtime) {
    let golden = fixtures("llama");
    let base = load(runtime, &open("llama"), BaseDtype::F32);
    let pissa = LoraConfig { init: LoraInit::Pissa, ..LoraConfig::default() };
    let dora = DoraConfig { init: LoraInit::Olora, ..DoraConfig::default() };
    let vera = VeraConfig::default().into();
    for config in [LoraConfig::default().into(), pissa.into(), DoraConfig::default().into(), dora.into(), vera] {
        let fresh = || attach(base.as_ref(), &config, 3);
        let run = |break_at: Option<usize>| {
            let mut learner = fresh();
            for k in 0..4 {
                if break_at == Some(k) {
                    let (values, moments) = (learner.export(), learner.state());
                    learner = fresh();
                    learner.import(&values).unwrap();
                    learner.set_state(&moments, k).unwrap();
                }
                backward(learner.as_mut(), &golden.train_batch(k));
                learner.step(1e-2, 0.7);
            }
            learner.export()
        };
        assert_eq!(run(None), run(Some(2)));
    }
}

/// Values and state are the same to the bit wherever moments lie between steps, and a resumed run may move them.
pub fn moments_on_the_host_change_nothing(runtime: &dyn Runtime) {
    let golden = fixtures("llama");
    let base = load(runtime, &open("llama"), BaseDtype::F32);
    let on = |offload| Optim { offload, lora_plus_ratio: Some(4.0), ..Optim::default() };
    let plain = |offload| Optim { lora_plus_ratio: None, ..on(offload) };
    let run = |config: &AdapterConfig, optims: [&Optim; 2]| {
        let attach = |optim| base.attach(&AdapterSpec::fresh(config, optim, 3)).unwrap();
        let mut learner = attach(optims[0]);
        for k in 0..6 {
            if k == 3 {
                let (values, state) = (learner.export(), learner.state());
                learner = attach(optims[1]);
                learner.import(&values).unwrap();
                learner.set_state(&state, k).unwrap();
            }
            backward(learner.as_mut(), &golden.train_batch(k));
            learner.step(1e-2, 0.7);
        }
        (learner.export(), learner.state())
    };
    use Offload::{Device, Host};
    let compare = |config: AdapterConfig, optim: &dyn Fn(Offload) -> Optim| {
        let (device, host) = (optim(Device), optim(Host));
        let (values, state) = run(&config, [&device, &device]);
        assert!(state.keys().any(|name| name.ends_with(".exp_avg_sq")));
        for optims in [[&host, &host], [&device, &host], [&host, &device]] {
            let (moved, of_moved) = run(&config, optims);
            assert!(moved == values && of_moved == state, "{}: {:?}", config.name(), optims.map(|optim| optim.offload));
        }
    };
    compare(LoraConfig::default().into(), &on);
    compare(LoraFaConfig::default().into(), &plain);
    compare(AdaLoraConfig::default().into(), &plain);
    compare(AdapterConfig::full(), &plain);
}

/// What `--dry-run` lists before anything is loaded is what trains.
pub fn the_trainable_set_is_known_beforehand(runtime: &dyn Runtime) {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let lora = |targets: &[&str]| LoraConfig { targets: Targets::Names(names(targets)), ..LoraConfig::default() };
    let mut adapters: Vec<AdapterConfig> = vec![
        AdapterConfig::none(),
        AdapterConfig::full(),
        LoraConfig { bias: BiasMode::All, ..lora(&["q_proj", "embed_tokens", "lm_head"]) }.into(),
        LoraConfig { bias: BiasMode::LoraOnly, modules_to_save: names(&["norm", "k_proj"]), ..lora(&["v_proj"]) }
            .into(),
        LoraConfig { modules_to_save: names(&["embed_tokens", "lm_head"]), ..lora(&["down_proj"]) }.into(),
    ];
    adapters.extend(AdapterConfig::defaults());
    for model in ["llama", "qwen2"] {
        let opened = open(model);
        let base = load(runtime, &opened, BaseDtype::F32);
        for adapter in &adapters {
            let selected = adapter.select(&Module::list(&opened.config), Origin::Recipe).unwrap();
            let expected = attach(base.as_ref(), adapter, 0).trainable();
            assert_eq!(trainable(&Outline::of(&opened.config), adapter, &selected), expected, "{model} {adapter:?}");
        }
    }
}

/// Norms in `modules_to_save` train, are saved under PEFT's names, come back and merge.
pub fn norms_train_whole(runtime: &dyn Runtime) {
    let opened = open("llama");
    let modules = Module::list(&opened.config);
    let base = load(runtime, &opened, BaseDtype::F32);
    let config: AdapterConfig = LoraConfig { modules_to_save: vec!["norm".into()], ..LoraConfig::default() }.into();
    let mut learner = attach(base.as_ref(), &config, 3);
    let before = learner.export();
    let golden = fixtures("llama");
    (0..3).for_each(|k| {
        backward(learner.as_mut(), &golden.train_batch(k));
        learner.step(1e-2, 1.0);
    });
    let values = learner.export();
    let norms: Vec<_> = values.keys().filter(|path| path.ends_with("norm.weight")).collect();
    assert_eq!(norms.len(), 5);
    assert!(norms.iter().all(|path| values[*path] != before[*path]), "every norm has moved");

    let tensors = peft::to_file(values.clone(), &config, &modules).unwrap();
    assert_eq!(tensors["base_model.model.model.norm.weight"], values["model.norm.weight"]);
    assert!(tensors.contains_key("base_model.model.model.layers.1.post_attention_layernorm.weight"));
    let folder = tempfile::tempdir().unwrap();
    let saved_as = PeftConfig::new(config, "base");
    peft::write(folder.path(), &saved_as, &tensors, &modules).unwrap();
    let batch = golden.train_batch(4);
    let trained = learner.logits(&batch).unwrap();
    let (again, _) = attach_saved(base.as_ref(), &opened.config, folder.path()).unwrap();
    assert_eq!(again.logits(&batch).unwrap(), trained);

    let out = folder.path().join("merged");
    merge(opened.weights.as_ref(), &opened.config, &(saved_as, tensors), OutDtype::F32, &out, &mut |_, _| {}).unwrap();
    let merged = models::Safetensors::open_dir(&out).unwrap();
    let spec = BaseSpec { config: &opened.config, weights: &merged, storage: BaseDtype::F32.into(), loftq: None };
    let merged = attach(runtime.load(0, &spec).unwrap().as_ref(), &AdapterConfig::none(), 0);
    assert_close(&merged.logits(&batch).unwrap(), &trained, 1e-4, "merged");
}
