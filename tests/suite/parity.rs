//! Forward passes against transformers and PEFT.

use lowrank::adapters::AdapterConfig;
use lowrank::data::Batch;
use lowrank::models::ModelConfig;
use lowrank::recipe::BaseDtype;
use lowrank::runtime::{BaseSpec, Micro, Runtime, Sampling};
use lowrank::train::attach_saved;

use super::golden::{self, Fixtures, assert_close, attach, e2e, load, open, plain};

const TOLERANCE: f32 = 1e-4;

fn fixtures(model: &str) -> Fixtures {
    Fixtures::read(e2e(model).join("fixtures.safetensors"))
}

pub fn base_logits(runtime: &dyn Runtime) {
    for model in ["llama", "qwen2"] {
        let (learner, golden) = (plain(runtime, model), fixtures(model));
        let batch = golden.batch("input_ids", "labels");
        assert_close(&learner.logits(&batch).unwrap(), &golden.f32("base.logits"), TOLERANCE, model);
        let loss = learner.loss(&batch).unwrap() / batch.terms() as f64;
        assert_close(&[loss as f32], &golden.f32("base.loss"), TOLERANCE, model);
    }
}

pub fn rope_scaling(runtime: &dyn Runtime) {
    let (opened, golden) = (open("llama"), fixtures("llama"));
    let extra = Fixtures::read(e2e("llama_extra").join("extra.safetensors"));
    for kind in ["linear", "llama3"] {
        let path = e2e("llama_extra").join(format!("config_rope_{kind}.json"));
        let config = ModelConfig::from_json(&std::fs::read(&path).unwrap(), &path).unwrap();
        let spec =
            BaseSpec { config: &config, weights: opened.weights.as_ref(), storage: BaseDtype::F32.into(), loftq: None };
        let base = runtime.load(0, &spec).unwrap();
        let learner = attach(base.as_ref(), &AdapterConfig::none(), 0);
        let logits = learner.logits(&golden.batch("input_ids", "labels")).unwrap();
        assert_close(&logits, &extra.f32(&format!("rope_{kind}.logits")), TOLERANCE, kind);
    }
}

pub fn left_padding(runtime: &dyn Runtime) {
    let extra = Fixtures::read(e2e("llama_extra").join("extra.safetensors"));
    let mut batch = fixtures("llama").batch("input_ids", "labels");
    batch.segment = extra.i64("leftpad.attention_mask").1.iter().map(|&seen| seen as i32).collect();
    let logits = plain(runtime, "llama").logits(&batch).unwrap();
    let (vocab, expected) = (logits.len() / batch.segment.len(), extra.f32("leftpad.logits"));
    for (i, _) in batch.segment.iter().enumerate().filter(|(_, segment)| **segment != 0) {
        let at = i * vocab..(i + 1) * vocab;
        assert_close(&logits[at.clone()], &expected[at], TOLERANCE, &format!("position {i}"));
    }
}

pub fn greedy_generation(runtime: &dyn Runtime) {
    let extra = Fixtures::read(e2e("llama_extra").join("extra.safetensors"));
    let ids: Vec<u32> = extra.i64("greedy.ids").1.iter().map(|&id| id as u32).collect();
    let sampling = Sampling { max_new_tokens: ids.len() - 8, temperature: 0.0, seed: 0, stop: vec![] };
    let mut heard = Vec::new();
    let learner = plain(runtime, "llama");
    let new = learner.generate(&ids[..8], &sampling, &mut |id| {
        heard.push(id);
        true
    });
    assert_eq!(new.unwrap(), ids[8..]);
    assert_eq!(heard, ids[8..]);
}

/// Every adapter that PEFT wrote: LoRA's with their own options of targets, ranks, layers and whole modules; VeRA's with and
/// without saved projections.
const ADAPTERS: &[(&str, &[&str])] = &[
    (
        "llama",
        &[
            "lora",
            "lora_rslora_pattern",
            "lora_embed_mts",
            "lora_regex_layers",
            "lora_layers_to_transform",
            "lora_exclude",
            "dora",
            "vera",
            "vera_noproj",
            "adalora",
        ],
    ),
    ("qwen2", &["lora", "lora_qv"]),
];

fn each_adapter(runtime: &dyn Runtime, mut check: impl FnMut(&str, &mut dyn lowrank::runtime::Learner, &Fixtures)) {
    for (model, adapters) in ADAPTERS {
        let (opened, golden) = (open(model), fixtures(model));
        let base = load(runtime, &opened, BaseDtype::F32);
        for adapter in *adapters {
            let dir = e2e(model).join("adapters").join(adapter);
            let (mut learner, _) = attach_saved(base.as_ref(), &opened.config, &dir).unwrap();
            check(adapter, learner.as_mut(), &golden);
        }
    }
}

pub fn adapters_written_by_peft(runtime: &dyn Runtime) {
    each_adapter(runtime, |adapter, learner, golden| {
        let batch = golden.batch("input_ids", "labels");
        let logits = learner.logits(&batch).unwrap();
        assert_close(&logits, &golden.f32(&format!("{adapter}.logits")), TOLERANCE, adapter);
        assert!(golden::difference(&logits, &golden.f32("base.logits")) > 0.01, "{adapter} changes nothing");
    });
}

pub fn first_gradients(runtime: &dyn Runtime) {
    each_adapter(runtime, |adapter, learner, golden| {
        // PEFT took them before it cut the adapter down to the triplets that are left, and with the orthogonality term in.
        if adapter == "adalora" {
            return;
        }
        let batch = golden.train_batch(0);
        let micro = Micro { weight: 1.0 / batch.terms() as f64, ..Micro::default() };
        learner.accumulate(&batch, &micro).unwrap();
        let gradients = learner.gradients();
        let prefix = format!("{adapter}.grad0.base_model.model.");
        let mut compared = 0;
        for name in golden.names().iter().filter(|name| name.starts_with(&prefix)) {
            let path = name[prefix.len()..].trim_end_matches(".weight").replace("lora_embedding_", "lora_");
            let Some(gradient) = gradients.get(&path) else { panic!("{adapter}: no gradient for {path}") };
            assert_close(gradient, &golden.f32(name), TOLERANCE, name);
            compared += 1;
        }
        // Gradients of whole modules were too large for the fixtures.
        let whole = learner.trainable().keys().filter(|path| path.ends_with(".weight")).count();
        assert_eq!(compared + whole, gradients.len(), "{adapter}");
    });
}

pub fn bf16_base_is_close(runtime: &dyn Runtime) {
    let (opened, golden) = (open("llama"), fixtures("llama"));
    let none = AdapterConfig::none();
    let batch: Batch = golden.batch("input_ids", "labels");
    let (f32, bf16) = (load(runtime, &opened, BaseDtype::F32), load(runtime, &opened, BaseDtype::Bf16));
    assert!(bf16.bytes() < f32.bytes() * 51 / 100, "{} of {}", bf16.bytes(), f32.bytes());
    let logits = attach(bf16.as_ref(), &none, 0).logits(&batch).unwrap();
    let difference = golden::difference(&logits, &golden.f32("base.logits"));
    assert!(difference > 1e-4 && difference < 0.1, "{difference}");
}
