//! What every method must pass: one generated matrix of methods and properties, printed as a table.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use lowrank::adapters::merge::{OutDtype, merge};
use lowrank::adapters::peft::{self, AdapterTensors, PeftConfig};
use lowrank::adapters::{AdapterConfig, LoftqPlan, Module, trainable};
use lowrank::data::Batch;
use lowrank::models::{self, Opened, Outline, Safetensors};
use lowrank::recipe::{BaseDtype, BaseStorage, Optim, Quant};
use lowrank::runtime::{AdapterSpec, Base, BaseSpec, Learner, Micro, Runtime};
use lowrank::tensors::{self, HostTensor, HostTensors};
use lowrank::train::attach_saved;
use lowrank_kernels::four_bit::Quantised;
use serde_json::json;
use tempfile::TempDir;

use super::cases::{self, Case, cases};
use super::golden::{
    Fixtures, assert_close, attach, difference, e2e, load, load_for, loftq, one_after_the_other, open,
};
use super::traces;

/// Optimizer steps a method may plan for, and how many of them the checks take.
const TOTAL: usize = 12;
const STEPS: usize = 3;

/// One method on one backend.
struct Bench<'a> {
    runtime: &'a dyn Runtime,
    name: String,
    under: &'a Under,
    base: &'a dyn Base,
    golden: &'a Fixtures,
    adapter: AdapterConfig,
}

/// What learners stand on.
struct Under {
    opened: Opened,
    base: Box<dyn Base>,
    /// The base's values in a file of f32: what it computes with, and what a merge adds to.
    dense: Opened,
    _dir: Option<TempDir>,
}

impl Under {
    fn new(runtime: &dyn Runtime, stored: cases::Base, plan: Option<&LoftqPlan>) -> Self {
        let storage = stored.storage();
        let opened = open("llama");
        let base = load_for(runtime, &opened, storage, plan);
        let Some(quant) = storage.quant else { return Self { base, dense: open("llama"), opened, _dir: None } };
        let dir = dequantised(&opened, quant, plan);
        let dense = models::open(&dir.path().display().to_string(), Path::new("/")).unwrap();
        Self { opened, base, dense, _dir: Some(dir) }
    }
}

/// The model with every linear of its blocks quantised, as a start with LoftQ wants it or plainly, and dequantised again on the host.
pub(super) fn dequantised(opened: &Opened, quant: Quant, plan: Option<&LoftqPlan>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let values = |(name, shape): (String, Vec<usize>)| {
        let mut values = opened.weights.read(&name).unwrap();
        if name.starts_with("model.layers.") && shape.len() == 2 {
            let (path, format) = (name.trim_end_matches(".weight"), quant.format());
            let quantised = plan.map(|plan| plan.quantised(path, &values, [shape[0], shape[1]], format).unwrap());
            values = quantised.unwrap_or_else(|| Quantised::new(&values, format)).dequantise();
        }
        (name, HostTensor { shape, values })
    };
    let tensors: HostTensors = opened.config.tensors().into_iter().map(values).collect();
    std::fs::write(dir.path().join("model.safetensors"), tensors::encode(&tensors).unwrap()).unwrap();
    for file in std::fs::read_dir(e2e("llama").join("base")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "json") {
            std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    dir
}

type Check = fn(&Bench);

/// In the order of the table's columns.
const PROPERTIES: [(&str, Check); 11] = [
    ("identity", starts_as_the_base),
    ("trainable", trains_exactly_what_it_says),
    ("frozen", leaves_the_base_alone),
    ("gradient", gradients_are_finite_differences),
    ("accumulate", two_halves_are_one_batch),
    ("recompute", checkpointed_gradients_are_the_same),
    ("trace", twenty_steps_give_the_known_losses),
    ("resume", goes_on_bit_for_bit),
    ("save/load", reads_back_what_it_saved),
    ("peft", writes_what_peft_reads),
    ("merge", merged_weights_do_the_same),
];

pub fn every_method_has_every_property(runtime: &dyn Runtime) {
    let cases = cases();
    let golden = Fixtures::read(e2e("llama").join("fixtures.safetensors"));
    let bases = cases::Base::ALL.map(|stored| Under::new(runtime, stored, None));
    let head = format!("methods on {}", runtime.name());
    let width = cases.iter().map(|case| case.name().len()).chain([head.len()]).max().unwrap_or_default();
    let mut table = format!("\n{head:<width$}");
    PROPERTIES.iter().for_each(|(name, _)| table += &format!(" {name:<10}"));
    let mut failures = Vec::new();
    for case in &cases {
        let adapter = case.adapter();
        let own = loftq(&bases[0].opened, &adapter).map(|plan| Under::new(runtime, case.base, Some(&plan)));
        let under = own.as_ref().unwrap_or(&bases[case.base as usize]);
        let base = under.base.as_ref();
        let bench = Bench { runtime, name: case.name(), under, base, golden: &golden, adapter };
        table += &format!("\n{:<width$}", case.name());
        for (property, check) in PROPERTIES {
            let cell = match case.exempt(property) {
                Some(_) => "-",
                None => match catch_unwind(AssertUnwindSafe(|| check(&bench))) {
                    Ok(()) => "ok",
                    Err(_) => {
                        failures.push(format!("{}: {property}", case.name()));
                        "FAILED"
                    }
                },
            };
            table += &format!(" {cell:<10}");
        }
    }
    table += "\n";
    for case in &cases {
        case.except.iter().for_each(|(property, why)| table += &format!("- {}, {property}: {why}\n", case.name()));
    }
    // Past the test harness, which shows what passing tests print to nobody.
    let _ = std::io::stderr().write_all(table.as_bytes());
    assert!(failures.is_empty(), "{failures:#?}");
}

impl Case {
    fn adapter(&self) -> AdapterConfig {
        let mut own: serde_json::Value = serde_json::from_str(self.keys).expect("a case's keys are JSON");
        if own.get("targets").is_none() {
            own["targets"] = json!("all-linear");
        }
        serde_json::from_value(json!({ self.method: own })).unwrap_or_else(|error| panic!("{}: {error}", self.name()))
    }

    fn exempt(&self, property: &str) -> Option<&str> {
        self.except.iter().find(|(name, _)| *name == property).map(|(_, why)| *why)
    }
}

impl Bench<'_> {
    fn fresh(&self) -> Box<dyn Learner> {
        let optim = Optim::default();
        let spec = AdapterSpec { total_steps: TOTAL, ..AdapterSpec::fresh(&self.adapter, &optim, 3) };
        self.base.attach(&spec).unwrap()
    }

    /// After some steps, so that no factor is zero any more.
    fn trained(&self) -> Box<dyn Learner> {
        let mut learner = self.fresh();
        (0..STEPS).for_each(|k| self.step(learner.as_mut(), k));
        learner
    }

    fn step(&self, learner: &mut dyn Learner, k: usize) {
        self.backward(learner, &self.golden.train_batch(k));
        learner.step(1e-2, 0.9);
    }

    fn backward(&self, learner: &mut dyn Learner, batch: &Batch) {
        let micro = Micro { weight: 1.0 / batch.terms() as f64, ..Micro::default() };
        learner.accumulate(batch, &micro).unwrap();
    }

    fn batch(&self) -> Batch {
        self.golden.batch("input_ids", "labels")
    }

    fn logits(&self, learner: &dyn Learner) -> Vec<f32> {
        learner.logits(&self.batch()).unwrap()
    }

    /// The adapter as PEFT's files hold it.
    fn exported(&self, learner: &dyn Learner) -> (PeftConfig, AdapterTensors) {
        let spec = self.adapter.spec().unwrap();
        let (saved_as, values) = spec.export(learner.export(), learner.adapted()).unwrap();
        let tensors = peft::to_file(values, &saved_as, &self.modules()).unwrap();
        (PeftConfig::new(saved_as, "base"), tensors)
    }

    fn quantised(&self) -> bool {
        self.under._dir.is_some()
    }

    fn modules(&self) -> Vec<Module> {
        Module::list(&self.under.opened.config)
    }

    fn load(&self, weights: &Safetensors) -> Box<dyn Base> {
        let spec =
            BaseSpec { config: &self.under.opened.config, weights, storage: BaseStorage::default(), loftq: None };
        self.runtime.load(0, &spec).unwrap()
    }
}

fn starts_as_the_base(bench: &Bench) {
    let dense = load(bench.runtime, &bench.under.dense, BaseDtype::F32);
    let dense = bench.logits(attach(dense.as_ref(), &AdapterConfig::none(), 0).as_ref());
    assert_close(&bench.logits(bench.fresh().as_ref()), &dense, 1e-4, "logits");
    let (plain, fresh) = (attach(bench.base, &AdapterConfig::none(), 0), bench.fresh());
    assert_close(&bench.logits(fresh.as_ref()), &bench.logits(plain.as_ref()), 2e-5, "logits");
}

fn trains_exactly_what_it_says(bench: &Bench) {
    let mut learner = bench.fresh();
    assert_eq!(
        learner.trainable(),
        trainable(&Outline::of(&bench.under.opened.config), &bench.adapter, learner.adapted())
    );
    bench.backward(learner.as_mut(), &bench.golden.train_batch(0));
    assert!(learner.trainable().keys().eq(learner.gradients().keys()), "what trains is what has gradients");
    let before = learner.export();
    learner.discard();
    (0..STEPS).for_each(|k| bench.step(learner.as_mut(), k));
    let (after, trains) = (learner.export(), learner.trainable());
    // Delta-LoRA's snapshot is written once, by itself.
    for (path, value) in after.into_iter().filter(|(path, _)| !path.contains(".snapshot_")) {
        assert_eq!(before[&path] != value, trains.contains_key(&path), "{path} moves if and only if it trains");
    }
}

fn leaves_the_base_alone(bench: &Bench) {
    let plain = attach(bench.base, &AdapterConfig::none(), 0);
    let before = bench.logits(plain.as_ref());
    let trained = bench.trained();
    assert!(difference(&bench.logits(trained.as_ref()), &before) > 1e-3, "training changes nothing");
    assert_eq!(bench.logits(plain.as_ref()), before);
}

/// Along the gradient of each kind of parameter, from the mean loss at either side.
fn gradients_are_finite_differences(bench: &Bench) {
    let mut learner = bench.trained();
    let batch = bench.golden.train_batch(4);
    bench.backward(learner.as_mut(), &batch);
    let (gradients, values) = (learner.gradients(), learner.export());
    let kind = |path: &str| path.rsplit('.').next().unwrap_or_default().to_string();
    let mut kinds: Vec<String> = gradients.keys().map(|path| kind(path)).collect();
    kinds.sort();
    kinds.dedup();
    for wanted in kinds {
        let own: Vec<&String> = gradients.keys().filter(|path| kind(path) == wanted).collect();
        let norm = |of: &dyn Fn(&str) -> Vec<f32>| -> f64 {
            own.iter().flat_map(|path| of(path)).map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
        };
        let slope = norm(&|path| gradients[path].clone());
        let size = norm(&|path| values[path].values.clone());
        let reach = (0.02 / slope).min(0.05 * size);
        let mut loss_at = |distance: f64| {
            let mut moved: HostTensors = values.clone();
            for path in &own {
                let along = gradients[*path].iter().map(|g| (f64::from(*g) / slope * distance) as f32);
                moved[*path].values.iter_mut().zip(along).for_each(|(value, d)| *value += d);
            }
            learner.import(&moved).unwrap();
            learner.loss(&batch).unwrap() / batch.terms() as f64
        };
        let found = (loss_at(reach) - loss_at(-reach)) / (2.0 * reach);
        assert!((found - slope).abs() < 0.02 * slope, "{wanted}: {found} by differences, {slope} by the gradient");
    }
}

fn two_halves_are_one_batch(bench: &Bench) {
    let (a, b) = (bench.golden.train_batch(0), bench.golden.train_batch(1));
    let both = one_after_the_other(&a, &b);
    let weight = 1.0 / both.terms() as f64;
    let gradients = |batches: &[&Batch]| {
        let mut learner = bench.trained();
        for batch in batches {
            learner.accumulate(batch, &Micro { weight, ..Micro::default() }).unwrap();
        }
        let norm = learner.grad_norm();
        (norm, learner.gradients())
    };
    let ((norm, split), (whole_norm, whole)) = (gradients(&[&a, &b]), gradients(&[&both]));
    assert!((norm - whole_norm).abs() < 1e-4 * whole_norm, "{norm} {whole_norm}");
    split.iter().for_each(|(path, gradient)| assert_close(gradient, &whole[path], 1e-5, path));
}

fn checkpointed_gradients_are_the_same(bench: &Bench) {
    let gradients = |gradient_checkpointing| {
        let mut learner = bench.trained();
        let micro = Micro { weight: 0.01, gradient_checkpointing, ..Micro::default() };
        learner.accumulate(&bench.golden.train_batch(4), &micro).unwrap();
        learner.gradients()
    };
    let (plain, again) = (gradients(false), gradients(true));
    assert_eq!(plain.len(), again.len());
    plain.iter().for_each(|(path, gradient)| assert_close(gradient, &again[path], 1e-5, path));
}

/// Over NF4 what the same steps give over its values in f32; else what burn-flex gave when it was last looked at, see
/// `traces.rs`.
fn twenty_steps_give_the_known_losses(bench: &Bench) {
    let trace = |base: &dyn Base| {
        let optim = Optim::default();
        let spec = AdapterSpec { total_steps: 20, ..AdapterSpec::fresh(&bench.adapter, &optim, 3) };
        let mut learner = base.attach(&spec).unwrap();
        let step = |k: usize| {
            let batch = bench.golden.train_batch(k);
            let micro = Micro { weight: 1.0 / batch.terms() as f64, ..Micro::default() };
            let loss = learner.accumulate(&batch, &micro).unwrap().loss * micro.weight;
            learner.step(1e-2, 0.9);
            loss
        };
        (0..20).map(step).collect::<Vec<f64>>()
    };
    let found = trace(bench.base);
    let expected = match bench.quantised() {
        true => trace(load(bench.runtime, &bench.under.dense, BaseDtype::F32).as_ref()),
        false => traces::known(&bench.name, &found),
    };
    for (k, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() < 5e-4 * expected, "step {k}: {found}, expected {expected}");
    }
}

fn goes_on_bit_for_bit(bench: &Bench) {
    let run = |break_after: Option<usize>| {
        let mut learner = bench.fresh();
        for k in 0..2 * STEPS {
            if break_after == Some(k) {
                let (values, state) = (learner.export(), learner.state());
                learner = bench.fresh();
                learner.import(&values).unwrap();
                learner.set_state(&state, k).unwrap();
            }
            bench.step(learner.as_mut(), k);
        }
        learner.finish();
        (learner.export(), learner.state())
    };
    assert_eq!(run(None), run(Some(STEPS)));
}

fn reads_back_what_it_saved(bench: &Bench) {
    let mut learner = bench.trained();
    learner.finish();
    let (config, tensors) = bench.exported(learner.as_ref());
    let dir = tempfile::tempdir().unwrap();
    peft::write(dir.path(), &config, &tensors, &bench.modules()).unwrap();
    let (again, _) = attach_saved(bench.base, &bench.under.opened.config, dir.path()).unwrap();
    assert_close(&bench.logits(again.as_ref()), &bench.logits(learner.as_ref()), 2e-5, "logits");
}

fn writes_what_peft_reads(bench: &Bench) {
    let (config, tensors) = bench.exported(bench.trained().as_ref());
    let files = peft::to_files(&config, &tensors, &bench.modules()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    peft::write(dir.path(), &config, &tensors, &bench.modules()).unwrap();
    let (config, read) = peft::read(dir.path(), "llama", &bench.modules()).unwrap();
    assert_eq!((read.len(), &config.warnings), (tensors.len(), &Vec::new()));
    assert_eq!(peft::to_files(&config, &read, &bench.modules()).unwrap(), files);
    assert!(tensors.keys().all(|key| key.starts_with("base_model.")));
}

fn merged_weights_do_the_same(bench: &Bench) {
    let mut learner = bench.trained();
    learner.finish();
    let out = tempfile::tempdir().unwrap();
    let merged = out.path().join("merged");
    let dense = &bench.under.dense;
    merge(
        dense.weights.as_ref(),
        &dense.config,
        &bench.exported(learner.as_ref()),
        OutDtype::F32,
        &merged,
        &mut |_, _| {},
    )
    .unwrap();
    let base = bench.load(&Safetensors::open_dir(&merged).unwrap());
    let plain = attach(base.as_ref(), &AdapterConfig::none(), 0);
    assert_close(&bench.logits(plain.as_ref()), &bench.logits(learner.as_ref()), 1e-4, "logits");
}
