//! T5 against transformers and PEFT, on tiny models with random weights: a directory of `tests/golden/tasks/t5` each.

use std::path::{Path, PathBuf};

use lowrank::adapters::merge::{OutDtype, merge};
use lowrank::adapters::{AdapterConfig, LoraConfig, Module, Origin, peft, trainable};
use lowrank::data::{Batch, Decoder, IGNORE};
use lowrank::models::{self, ModelConfig, Opened, Outline};
use lowrank::recipe::{BaseDtype, BaseStorage, Blocks, Quant};
use lowrank::runtime::{BaseSpec, Learner, Micro, Runtime, Sampling};
use lowrank::train::attach_saved;

use super::golden::{Fixtures, assert_close, attach, difference, e2e, load};

const TOLERANCE: f32 = 1e-4;

/// Version 1.0, with ReLU and a tied head that reads scaled states; and 1.1, with a gate and a head of its own.
const SETS: [&str; 2] = ["seq2seq_relu_tied", "seq2seq_gated_untied"];
const ADAPTERS: [&str; 2] = ["lora_default", "lora_all_linear"];

fn dir(set: &str) -> PathBuf {
    e2e("..").join("tasks/t5").join(set)
}

fn fixtures(set: &str) -> Fixtures {
    Fixtures::read(dir(set).join("fixtures.safetensors"))
}

fn open(set: &str) -> Opened {
    models::open(&dir(set).join("base").display().to_string(), Path::new("/")).unwrap()
}

fn plain(runtime: &dyn Runtime, opened: &Opened) -> Box<dyn Learner> {
    attach(load(runtime, opened, BaseDtype::F32).as_ref(), &AdapterConfig::none(), 0)
}

fn adapted(runtime: &dyn Runtime, set: &str, adapter: &str) -> Box<dyn Learner> {
    let opened = open(set);
    let base = load(runtime, &opened, BaseDtype::F32);
    let (learner, config) =
        attach_saved(base.as_ref(), &opened.config, &dir(set).join("adapters").join(adapter)).unwrap();
    assert_eq!(config.task_type.as_deref(), Some("SEQ_2_SEQ_LM"));
    learner
}

/// Batch `k` of what lies under `prefix`, as transformers takes it: a decoder reads its labels shifted right, 0 first and 0 where
/// there is none.
fn batch(golden: &Fixtures, prefix: &str, k: usize) -> Batch {
    let of = |name: &str| {
        let (shape, values) = golden.i64(&format!("{prefix}{name}"));
        let [.., rows, len] = shape[..] else { panic!("{shape:?}") };
        let values: Vec<i32> = values[k * rows * len..(k + 1) * rows * len].iter().map(|&id| id as i32).collect();
        (rows, len, values)
    };
    let ((rows, len, ids), (_, width, labels)) = (of("input_ids"), of("labels"));
    let read = |row: &[i32]| -> Vec<i32> {
        std::iter::once(0).chain(row[..width - 1].iter().map(|&label| label.max(0))).collect()
    };
    Batch {
        rows,
        len,
        ids,
        targets: labels.iter().map(|&label| if label < 0 { IGNORE } else { label }).collect(),
        segment: of("attention_mask").2,
        position: (0..rows * len).map(|i| (i % len) as i32).collect(),
        decoder: Some(Decoder {
            len: width,
            ids: labels.chunks(width).flat_map(read).collect(),
            segment: labels.iter().map(|&label| i32::from(label >= 0)).collect(),
        }),
        ..Batch::default()
    }
}

/// One row of a batch without its padding, which is on the right.
fn row(batch: &Batch, row: usize) -> Batch {
    let decoder = batch.decoder.as_ref().unwrap();
    let real = |segment: &[i32]| segment.iter().filter(|&&segment| segment != 0).count();
    let (from, within) = (row * batch.len, row * decoder.len);
    let (len, said) =
        (real(&batch.segment[from..from + batch.len]), real(&decoder.segment[within..within + decoder.len]));
    Batch {
        rows: 1,
        len,
        ids: batch.ids[from..from + len].to_vec(),
        targets: batch.targets[within..within + said].to_vec(),
        segment: vec![1; len],
        position: (0..len as i32).collect(),
        decoder: Some(Decoder { len: said, ids: decoder.ids[within..within + said].to_vec(), segment: vec![1; said] }),
        ..Batch::default()
    }
}

/// Logits and loss of the batch under `side`, of the model `name`.
fn check(learner: &dyn Learner, golden: &Fixtures, name: &str, side: &str, what: &str) {
    let batch = batch(golden, side, 0);
    let expected = golden.f32(&format!("{name}.{side}logits"));
    assert_close(&learner.logits(&batch).unwrap(), &expected, TOLERANCE, &format!("{what} {side}"));
    let loss = learner.loss(&batch).unwrap() / batch.terms() as f64;
    assert_close(&[loss as f32], &golden.f32(&format!("{name}.{side}loss")), TOLERANCE, what);
}

pub fn base_logits(runtime: &dyn Runtime) {
    for set in SETS {
        let (learner, golden) = (plain(runtime, &open(set)), fixtures(set));
        check(learner.as_ref(), &golden, "base", "", set);
        check(learner.as_ref(), &golden, "base", "left.", set);
    }
}

/// The same weights under the configuration that the files on the Hugging Face hub have.
pub fn configurations_without_a_scale(runtime: &dyn Runtime) {
    let set = "seq2seq_gated_untied";
    let (opened, path) = (open(set), dir(set).join("variants/config_hub.json"));
    let config = ModelConfig::from_json(&std::fs::read(&path).unwrap(), &path).unwrap();
    let (weights, storage) = (opened.weights.as_ref(), BaseDtype::F32.into());
    let base = runtime.load(0, &BaseSpec { config: &config, weights, storage, loftq: None }).unwrap();
    check(attach(base.as_ref(), &AdapterConfig::none(), 0).as_ref(), &fixtures(set), "base", "", "hub");
}

pub fn greedy_generation(runtime: &dyn Runtime) {
    for set in SETS {
        let (learner, golden) = (plain(runtime, &open(set)), fixtures(set));
        let batch = batch(&golden, "", 0);
        let (shape, said) = golden.i64("greedy.ids");
        for (at, said) in said.chunks(shape[1]).enumerate() {
            let source: Vec<u32> = row(&batch, at).ids.iter().map(|&id| id as u32).collect();
            // The first one is what decoders start with.
            let expected: Vec<u32> = said[1..].iter().map(|&id| id as u32).collect();
            let sampling = Sampling { max_new_tokens: expected.len(), temperature: 0.0, seed: 0, stop: vec![] };
            assert_eq!(learner.generate(&source, &sampling, &mut |_| true).unwrap(), expected, "{set}, row {at}");
        }
    }
}

/// Token by token with a cache as all at once, far beyond where buckets grow wide.
pub fn cached_decoding_equals_one_pass(runtime: &dyn Runtime) {
    for set in SETS {
        let learner = adapted(runtime, set, "lora_default");
        let source: Vec<i32> = (0..40).map(|i| 3 + i * 37 % 120).collect();
        let prompt: Vec<u32> = source.iter().map(|&id| id as u32).collect();
        let sampling = Sampling { max_new_tokens: 30, temperature: 0.0, seed: 0, stop: vec![] };
        let said = learner.generate(&prompt, &sampling, &mut |_| true).unwrap();
        let ids: Vec<i32> = std::iter::once(0).chain(said.iter().map(|&id| id as i32)).take(said.len()).collect();
        let whole = Batch {
            rows: 1,
            len: source.len(),
            segment: vec![1; source.len()],
            position: (0..source.len() as i32).collect(),
            ids: source,
            targets: vec![IGNORE; ids.len()],
            decoder: Some(Decoder { len: ids.len(), segment: vec![1; ids.len()], ids }),
            ..Batch::default()
        };
        let logits = learner.logits(&whole).unwrap();
        for (at, (logits, &said)) in logits.chunks(128).zip(&said).enumerate() {
            let most = logits.iter().copied().fold(f32::MIN, f32::max);
            assert!(most - logits[said as usize] < TOLERANCE, "{set}, token {at}");
        }
    }
}

pub fn adapters_written_by_peft(runtime: &dyn Runtime) {
    for set in SETS {
        let golden = fixtures(set);
        for adapter in ADAPTERS {
            let (learner, what) = (adapted(runtime, set, adapter), format!("{set} {adapter}"));
            check(learner.as_ref(), &golden, adapter, "", &what);
            if golden.has(&format!("{adapter}.left.logits")) {
                check(learner.as_ref(), &golden, adapter, "left.", &what);
            }
            let (ours, base) = (golden.f32(&format!("{adapter}.logits")), golden.f32("base.logits"));
            assert!(difference(&ours, &base) > 0.01, "{what} changes nothing");
        }
    }
}

/// Recomputed blocks give the same gradients.
pub fn first_gradients(runtime: &dyn Runtime) {
    for set in SETS {
        let golden = fixtures(set);
        let prefix = "lora_default.grad0.base_model.model.";
        for gradient_checkpointing in [false, true] {
            let (mut learner, batch) = (adapted(runtime, set, "lora_default"), batch(&golden, "train.", 0));
            let micro = Micro { weight: 1.0 / batch.terms() as f64, gradient_checkpointing, ..Micro::default() };
            learner.accumulate(&batch, &micro).unwrap();
            let gradients = learner.gradients();
            let names: Vec<_> = golden.names().into_iter().filter(|name| name.starts_with(prefix)).collect();
            assert_eq!(names.len(), gradients.len());
            for name in names {
                let gradient = &gradients[name[prefix.len()..].trim_end_matches(".weight")];
                assert_close(gradient, &golden.f32(&name), TOLERANCE, &format!("{set} {name}"));
            }
        }
    }
}

pub fn twenty_steps_equal_peft(runtime: &dyn Runtime) {
    for set in SETS {
        let golden = fixtures(set);
        let trace: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir(set).join("trace.json")).unwrap()).unwrap();
        for adapter in ADAPTERS {
            let mut learner = adapted(runtime, set, adapter);
            let steps = trace["adapters"][adapter]["trace"].as_array().unwrap();
            assert_eq!(steps.len(), 20);
            for (k, expected) in steps.iter().enumerate() {
                let (batch, expected) = (batch(&golden, "train.", k), expected.as_f64().unwrap());
                let trained = batch.terms() as f64;
                let micro = Micro { weight: 1.0 / trained, ..Micro::default() };
                let loss = learner.accumulate(&batch, &micro).unwrap().loss / trained;
                learner.step(1e-3, 1.0);
                let close = (loss - expected).abs() < 1e-4 * expected;
                assert!(close, "{set} {adapter} step {k}: {loss}, PEFT {expected}");
            }
        }
    }
}

pub fn merged_models_open(runtime: &dyn Runtime) {
    for set in SETS {
        let (opened, golden) = (open(set), fixtures(set));
        for adapter in ADAPTERS {
            let from = dir(set).join("adapters").join(adapter);
            let files = peft::read(&from, &opened.config.model_type, &Module::list(&opened.config)).unwrap();
            let parent = tempfile::tempdir().unwrap();
            let out = parent.path().join("merged");
            merge(opened.weights.as_ref(), &opened.config, &files, OutDtype::F32, &out, &mut |_, _| {}).unwrap();
            opened.tokenizer.save(&out).unwrap();
            let merged = models::open(&out.display().to_string(), Path::new("/")).unwrap();
            assert_eq!(merged.config, opened.config);
            check(plain(runtime, &merged).as_ref(), &golden, adapter, "", &format!("{set} {adapter}, merged"));
        }
    }
}

/// With every weight training, and with an adapter on the tables of distances and one whole: what was told beforehand trains, and
/// recomputed blocks give the same gradients.
pub fn everything_may_train(runtime: &dyn Runtime) {
    for set in SETS {
        let (opened, golden) = (open(set), fixtures(set));
        let (base, modules) = (load(runtime, &opened, BaseDtype::F32), Module::list(&opened.config));
        let tables = LoraConfig {
            targets: lowrank::adapters::Targets::Names(vec!["relative_attention_bias".into(), "wo".into()]),
            modules_to_save: vec!["decoder.block.0.layer.0.SelfAttention.relative_attention_bias".into()],
            ..LoraConfig::default()
        };
        for adapter in [AdapterConfig::full(), tables.into()] {
            let selected = adapter.select(&modules, Origin::Recipe).unwrap();
            let gradients = [false, true].map(|gradient_checkpointing| {
                let mut learner = attach(base.as_ref(), &adapter, 1);
                assert_eq!(learner.trainable(), trainable(&Outline::of(&opened.config), &adapter, &selected), "{set}");
                let micro = Micro { weight: 0.01, gradient_checkpointing, ..Micro::default() };
                learner.accumulate(&batch(&golden, "train.", 0), &micro).unwrap();
                learner.gradients()
            });
            assert!(gradients[0].len() == gradients[1].len() && gradients[0].len() > 4, "{set}");
            for (path, plain) in &gradients[0] {
                assert_close(&gradients[1][path], plain, 1e-5, &format!("{set} {path}"));
            }
        }
    }
}

/// Blocks of a stack share the table of its first: a step along the gradient moves the loss by the gradient's square.
pub fn tables_of_distances_train(runtime: &dyn Runtime) {
    for set in SETS {
        let (opened, golden) = (open(set), fixtures(set));
        let batch = batch(&golden, "train.", 0);
        let mut learner = attach(load(runtime, &opened, BaseDtype::F32).as_ref(), &AdapterConfig::full(), 0);
        learner.accumulate(&batch, &Micro { weight: 1.0, ..Micro::default() }).unwrap();
        let (gradients, values) = (learner.gradients(), learner.export());
        for stack in ["encoder", "decoder"] {
            let path = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
            let square: f64 = gradients[&path].iter().map(|g| f64::from(*g).powi(2)).sum();
            let step = 0.025 / square;
            let mut loss_at = |sign: f64| {
                let mut moved = values.clone();
                let pairs = moved[&path].values.iter_mut().zip(&gradients[&path]);
                pairs.for_each(|(value, g)| *value += (sign * step * f64::from(*g)) as f32);
                learner.import(&moved).unwrap();
                learner.loss(&batch).unwrap()
            };
            let change = loss_at(1.0) - loss_at(-1.0);
            assert!((change - 0.05).abs() < 0.002, "{set} {stack}: {change} for a gradient of square {square}");
            learner.import(&values).unwrap();
        }
    }
}

/// What adapters add is counted at the tokens that their layers read: the encoder's or the decoder's, without padding.
pub fn energies_do_not_depend_on_padding(runtime: &dyn Runtime) {
    for set in SETS {
        let (learner, batch) = (adapted(runtime, set, "lora_all_linear"), batch(&fixtures(set), "", 0));
        let whole = learner.update_energy(&batch).unwrap();
        let rows: Vec<_> = (0..batch.rows).map(|at| learner.update_energy(&row(&batch, at)).unwrap()).collect();
        assert!(whole.len() > 20);
        for (path, whole) in &whole {
            let split: f64 = rows.iter().map(|row| row[path]).sum();
            assert!((whole - split).abs() < 1e-4 * whole, "{set} {path}: {whole}, row by row {split}");
        }
    }
}

/// Linear layers of blocks in four bits; embeddings, tables of distances and the head stay.
pub fn four_bit_bases_are_close(runtime: &dyn Runtime) {
    for set in SETS {
        let (opened, batch) = (open(set), batch(&fixtures(set), "", 0));
        let storage = BaseStorage { quant: Some(Quant::Nf4(Blocks::default())), ..BaseStorage::default() };
        let [plain, packed] = [BaseStorage::default(), storage].map(|storage| load(runtime, &opened, storage));
        assert!(packed.bytes() < plain.bytes() * 3 / 4, "{set}: {} of {}", packed.bytes(), plain.bytes());
        let [exact, rounded] =
            [plain, packed].map(|base| attach(base.as_ref(), &AdapterConfig::none(), 0).loss(&batch).unwrap());
        assert!(exact != rounded && (exact - rounded).abs() < 0.1 * exact, "{set}: {exact}, {rounded}");
    }
}
