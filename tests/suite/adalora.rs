//! AdaLoRA over whole models: what its budget does to the ranks, and what survives a kill or a save.

use std::path::PathBuf;

use lowrank::adapters::{AdaLoraConfig, AdapterConfig, Module, peft};
use lowrank::events::Event;
use lowrank::recipe::{BaseDtype, Optim};
use lowrank::runtime::{AdapterSpec, Base, Learner, Micro, Runtime};
use lowrank::tensors::HostTensors;
use lowrank::train::attach_saved;

use super::golden::{Fixtures, assert_close, assert_same, difference, e2e, load, one_after_the_other, open};

const STEPS: usize = 14;
/// 14 modules of `llama`.
const MODULES: usize = 14;

fn config() -> AdaLoraConfig {
    AdaLoraConfig {
        init_rank: 4,
        target_rank: 2,
        warmup_steps: 2,
        final_steps: 4,
        interval: 2,
        ..AdaLoraConfig::default()
    }
}

fn attach(base: &dyn Base, config: AdaLoraConfig) -> Box<dyn Learner> {
    let (adapter, optim) = (AdapterConfig::from(config), Optim::default());
    base.attach(&AdapterSpec { total_steps: STEPS, ..AdapterSpec::fresh(&adapter, &optim, 3) }).unwrap()
}

fn step(learner: &mut dyn Learner, golden: &Fixtures, k: usize) {
    let batch = golden.train_batch(k);
    let weight = 1.0 / batch.terms() as f64;
    learner.accumulate(&batch, &Micro { weight, ..Micro::default() }).unwrap();
    let norm = learner.grad_norm();
    learner.step(1e-2, (1.0 / norm).min(1.0));
}

fn ranks(learner: &dyn Learner) -> (usize, Vec<usize>) {
    let Some(Event::Ranks { budget, modules, .. }) = learner.ranks() else { panic!("no ranks") };
    (budget, modules.iter().map(|module| module.active).collect())
}

/// Entries of E that are not zero, of all modules.
fn alive(values: &HostTensors) -> usize {
    let es = values.iter().filter(|(path, _)| path.ends_with("lora_E"));
    es.flat_map(|(_, e)| &e.values).filter(|e| **e != 0.0).count()
}

fn llama(runtime: &dyn Runtime) -> (Box<dyn Base>, Fixtures) {
    (load(runtime, &open("llama"), BaseDtype::F32), Fixtures::read(e2e("llama").join("fixtures.safetensors")))
}

pub fn ranks_settle_and_stay(runtime: &dyn Runtime) {
    let (base, golden) = llama(runtime);
    let mut learner = attach(base.as_ref(), config());
    let batch = golden.train_batch(0);
    let plain = base.attach(&AdapterSpec::fresh(&AdapterConfig::none(), &Optim::default(), 0)).unwrap();
    assert_eq!(learner.logits(&batch).unwrap(), plain.logits(&batch).unwrap(), "E starts at zero");
    let mut budgets = vec![ranks(learner.as_ref()).0];
    for k in 0..STEPS {
        step(learner.as_mut(), &golden, k);
        let (budget, active) = ranks(learner.as_ref());
        budgets.push(budget);
        // Steps count from 0 in the schedule: masks at 4, 6 and 8, the last at 10, then the same one every step.
        if [4, 6, 8].contains(&k) || k >= STEPS - 4 {
            assert_eq!((alive(&learner.export()), active.iter().sum()), (budget, budget), "step {k}");
        }
    }
    assert!(budgets.is_sorted_by(|a, b| a >= b), "{budgets:?}");
    assert_eq!((budgets[0], budgets[STEPS]), (4 * MODULES, 2 * MODULES));
    let (_, settled) = ranks(learner.as_ref());
    assert!(settled.iter().any(|rank| *rank != 2), "every module has the mean rank: {settled:?}");
    let before = learner.export();
    learner.finish();
    assert_eq!(learner.export(), before, "nothing is left to settle");
}

pub fn a_run_broken_while_pruning_ends_with_the_same_ranks(runtime: &dyn Runtime) {
    let (base, golden) = llama(runtime);
    let run = |broken_at: Option<usize>| {
        let mut learner = attach(base.as_ref(), config());
        for k in 0..STEPS {
            if broken_at == Some(k) {
                let (values, state) = (learner.export(), learner.state());
                learner = attach(base.as_ref(), config());
                learner.import(&values).unwrap();
                learner.set_state(&state, k).unwrap();
            }
            step(learner.as_mut(), &golden, k);
        }
        (learner.ranks(), learner.export(), learner.state())
    };
    let whole = run(None);
    // Between two masks, right after one, and after the last.
    for broken_at in [5, 7, 12] {
        let (ranks, values, state) = run(Some(broken_at));
        let what = format!("broken at step {broken_at}");
        assert_eq!(ranks, whole.0, "{what}");
        assert_same(runtime, &values, &whole.1, &what);
        assert_same(runtime, &state, &whole.2, &what);
    }
}

/// As one big batch, or as two small ones.
pub fn importances_are_taken_once_a_step(runtime: &dyn Runtime) {
    let (base, golden) = llama(runtime);
    let (a, b) = (golden.train_batch(0), golden.train_batch(1));
    let both = one_after_the_other(&a, &b);
    let weight = 1.0 / both.terms() as f64;
    let state = |batches: &[&lowrank::data::Batch]| {
        let mut learner = attach(base.as_ref(), config());
        batches.iter().for_each(|batch| {
            learner.accumulate(batch, &Micro { weight, ..Micro::default() }).unwrap();
        });
        let norm = learner.grad_norm();
        // A GPU may add up in another order each time.
        assert!((learner.grad_norm() - norm).abs() <= 1e-6 * norm, "the orthogonality term enters once");
        learner.step(1e-2, 1.0);
        learner.state()
    };
    let (split, whole) = (state(&[&a, &b]), state(&[&both]));
    let means: Vec<_> = whole.keys().filter(|name| name.ends_with(".sensitivity")).collect();
    assert_eq!(means.len(), 3 * MODULES);
    for name in means {
        let largest = whole[name].values.iter().fold(0f32, |max, value| max.max(*value));
        assert!(largest > 0.0, "{name}");
        assert_close(&split[name].values, &whole[name].values, 1e-3 * largest, name);
    }
}

pub fn the_saved_adapter_computes_the_same(runtime: &dyn Runtime) {
    let (opened, (base, golden)) = (open("llama"), llama(runtime));
    let modules = Module::list(&opened.config);
    let mut learner = attach(base.as_ref(), AdaLoraConfig { target_rank: 1, ..config() });
    let batch = golden.batch("input_ids", "labels");
    // Between two masks, where what was dropped has grown back, and at the end.
    for (from, to) in [(0, 8), (8, STEPS)] {
        (from..to).for_each(|k| step(learner.as_mut(), &golden, k));
        let spec = AdapterConfig::from(AdaLoraConfig { target_rank: 1, ..config() });
        let (saved_as, values) = spec.spec().unwrap().export(learner.export(), learner.adapted()).unwrap();
        let tensors = peft::to_file(values, &saved_as, &modules).unwrap();
        let dir = Scratch::new(&format!("adalora-{}-{to}", runtime.name()));
        peft::write(&dir.0, &peft::PeftConfig::new(saved_as, "base"), &tensors, &modules).unwrap();
        let (again, _) = attach_saved(base.as_ref(), &opened.config, &dir.0).unwrap();
        let (trained, saved) = (learner.logits(&batch).unwrap(), again.logits(&batch).unwrap());
        assert_close(&saved, &trained, 1e-5, "saved");
        assert!(difference(&trained, &golden.f32("base.logits")) > 1e-3, "it has learned nothing");
        if to == STEPS {
            let rows: usize =
                again.export().iter().filter(|(p, _)| p.ends_with("lora_E")).map(|(_, e)| e.shape[0]).sum();
            assert_eq!(rows, MODULES, "only what is left is saved");
        }
    }
}

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lowrank-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
