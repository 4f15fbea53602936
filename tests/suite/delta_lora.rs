//! Delta-LoRA in a whole model: what counts as a step, and what is saved.

use lowrank::adapters::{AdapterConfig, DeltaLoraConfig, Module};
use lowrank::data::Batch;
use lowrank::recipe::{BaseDtype, Optim};
use lowrank::runtime::{AdapterSpec, Learner, Micro, Runtime};
use lowrank::tensors::HostTensors;

use super::golden::{Fixtures, assert_close, attach, difference, e2e, load, open};

const START_STEP: usize = 2;

fn config() -> AdapterConfig {
    DeltaLoraConfig { start_step: START_STEP, ..DeltaLoraConfig::default() }.into()
}

fn fresh(runtime: &dyn Runtime) -> Box<dyn Learner> {
    attach(load(runtime, &open("llama"), BaseDtype::F32).as_ref(), &config(), 3)
}

fn batch(k: usize) -> Batch {
    Fixtures::read(e2e("llama").join("fixtures.safetensors")).train_batch(k)
}

fn accumulate(learner: &mut dyn Learner, batch: &Batch, share: f64) {
    let micro = Micro { weight: share / batch.terms() as f64, ..Micro::default() };
    learner.accumulate(batch, &micro).unwrap();
}

fn step(learner: &mut dyn Learner, k: usize) {
    accumulate(learner, &batch(k), 1.0);
    learner.step(1e-2, 1.0);
}

/// A_K and B_K as they are, and A and B under the names of A_K and B_K.
fn snapshots(learner: &dyn Learner) -> [HostTensors; 2] {
    let (snapshots, factors) =
        learner.export().into_iter().partition::<HostTensors, _>(|(p, _)| p.contains("snapshot"));
    [snapshots, factors.into_iter().map(|(path, tensor)| (path.replace("lora_", "snapshot_"), tensor)).collect()]
}

pub fn resumes_to_the_bit(runtime: &dyn Runtime) {
    let run = |break_at: Option<usize>| {
        let mut learner = fresh(runtime);
        for k in 0..5 {
            if break_at == Some(k) {
                let (values, state) = (learner.export(), learner.state());
                learner = fresh(runtime);
                learner.import(&values).unwrap();
                learner.set_state(&state, k).unwrap();
            }
            step(learner.as_mut(), k);
        }
        (learner.export(), learner.logits(&batch(0)).unwrap())
    };
    let whole = run(None);
    for break_at in [START_STEP - 1, START_STEP, START_STEP + 1] {
        assert_eq!(run(Some(break_at)), whole, "resumed after step {break_at}");
    }
}

pub fn micro_batches_are_one_step(runtime: &dyn Runtime) {
    let mut learner = fresh(runtime);
    for taken in 1..=START_STEP + 1 {
        for k in 0..3 {
            accumulate(learner.as_mut(), &batch(k), 1.0 / 3.0);
            let [snapshots, factors] = snapshots(learner.as_ref());
            assert_eq!(snapshots == factors, taken == START_STEP + 1);
        }
        learner.step(1e-2, 1.0);
    }
    let [snapshots, factors] = snapshots(learner.as_ref());
    assert_ne!(snapshots, factors, "the snapshot is taken once");
}

pub fn only_optimizer_steps_count(runtime: &dyn Runtime) {
    let run = |discarded: usize| {
        let mut learner = fresh(runtime);
        for k in 0..4 {
            for _ in 0..discarded {
                accumulate(learner.as_mut(), &batch(k + 1), 1.0);
                learner.discard();
            }
            step(learner.as_mut(), k);
        }
        learner.export()
    };
    assert_eq!(run(0), run(2));
}

pub fn is_read_back_as_lora(runtime: &dyn Runtime) {
    let opened = open("llama");
    let base = load(runtime, &opened, BaseDtype::F32);
    let selected = config().select(&Module::list(&opened.config), lowrank::adapters::Origin::Recipe).unwrap();
    let mut learner = attach(base.as_ref(), &config(), 3);
    for k in 0..4 {
        step(learner.as_mut(), k);
        let (saved_as, values) = config().spec().unwrap().export(learner.export(), &selected).unwrap();
        let mut again = attach(base.as_ref(), &saved_as, 0);
        again.import(&values).unwrap();
        assert_close(&again.logits(&batch(0)).unwrap(), &learner.logits(&batch(0)).unwrap(), 1e-4, "logits");
    }
}

pub fn the_shared_base_stays(runtime: &dyn Runtime) {
    let base = load(runtime, &open("llama"), BaseDtype::Bf16);
    let untouched = attach(base.as_ref(), &AdapterConfig::none(), 0);
    let before = untouched.logits(&batch(0)).unwrap();
    let adapter = config();
    let optim = Optim::default();
    let mut learner = base.attach(&AdapterSpec::fresh(&adapter, &optim, 3)).unwrap();
    (0..4).for_each(|k| step(learner.as_mut(), k));
    assert!(difference(&learner.logits(&batch(0)).unwrap(), &before) > 0.01);
    assert_eq!(untouched.logits(&batch(0)).unwrap(), before);
}
