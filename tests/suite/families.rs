//! Every family against transformers and PEFT, on tiny models with random weights: a directory of `tests/golden/e2e` each.

use std::path::{Path, PathBuf};

use lowrank::adapters::merge::{OutDtype, merge};
use lowrank::adapters::{AdapterConfig, BiasMode, LoraConfig, Module, Origin, peft, trainable};
use lowrank::data::Batch;
use lowrank::models::{self, ModelConfig, Outline};
use lowrank::recipe::{BaseDtype, BaseStorage, Blocks, Quant};
use lowrank::runtime::{BaseSpec, Learner, Micro, Runtime, Sampling};
use lowrank::train::attach_saved;

use super::golden::{Fixtures, assert_close, attach, difference, e2e, load, open, plain};

const TOLERANCE: f32 = 1e-4;

/// The directories.
const FAMILIES: &[&str] = &[
    "qwen3",
    "qwen3_variants",
    "gpt2",
    "gemma3_text",
    "glm",
    "glm4",
    "bloom",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "deepseek",
];

/// Variants of a directory that are refused, and the key that the refusal names.
const REFUSED: &[(&str, &str, &str)] = &[("gemma3_text", "final_softcap", "final_logit_softcapping")];

fn fixtures(family: &str) -> Fixtures {
    Fixtures::read(e2e(family).join("fixtures.safetensors"))
}

fn names(dir: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn adapters(family: &str) -> Vec<String> {
    let names = names(e2e(family).join("adapters"));
    assert!(!names.is_empty(), "{family}");
    names
}

fn adapted(runtime: &dyn Runtime, family: &str, adapter: &str) -> Box<dyn Learner> {
    let opened = open(family);
    let base = load(runtime, &opened, BaseDtype::F32);
    attach_saved(base.as_ref(), &opened.config, &e2e(family).join("adapters").join(adapter)).unwrap().0
}

/// Whether gate and up of experts share their A in PEFT, and train apart here.
fn is_stacked(family: &str, adapter: &str) -> bool {
    let path = e2e(family).join("adapters").join(adapter).join("adapter_config.json");
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    config["target_parameters"].as_array().is_some_and(|names| !names.is_empty())
}

/// The batch under `side`, its padding on that side.
fn padded(golden: &Fixtures, side: &str) -> Batch {
    let mut batch = golden.batch(&format!("{side}.input_ids"), &format!("{side}.labels"));
    let (_, mask) = golden.i64(&format!("{side}.attention_mask"));
    batch.segment = mask.iter().map(|&seen| seen as i32).collect();
    for (position, mask) in batch.position.chunks_mut(batch.len).zip(mask.chunks(batch.len)) {
        let first = mask.iter().position(|&seen| seen != 0).unwrap() as i32;
        position.iter_mut().for_each(|position| *position = (*position - first).max(0));
    }
    batch
}

#[track_caller]
fn assert_close_where_seen(logits: &[f32], expected: &[f32], batch: &Batch, what: &str) {
    let vocab = logits.len() / batch.segment.len();
    for (i, _) in batch.segment.iter().enumerate().filter(|(_, segment)| **segment != 0) {
        let at = i * vocab..(i + 1) * vocab;
        assert_close(&logits[at.clone()], &expected[at], TOLERANCE, &format!("{what}, position {i}"));
    }
}

fn check(learner: &dyn Learner, golden: &Fixtures, prefix: &str, what: &str) {
    let batch = golden.batch("input_ids", "labels");
    assert_close(&learner.logits(&batch).unwrap(), &golden.f32(&format!("{prefix}.logits")), TOLERANCE, what);
    if !golden.has(&format!("{prefix}.loss")) {
        return;
    }
    let loss = learner.loss(&batch).unwrap() / batch.terms() as f64;
    assert_close(&[loss as f32], &golden.f32(&format!("{prefix}.loss")), TOLERANCE, what);
}

pub fn base_logits(runtime: &dyn Runtime) {
    for family in FAMILIES {
        let (learner, golden) = (plain(runtime, family), fixtures(family));
        check(learner.as_ref(), &golden, "base", family);
        for side in ["left", "right"] {
            let batch = padded(&golden, side);
            let expected = golden.f32(&format!("base.{side}.logits"));
            assert_close_where_seen(&learner.logits(&batch).unwrap(), &expected, &batch, &format!("{family} {side}"));
        }
    }
}

/// The same weights under other keys of the configuration.
pub fn variants(runtime: &dyn Runtime) {
    for family in FAMILIES {
        let (opened, golden) = (open(family), fixtures(family));
        for file in names(e2e(family).join("variants")) {
            let (path, variant) = (e2e(family).join("variants").join(&file), file.trim_end_matches(".json"));
            let config = ModelConfig::from_json(&std::fs::read(&path).unwrap(), &path);
            if let Some((.., key)) = REFUSED.iter().find(|refused| (refused.0, refused.1) == (family, variant)) {
                assert!(config.unwrap_err().to_string().contains(key), "{family} {variant}");
                continue;
            }
            let (config, weights) = (config.unwrap(), opened.weights.as_ref());
            let spec = BaseSpec { config: &config, weights, storage: BaseDtype::F32.into(), loftq: None };
            let learner = attach(runtime.load(0, &spec).unwrap().as_ref(), &AdapterConfig::none(), 0);
            check(learner.as_ref(), &golden, &format!("variant.{variant}"), &format!("{family} {variant}"));
        }
    }
}

pub fn greedy_generation(runtime: &dyn Runtime) {
    for family in FAMILIES {
        let ids: Vec<u32> = fixtures(family).i64("greedy.ids").1.iter().map(|&id| id as u32).collect();
        let (prompt, rest) = ids.split_at(6);
        let sampling = Sampling { max_new_tokens: rest.len(), temperature: 0.0, seed: 0, stop: vec![] };
        assert_eq!(plain(runtime, family).generate(prompt, &sampling, &mut |_| true).unwrap(), rest, "{family}");
    }
}

pub fn adapters_written_by_peft(runtime: &dyn Runtime) {
    for family in FAMILIES {
        let golden = fixtures(family);
        for adapter in adapters(family) {
            let (learner, what) = (adapted(runtime, family, &adapter), format!("{family} {adapter}"));
            check(learner.as_ref(), &golden, &adapter, &what);
            let (ours, base) = (golden.f32(&format!("{adapter}.logits")), golden.f32("base.logits"));
            assert!(difference(&ours, &base) > 0.01, "{what} changes nothing");
        }
    }
}

/// Recomputed blocks give the same gradients.
pub fn first_gradients(runtime: &dyn Runtime) {
    for family in FAMILIES {
        let golden = fixtures(family);
        for adapter in adapters(family).into_iter().filter(|adapter| !is_stacked(family, adapter)) {
            let prefix = format!("{adapter}.grad0.base_model.model.");
            for gradient_checkpointing in [false, true] {
                let mut learner = adapted(runtime, family, &adapter);
                let batch = golden.train_batch(0);
                let micro = Micro { weight: 1.0 / batch.terms() as f64, gradient_checkpointing, ..Micro::default() };
                learner.accumulate(&batch, &micro).unwrap();
                let gradients = learner.gradients();
                for name in golden.names().iter().filter(|name| name.starts_with(&prefix)) {
                    let path = name[prefix.len()..].trim_end_matches(".weight").replace("lora_embedding_", "lora_");
                    let Some(gradient) = gradients.get(&path) else { panic!("{family} {adapter}: nothing for {path}") };
                    assert_close(gradient, &golden.f32(name), TOLERANCE, &format!("{family} {name}"));
                }
            }
        }
    }
}

pub fn twenty_steps_equal_peft(runtime: &dyn Runtime) {
    for family in FAMILIES {
        let golden = fixtures(family);
        let trace = std::fs::read(e2e(family).join("trace.json")).unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
        for adapter in adapters(family) {
            let mut learner = adapted(runtime, family, &adapter);
            let steps = trace["adapters"][&adapter]["trace"].as_array();
            assert!(steps.is_some() || adapter == "lora_per_expert_v4", "{family} {adapter}");
            let alike = if is_stacked(family, &adapter) { 1 } else { 20 };
            for (k, expected) in steps.into_iter().flatten().take(alike).enumerate() {
                let (batch, expected) = (golden.train_batch(k), expected.as_f64().unwrap());
                let trained = batch.terms() as f64;
                let micro = Micro { weight: 1.0 / trained, ..Micro::default() };
                let loss = learner.accumulate(&batch, &micro).unwrap().loss / trained;
                learner.step(1e-3, 1.0);
                let close = (loss - expected).abs() < 1e-4 * expected;
                assert!(close, "{family} {adapter} step {k}: {loss}, PEFT {expected}");
            }
        }
    }
}

/// What a merge writes is a model of its own: configuration, names and orientation are the family's.
pub fn merged_models_open(runtime: &dyn Runtime) {
    for family in FAMILIES {
        let (opened, golden) = (open(family), fixtures(family));
        for adapter in adapters(family) {
            let dir = e2e(family).join("adapters").join(&adapter);
            let adapter_files = peft::read(&dir, &opened.config.model_type, &Module::list(&opened.config)).unwrap();
            let parent = tempfile::tempdir().unwrap();
            let out = parent.path().join("merged");
            let weights = opened.weights.as_ref();
            merge(weights, &opened.config, &adapter_files, OutDtype::F32, &out, &mut |_, _| {}).unwrap();
            opened.tokenizer.save(&out).unwrap();
            let merged = models::open(&out.display().to_string(), Path::new("/")).unwrap();
            let learner = attach(load(runtime, &merged, BaseDtype::F32).as_ref(), &AdapterConfig::none(), 0);
            check(learner.as_ref(), &golden, &adapter, &format!("{family} {adapter}, merged"));
        }
    }
}

/// With every weight training, and with biases and a whole norm: what was told beforehand trains, and recomputed blocks give the
/// same gradients.
pub fn everything_may_train(runtime: &dyn Runtime) {
    for family in FAMILIES {
        let (opened, golden) = (open(family), fixtures(family));
        let base = load(runtime, &opened, BaseDtype::F32);
        let modules = Module::list(&opened.config);
        let norm = modules.iter().rfind(|module| !module.is_adaptable()).unwrap().path.clone();
        let biases = LoraConfig { bias: BiasMode::All, modules_to_save: vec![norm], ..LoraConfig::default() };
        for adapter in [AdapterConfig::full(), biases.into()] {
            let selected = adapter.select(&modules, Origin::Recipe).unwrap();
            let gradients = [false, true].map(|gradient_checkpointing| {
                let mut learner = attach(base.as_ref(), &adapter, 1);
                let expected = trainable(&Outline::of(&opened.config), &adapter, &selected);
                assert_eq!(learner.trainable(), expected, "{family} {}", adapter.name());
                let micro = Micro { weight: 0.01, gradient_checkpointing, ..Micro::default() };
                learner.accumulate(&golden.train_batch(0), &micro).unwrap();
                learner.gradients()
            });
            for (path, plain) in &gradients[0] {
                assert_close(&gradients[1][path], plain, 1e-5, &format!("{family} {path}"));
            }
            assert_eq!(gradients[0].len(), gradients[1].len(), "{family}");
        }
    }
}

/// Linear layers of blocks in four bits, whatever they are called; routers, embeddings and the head stay.
pub fn four_bit_bases_are_close(runtime: &dyn Runtime) {
    for family in FAMILIES {
        let (opened, golden) = (open(family), fixtures(family));
        let batch = golden.batch("input_ids", "labels");
        let storage = BaseStorage { quant: Some(Quant::Nf4(Blocks::default())), ..BaseStorage::default() };
        let [plain, packed] = [BaseStorage::default(), storage].map(|storage| load(runtime, &opened, storage));
        assert!(packed.bytes() < plain.bytes() * 3 / 4, "{family}: {} of {}", packed.bytes(), plain.bytes());
        let [exact, rounded] =
            [plain, packed].map(|base| attach(base.as_ref(), &AdapterConfig::none(), 0).loss(&batch).unwrap());
        assert!(exact != rounded && (exact - rounded).abs() < 0.1 * exact, "{family}: {exact}, {rounded}");
    }
}
