//! LoftQ's start: what it makes up for, and the base that it has for itself.

use std::path::{Path, PathBuf};

use lowrank::adapters::merge::{Form, Merged, OutDtype, write};
use lowrank::adapters::{AdapterConfig, LoraConfig, LoraInit};
use lowrank::events::Control;
use lowrank::models::{self, Safetensors};
use lowrank::recipe::{self, BaseCompute, BaseDtype, BaseStorage, Blocks, Optim, Quant, Resolved};
use lowrank::runtime::{AdapterSpec, Base, BaseSpec, Learner, Micro, Runtime};
use lowrank::tensors::{HostTensors, decode};
use lowrank::train::{Adapters, Job, Options, Outcome, Subject, Target, attach_saved};

use super::conformance::dequantised;
use super::golden::{Fixtures, assert_close, assert_same, attach, difference, e2e, load, load_for, loftq, open};

const QUANT: Quant = Quant::Nf4(Blocks { block: 64, double: true });
const STORAGE: BaseStorage = BaseStorage { dtype: BaseDtype::F32, quant: Some(QUANT), compute: BaseCompute::F32 };

/// At s = 4, which the start has to divide out.
fn lora(init: LoraInit) -> AdapterConfig {
    LoraConfig { init, rank: 16, alpha: 64.0, ..LoraConfig::default() }.into()
}

fn base(runtime: &dyn Runtime, adapter: &AdapterConfig) -> Box<dyn Base> {
    let opened = open("llama");
    load_for(runtime, &opened, STORAGE, loftq(&opened, adapter).as_ref())
}

fn golden() -> Fixtures {
    Fixtures::read(e2e("llama").join("fixtures.safetensors"))
}

fn logits(learner: &dyn Learner) -> Vec<f32> {
    learner.logits(&golden().batch("input_ids", "labels")).unwrap()
}

/// The logits come closer to the unquantised model's with one iteration, and again with more.
pub fn the_start_is_closer_to_the_weights_than_their_quantisation(runtime: &dyn Runtime) {
    let expected = golden().f32("base.logits");
    let distance = |init| {
        let adapter = lora(init);
        let found = logits(attach(base(runtime, &adapter).as_ref(), &adapter, 0).as_ref());
        let squares = found.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let [plain, once, five] = [LoraInit::Default, LoraInit::Loftq(1), LoraInit::Loftq(5)].map(distance);
    assert!(once < 0.8 * plain && five < 0.9 * once, "{plain} {once} {five}");
}

/// Twenty losses over four-bit codes and over the values they stand for, from the same start; they fall.
pub fn trains_as_over_the_dequantised_weights(runtime: &dyn Runtime) {
    let (opened, golden) = (open("llama"), golden());
    for init in [LoraInit::Loftq(1), LoraInit::Loftq(3)] {
        let adapter = lora(init);
        let dir = dequantised(&opened, QUANT, loftq(&opened, &adapter).as_ref());
        let dense = models::open(&dir.path().display().to_string(), Path::new("/")).unwrap();
        let mut learner = attach(base(runtime, &adapter).as_ref(), &adapter, 0);
        let mut same = attach(load(runtime, &dense, BaseDtype::F32).as_ref(), &lora(LoraInit::Default), 0);
        same.import(&learner.export()).unwrap();
        let step = |learner: &mut dyn Learner, k: usize| {
            let batch = golden.train_batch(k);
            let weight = 1.0 / batch.terms() as f64;
            let loss = learner.accumulate(&batch, &Micro { weight, ..Micro::default() }).unwrap().loss * weight;
            learner.step(1e-3, 1.0);
            loss
        };
        let losses: Vec<f64> = (0..20).map(|k| step(learner.as_mut(), k)).collect();
        for (k, loss) in losses.iter().enumerate() {
            let expected = step(same.as_mut(), k);
            assert!((loss - expected).abs() < 2e-4 * expected, "{init} step {k}: {loss} {expected}");
        }
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(mean(&losses[15..]) < mean(&losses[..5]), "{losses:?}");
    }
}

fn job(runtime: &'static dyn Runtime, init: &str, sets: &str) -> Job {
    let text = format!(
        "[model]\npath = {:?}\n[base]\nquant = {{ nf4 = {{}} }}\n[adapter.lora]\nrank = 8\nalpha = 32\n{init}\n[data]\n\
         train = \"synthetic:menu\"\nmax_rows = 16\n[optim]\nschedule = \"constant\"\n[train]\nbatch = 2\n{sets}\n",
        e2e("llama").join("base"),
    );
    let recipe = recipe::parse(&text).unwrap();
    let resolved = Resolved { recipe, name: "loftq".into(), root: PathBuf::from("/"), overrides: 0 };
    let device = runtime.devices().remove(0);
    Job::prepare(&resolved, &Target { runtime, index: 0, device }).unwrap()
}

fn train(mut job: Job, options: &Options) -> Outcome {
    let run = job.begin(options).unwrap().run.expect("something to do");
    let bus = run.bus().unwrap();
    run.train(&bus, &Control::new()).unwrap()
}

fn fresh(out: &Path) -> Options {
    Options { out: Some(out.into()), resume: None }
}

fn tensors(run: &Path) -> HostTensors {
    let path = run.join("final/adapter_model.safetensors");
    decode(&std::fs::read(&path).unwrap(), &path).unwrap()
}

const ITERATED: &str = "init = \"loftq_iter_3\"";

/// A run that was broken off ends the same, and everything that reads it computes with the base it was trained over.
pub fn a_run_keeps_its_own_base(runtime: &'static dyn Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    let verify = train(job(runtime, ITERATED, "max_steps = 4"), &fresh(&whole)).verify.unwrap();
    assert!(verify.max_abs_logit_diff < 2e-5, "{verify:?}");
    train(job(runtime, ITERATED, "max_steps = 2"), &fresh(&broken));
    train(job(runtime, ITERATED, "max_steps = 4"), &Options { out: None, resume: Some(Some(broken.clone())) });
    assert_same(runtime, &tensors(&broken), &tensors(&whole), "broken off");

    let (opened, saved) = (open("llama"), whole.join("final"));
    let over = |base: &dyn Base| logits(attach_saved(base, &opened.config, &saved).unwrap().0.as_ref());
    let adapter = job(runtime, ITERATED, "max_steps = 4").recipe.adapter;
    let expected = over(base(runtime, &adapter).as_ref());
    let target = job(runtime, ITERATED, "max_steps = 4").target;
    for path in [&whole, &saved] {
        let (learner, warnings) = Subject::open(path, None).unwrap().load(&target).unwrap();
        assert!(logits(learner.as_ref()) == expected && warnings.is_empty(), "{}", path.display());
    }
    assert!(difference(&expected, &over(load(runtime, &opened, STORAGE).as_ref())) > 1e-3, "another base");
    merges_into_it(runtime, &whole, &expected);
    // One iteration has the base that everybody has.
    let once = lora(LoraInit::Loftq(1));
    let none = AdapterConfig::none();
    let plain = |base: &dyn Base| logits(attach(base, &none, 0).as_ref());
    assert_close(&plain(base(runtime, &once).as_ref()), &plain(load(runtime, &opened, STORAGE).as_ref()), 0.0, "base");
}

/// The whole model, and the base by itself as codes that the adapter goes over.
fn merges_into_it(runtime: &'static dyn Runtime, run: &Path, expected: &[f32]) {
    let adapters = Adapters::open(&[run.to_path_buf()], None).unwrap();
    let (stored, config) = (adapters.stored().unwrap(), &adapters.subject.opened.config);
    let folder = tempfile::tempdir().unwrap();
    let written = |merged: &Merged<'_>, name: &str| {
        let out = folder.path().join(name);
        write(merged, OutDtype::F32, &out, &mut |_, _| {}).unwrap();
        out
    };
    let whole = written(&Merged::new(&stored, config, &adapters.list[0], Form::Dense).unwrap(), "whole");
    let whole = Safetensors::open_dir(&whole).unwrap();
    let spec = BaseSpec { config, weights: &whole, storage: BaseStorage::default(), loftq: None };
    let base = runtime.load(0, &spec).unwrap();
    assert_close(&logits(attach(base.as_ref(), &AdapterConfig::none(), 0).as_ref()), expected, 1e-4, "merged");
    let codes = written(&Merged::plain(&stored, config, Form::Requantised), "codes");
    adapters.subject.opened.tokenizer.save(&codes).unwrap();
    // With its base's codes as the base, the run is as it was.
    let device = runtime.devices().remove(0);
    let (learner, _) = Subject::open(run, Some(&codes)).unwrap().load(&Target { runtime, index: 0, device }).unwrap();
    assert!(logits(learner.as_ref()) == expected);
}

/// Over its own base an adapter goes with no other and starts no other run; a base without a plan starts nothing.
pub fn what_belongs_to_another_base_is_refused(runtime: &'static dyn Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let [own, plain, next] = ["own", "plain", "next"].map(|name| folder.path().join(name));
    train(job(runtime, ITERATED, "max_steps = 1"), &fresh(&own));
    train(job(runtime, "init = \"loftq\"", "max_steps = 1"), &fresh(&plain));
    let told = Adapters::open(&[own.clone(), plain.clone()], None).err().unwrap().to_string();
    assert!(told.contains("different bases") && told.contains("LoftQ"), "{told}");
    Adapters::open(&[plain.clone(), plain.clone()], None).unwrap();
    for adapter in [own.clone(), own.join("final")] {
        let sets = format!("max_steps = 1\ninit_from = {adapter:?}");
        let told = job(runtime, "", &sets).begin(&fresh(&next)).err().unwrap().to_string();
        assert!(told.contains("train.init_from") && told.contains("LoftQ") && !next.exists(), "{told}");
    }
    train(job(runtime, "", &format!("max_steps = 1\ninit_from = {plain:?}")), &fresh(&next));

    let (opened, adapter) = (open("llama"), lora(LoraInit::Loftq(1)));
    let (optim, unplanned) = (Optim::default(), load(runtime, &opened, STORAGE));
    let told = unplanned.attach(&AdapterSpec::fresh(&adapter, &optim, 0)).err().unwrap().to_string();
    assert!(told.contains("not loaded for a start with LoftQ"), "{told}");
}
