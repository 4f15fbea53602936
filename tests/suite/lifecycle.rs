//! Adapters after training: several over one base, and training that goes on from one.

use std::path::{Path, PathBuf};

use lowrank::adapters::convert::to_lora;
use lowrank::adapters::{Module, peft};
use lowrank::checkpoint::Layout;
use lowrank::events::Control;
use lowrank::recipe::{self, BaseDtype, Offload, Resolved};
use lowrank::runtime::{Learner, Micro, Runtime};
use lowrank::tensors::{HostTensors, decode};
use lowrank::train::{Job, Options, Target, attach_none, attach_saved};

use super::golden::{Fixtures, assert_close, assert_same, difference, e2e, load, open};

/// Two adapters and the plain base take turns; neither turns nor training leave a trace on the others.
pub fn adapters_alternate_over_one_base(runtime: &'static dyn Runtime) {
    let (opened, golden) = (open("llama"), Fixtures::read(e2e("llama").join("fixtures.safetensors")));
    let base = load(runtime, &opened, BaseDtype::F32);
    let saved =
        |name: &str| attach_saved(base.as_ref(), &opened.config, &e2e("llama").join("adapters").join(name)).unwrap().0;
    let mut learners = [attach_none(base.as_ref()).unwrap(), saved("lora"), saved("lora_rslora_pattern")];
    let batch = golden.batch("input_ids", "labels");
    let logits = |learner: &dyn Learner| learner.logits(&batch).unwrap();
    let bytes = base.bytes();
    let first: Vec<_> = learners.iter().map(|learner| logits(learner.as_ref())).collect();
    for (expected, name) in first.iter().zip(["base", "lora", "lora_rslora_pattern"]) {
        assert_close(expected, &golden.f32(&format!("{name}.logits")), 1e-4, name);
    }
    for turn in [1, 0, 2, 1, 2, 0] {
        assert!(logits(learners[turn].as_ref()) == first[turn], "turn of {turn}");
    }
    let train = golden.train_batch(0);
    let micro = Micro { weight: 1.0 / train.terms() as f64, ..Micro::default() };
    learners[1].accumulate(&train, &micro).unwrap();
    learners[1].step(1e-2, 1.0);
    assert!(difference(&logits(learners[1].as_ref()), &first[1]) > 1e-3, "training changes its own learner");
    assert!(logits(learners[0].as_ref()) == first[0] && logits(learners[2].as_ref()) == first[2]);
    assert!(logits(saved("lora").as_ref()) == first[1], "attached anew it is what was saved");
    assert_eq!(base.bytes(), bytes);
}

/// What PEFT computes with each kind of adapter, the plain LoRA made of it computes too.
pub fn converted_adapters_compute_the_same(runtime: &'static dyn Runtime) {
    let (opened, golden) = (open("llama"), Fixtures::read(e2e("llama").join("fixtures.safetensors")));
    let base = load(runtime, &opened, BaseDtype::F32);
    let modules = Module::list(&opened.config);
    let batch = golden.batch("input_ids", "labels");
    for name in ["adalora", "vera", "vera_noproj", "lora_rslora_pattern", "lora_embed_mts"] {
        let dir = e2e("llama").join("adapters").join(name);
        let adapter = peft::read(&dir, &opened.config.model_type, &modules).unwrap();
        let (converted, _) = to_lora(&adapter, &modules, None).unwrap();
        let plain = tempfile::tempdir().unwrap();
        peft::write(plain.path(), &converted.0, &converted.1, &modules).unwrap();
        let (learner, config) = attach_saved(base.as_ref(), &opened.config, plain.path()).unwrap();
        assert_eq!(config.adapter.name(), "lora");
        let logits = learner.logits(&batch).unwrap();
        assert_close(&logits, &golden.f32(&format!("{name}.logits")), 1e-4, name);
    }
}

fn resolved(adapter: &Path, sets: &str) -> Resolved {
    let text = format!(
        "[model]\npath = {:?}\n[adapter.lora]\nrank = 8\nalpha = 16\ntargets = \"all-linear\"\n[data]\ntrain = \"synthetic:menu\"\nmax_rows = 16\n\
         [optim]\nschedule = \"constant\"\n[train]\ninit_from = {adapter:?}\nbatch = 2\n{sets}\n",
        e2e("llama").join("base"),
    );
    let recipe = recipe::parse(&text).unwrap();
    Resolved { recipe, name: "again".into(), root: PathBuf::from("/"), overrides: 0 }
}

fn job(runtime: &'static dyn Runtime, adapter: &Path, sets: &str) -> Job {
    let device = runtime.devices().remove(0);
    Job::prepare(&resolved(adapter, sets), &Target { runtime, index: 0, device }).unwrap()
}

fn train(mut job: Job, options: &Options) {
    let run = job.begin(options).unwrap().run.expect("something to do");
    let bus = run.bus().unwrap();
    run.train(&bus, &Control::new()).unwrap();
}

fn fresh(out: &Path) -> Options {
    Options { out: Some(out.into()), resume: None }
}

fn read(path: &Path) -> HostTensors {
    decode(&std::fs::read(path).unwrap(), path).unwrap()
}

fn tensors(dir: &Path) -> HostTensors {
    read(&dir.join("adapter_model.safetensors"))
}

/// A copy that can be taken away.
fn copy(adapter: &str, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(e2e("llama").join("adapters").join(adapter).join(file), to.join(file)).unwrap();
    }
}

/// A step of no size leaves the values that training started from; resuming needs the adapter no more.
pub fn training_goes_on_from_an_adapter(runtime: &'static dyn Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    copy("lora", &at("adapter"));
    train(job(runtime, &at("adapter"), "max_steps = 1\n[optim.adamw]\nlr = 1e-12"), &fresh(&at("still")));
    let (before, after) = (tensors(&at("adapter")), tensors(&at("still/final")));
    assert_eq!(before.len(), after.len());
    for (name, tensor) in &before {
        assert_close(&after[name].values, &tensor.values, 1e-7, name);
    }
    let hash = Layout::of(&at("still")).unwrap().read_info().unwrap().hashes.adapter;
    assert_eq!(hash.as_ref().map(String::len), Some(64));

    train(job(runtime, &at("adapter"), "max_steps = 4"), &fresh(&at("whole")));
    train(job(runtime, &at("adapter"), "max_steps = 2"), &fresh(&at("resumed")));
    std::fs::remove_dir_all(at("adapter")).unwrap();
    let resume = Options { out: None, resume: Some(Some(at("resumed"))) };
    train(job(runtime, &at("adapter"), "max_steps = 4"), &resume);
    assert_same(runtime, &tensors(&at("resumed/final")), &tensors(&at("whole/final")), "resumed");
    assert_eq!(Layout::of(&at("resumed")).unwrap().read_info().unwrap().hashes.adapter, hash);
    let gone = job(runtime, &at("adapter"), "max_steps = 4").begin(&fresh(&at("new"))).err().unwrap().to_string();
    assert!(gone.contains("train.init_from") && gone.contains("no such adapter"), "{gone}");
    assert!(!at("new").exists());
}

/// Checkpoints say nothing of where moments lie, so that a resumed run may move them, and ends the same.
pub fn a_resumed_run_may_move_its_moments(runtime: &'static dyn Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let adapter = e2e("llama").join("adapters/lora");
    let run = |offload, steps: usize, options: &Options| {
        let mut job = job(runtime, &adapter, &format!("max_steps = {steps}"));
        job.recipe.optim.offload = offload;
        train(job, options);
    };
    run(Offload::Device, 4, &fresh(&at("whole")));
    for (name, first, second) in [("off", Offload::Device, Offload::Host), ("on", Offload::Host, Offload::Device)] {
        run(first, 2, &fresh(&at(name)));
        run(second, 4, &Options { out: None, resume: Some(Some(at(name))) });
        for file in ["final/adapter_model.safetensors", "checkpoints/step-000004/state.safetensors"] {
            let read = |name: &str| read(&at(name).join(file));
            assert_same(runtime, &read(name), &read("whole"), file);
        }
    }
}

/// An adapter of another rank, scale and choice of modules: every key is named, and nothing is written.
pub fn an_adapter_of_another_shape_is_no_start(runtime: &'static dyn Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let adapter = e2e("llama").join("adapters/lora_rslora_pattern");
    let out = folder.path().join("run");
    let told = job(runtime, &adapter, "max_steps = 1").begin(&fresh(&out)).err().unwrap().to_string();
    for key in ["adapter.lora.targets", "adapter.lora.rank"] {
        assert!(told.contains(key), "{told}");
    }
    assert!(told.contains("adapter_config.json") && !out.exists(), "{told}");
}
