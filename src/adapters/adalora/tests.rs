//! One layer, and thirty steps of the allocator, against PEFT.

use lowrank_kernels::testing::TestBackend;

use super::rule::Allocation;
use super::*;
use crate::adapters::ModuleKind;
use crate::adapters::fixtures::{B, assert_close, golden, linear, param, tensor};
use crate::events::Event;
use crate::nn::params::GradMap;
use crate::tensors::HostTensor;

const MODULES: [(&str, [usize; 2]); 3] = [("l1", [16, 24]), ("l2", [12, 16]), ("l3", [8, 12])];

fn site(path: &str, [rows, cols]: [usize; 2], rank: usize) -> Selected {
    Selected { path: path.into(), kind: ModuleKind::Linear, rows, cols, rank, alpha: 4.0, scaling: 1.0 }
}

fn layer(tensors: &HostTensors, scaling: f64) -> AdaLora<B> {
    let [lora_A, lora_E, lora_B] = ["lora_A", "lora_E", "lora_B"].map(|name| param(tensors, name));
    AdaLora { lora_A, lora_E, lora_B, scaling, dropout: 0.0, layer: 1 }
}

#[test]
fn a_linear_layer_equals_peft_forward_and_in_every_gradient() {
    for (name, init_rank, alpha) in [("linear_a_adalora", 4, 8.0), ("linear_b_adalora", 3, 5.0)] {
        let golden = golden(name);
        let config = AdaLoraConfig { init_rank, alpha, ..AdaLoraConfig::default() };
        let (base, layer) = (linear(&golden), layer(&golden, config.scaling()));
        let x = tensor::<2>(&golden, "x").require_grad();
        let y = layer.forward(x.clone(), &base, Pass::EVAL);
        let grads = (y.clone() * tensor(&golden, "g")).sum().backward();
        assert_close(y.inner(), &golden, "y");
        assert_close(x.grad(&grads).unwrap(), &golden, "grad_x");
        assert_close(layer.lora_A.grad(&grads).unwrap(), &golden, "grad_lora_A");
        assert_close(layer.lora_E.grad(&grads).unwrap(), &golden, "grad_lora_E");
        assert_close(layer.lora_B.grad(&grads).unwrap(), &golden, "grad_lora_B");
        let bare = AdaLora { lora_E: Param::from_tensor(Tensor::zeros([init_rank, 1], &Default::default())), ..layer };
        let (y, base) = (bare.forward(x.clone(), &base, Pass::EVAL), base.base(x));
        assert_eq!(y.into_data().to_vec::<f32>().unwrap(), base.into_data().to_vec::<f32>().unwrap());
    }
}

/// A reference run: its settings and what PEFT had after each step.
struct Trace {
    tensors: HostTensors,
    json: serde_json::Value,
}

impl Trace {
    fn read(name: &str) -> Self {
        let manifest = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifest.json"));
        let manifest: serde_json::Value = serde_json::from_str(manifest).unwrap();
        Self { tensors: golden(name), json: manifest["files"][name].clone() }
    }

    fn config(&self) -> AdaLoraConfig {
        let number = |key: &str| self.json[key].as_u64().unwrap() as usize;
        AdaLoraConfig {
            init_rank: number("init_r"),
            target_rank: number("target_r"),
            warmup_steps: number("tinit"),
            final_steps: number("tfinal"),
            interval: number("deltaT"),
            beta1: self.json["beta1"].as_f64().unwrap(),
            beta2: self.json["beta2"].as_f64().unwrap(),
            ..AdaLoraConfig::default()
        }
    }

    fn rule(&self) -> Allocation<TestBackend> {
        Allocation::new(&self.config(), &MODULES.map(|(path, shape)| site(path, shape, 6)), 30)
    }

    fn steps(&self) -> impl Iterator<Item = (usize, &serde_json::Value)> {
        self.json["trace"].as_array().unwrap().iter().enumerate()
    }

    /// `s7.param.l1.lora_A` and its like, flat, by path.
    fn flat(&self, t: usize, what: &str) -> GradMap<TestBackend> {
        let prefix = format!("s{t}.{what}.");
        let named = self.tensors.iter().filter_map(|(name, host)| Some((name.strip_prefix(&prefix)?, host)));
        let flat = named.map(|(path, host)| (path.to_string(), flat(&host.values)));
        flat.collect()
    }

    /// Takes step `t`; returns E of every module after it.
    fn step(&self, rule: &mut Allocation<TestBackend>, t: usize) -> HostTensors {
        let (mut params, grads) = (self.flat(t, "param"), self.flat(t, "grad"));
        let changed = rule.stepped(t + 1, &params, &grads);
        assert!(changed.keys().all(|path| path.ends_with("lora_E")));
        params.extend(changed);
        params.retain(|path, _| path.ends_with("lora_E"));
        params.into_iter().map(|(path, e)| (path, host(e))).collect()
    }
}

fn flat(values: &[f32]) -> Tensor<TestBackend, 1> {
    Tensor::from_data(values, &Default::default())
}

fn host(tensor: Tensor<TestBackend, 1>) -> HostTensor {
    let values = tensor.into_data().to_vec::<f32>().unwrap();
    HostTensor { shape: vec![values.len()], values }
}

fn active(rule: &Allocation<TestBackend>, step: usize) -> (usize, Vec<usize>) {
    let Some(Event::Ranks { budget, modules, .. }) = Rule::<TestBackend>::ranks(rule, step) else { panic!("no ranks") };
    (budget, modules.iter().map(|module| module.active).collect())
}

/// Relative to the largest value: scores are of order 1e-6.
#[track_caller]
fn same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(f32::MIN_POSITIVE, |max, value| max.max(value.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f32::max);
    assert!(worst < 2e-6, "{what} differs by {worst} of its largest value");
}

#[test]
fn thirty_steps_equal_peft() {
    for name in ["adalora_allocator_main", "adalora_allocator_noorth"] {
        let trace = Trace::read(name);
        let mut rule = trace.rule();
        let end = 30 - trace.config().final_steps;
        let mut allocations = 0;
        for (t, expected) in trace.steps() {
            for (path, e) in trace.step(&mut rule, t) {
                assert_eq!(e.values, trace.tensors[&format!("s{t}.after.{path}")].values, "{name} step {t} {path}");
            }
            let (budget, ranks) = active(&rule, t + 1);
            assert_eq!(budget, expected["budget"].as_u64().unwrap() as usize, "{name} step {t}");
            let state = Rule::<TestBackend>::state(&rule);
            for (ours, theirs) in [("sensitivity", "exp_avg_ipt"), ("uncertainty", "exp_avg_unc")] {
                for path in MODULES.iter().flat_map(|(m, _)| ["A", "E", "B"].map(|f| format!("{m}.lora_{f}"))) {
                    let found = state.get(&format!("{path}.{ours}")).filter(|_| t < end);
                    let theirs = trace.tensors.get(&format!("s{t}.{theirs}.{path}"));
                    assert_eq!(found.is_some(), theirs.is_some(), "{name} step {t} {path}");
                    if let (Some(found), Some(theirs)) = (found, theirs) {
                        same(&found.values, &theirs.values, &format!("{name} step {t} {ours} of {path}"));
                    }
                }
            }
            if let Some(scores) = trace.tensors.get(&format!("s{t}.all_score")) {
                allocations += 1;
                let ours: Vec<f32> =
                    MODULES.iter().flat_map(|(m, _)| state[&format!("{m}.score")].values.clone()).collect();
                same(&ours, &scores.values, &format!("{name} step {t} scores"));
                let theirs = MODULES.map(|(m, _)| expected["ranks"][format!("{m}.lora_E")].as_u64().unwrap() as usize);
                assert_eq!(ranks, theirs, "{name} step {t}");
                assert_eq!(ranks.iter().sum::<usize>(), budget);
            }
        }
        assert!(allocations > 6);
        assert_eq!(active(&rule, 30), (6, if name.ends_with("main") { vec![2, 3, 1] } else { vec![1, 3, 2] }));
    }
}

#[test]
fn a_rule_restored_at_any_step_goes_on_bit_for_bit() {
    let trace = Trace::read("adalora_allocator_main");
    let run = |broken_at: usize| {
        let mut rule = trace.rule();
        for t in 0..30 {
            if t == broken_at {
                let state = Rule::<TestBackend>::state(&rule);
                rule = trace.rule();
                Rule::<TestBackend>::set_state(&mut rule, &state, &Default::default()).unwrap();
                assert_eq!(Rule::<TestBackend>::state(&rule), state);
            }
            trace.step(&mut rule, t);
        }
        (Rule::<TestBackend>::state(&rule), trace.step(&mut rule, 29))
    };
    let whole = run(30);
    for broken_at in [0, 3, 7, 8, 15, 22, 23, 29] {
        assert!(run(broken_at) == whole, "step {broken_at}");
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_name() {
    let trace = Trace::read("adalora_allocator_main");
    let mut rule = trace.rule();
    trace.step(&mut rule, 0);
    let state = Rule::<TestBackend>::state(&rule);
    let refusal = |change: &dyn Fn(&mut HostTensors)| {
        let mut state = state.clone();
        change(&mut state);
        Rule::<TestBackend>::set_state(&mut trace.rule(), &state, &Default::default()).unwrap_err().to_string()
    };
    assert!(refusal(&|state| drop(state.shift_remove("l2.kept"))).contains("l2.kept"));
    assert!(refusal(&|state| state["l1.score"].values.truncate(2)).contains("l1.score"));
    assert!(refusal(&|state| state["l1.lora_A.sensitivity"].values.truncate(2)).contains("l1.lora_A.sensitivity"));
    assert!(refusal(&|state| drop(state.insert("l9.kept".into(), HostTensor::default()))).contains("l9.kept"));
    assert!(refusal(&|state| drop(state.shift_remove("l3.lora_E.uncertainty"))).contains("missing"));
}

#[test]
fn nothing_to_prune_and_nothing_to_go_by_do_no_harm() {
    let trace = Trace::read("adalora_allocator_main");
    let sites = MODULES.map(|(path, shape)| site(path, shape, 6));
    let (params, grads) = (trace.flat(0, "param"), trace.flat(0, "grad"));
    // init_rank is target_rank: every allocation drops k = 0.
    let equal = AdaLoraConfig { init_rank: 6, target_rank: 6, ..AdaLoraConfig::default() };
    let mut rule = Allocation::<TestBackend>::new(&equal, &sites, 3);
    assert!((1..=3).all(|step| rule.stepped(step, &params, &grads).is_empty()));
    assert_eq!(active(&rule, 3), (18, vec![6, 6, 6]));
    // All scores are zero: exactly the budget is left, spread over the modules.
    let half = AdaLoraConfig { init_rank: 6, target_rank: 3, ..AdaLoraConfig::default() };
    let zero: GradMap<TestBackend> = grads.iter().map(|(path, grad)| (path.clone(), grad.zeros_like())).collect();
    let mut rule = Allocation::<TestBackend>::new(&half, &sites, 2);
    (1..=2).for_each(|step| drop(rule.stepped(step, &params, &zero)));
    assert_eq!(active(&rule, 2), (9, vec![3, 3, 3]));
    // No step was ever taken.
    let mut rule = Allocation::<TestBackend>::new(&half, &sites, 2);
    let settled = rule.finish(0, &params);
    assert_eq!(settled.len(), 3);
    assert!(settled.into_values().all(|e| host(e).values.iter().filter(|e| **e != 0.0).count() == 3));
}

#[test]
fn orthogonality_enters_the_gradients_once_and_weighted() {
    let trace = Trace::read("adalora_allocator_main");
    let sites = MODULES.map(|(path, shape)| site(path, shape, 6));
    let (params, data) = (trace.flat(3, "param"), &trace.flat(3, "grad"));
    let added = |orth_weight| {
        let config = AdaLoraConfig { init_rank: 6, target_rank: 2, orth_weight, ..AdaLoraConfig::default() };
        let mut grads = data.clone();
        Allocation::<TestBackend>::new(&config, &sites, 30).regularise(&params, &mut grads);
        move |path: &str| host(grads[path].clone() - data[path].clone()).values
    };
    let (off, half, one) = (added(0.0), added(0.5), added(1.0));
    for path in params.keys() {
        assert!(off(path).iter().all(|grad| *grad == 0.0));
        assert_eq!(half(path).iter().any(|grad| *grad != 0.0), !path.ends_with("lora_E"), "{path}");
        same(&half(path).iter().map(|grad| 2.0 * grad).collect::<Vec<_>>(), &one(path), path);
    }
}

#[test]
fn only_what_is_left_is_saved_and_it_computes_the_same() {
    let config = AdaLoraConfig { init_rank: 3, ..AdaLoraConfig::default() };
    let sites = [site("a", [2, 4], 3), site("b", [2, 4], 3)];
    let values = |e: [f32; 6]| -> HostTensors {
        let tensor = |shape: [usize; 2], seed: f32| HostTensor {
            shape: shape.into(),
            values: (0..shape[0] * shape[1]).map(|i| (seed + i as f32).sin()).collect(),
        };
        let of = |path: &str, e: &[f32]| {
            let e = HostTensor { shape: vec![3, 1], values: e.to_vec() };
            [("A", tensor([3, 4], 0.3)), ("E", e), ("B", tensor([2, 3], 0.7))]
                .map(|(f, t)| (format!("{path}.lora_{f}"), t))
        };
        of("a", &e[..3]).into_iter().chain(of("b", &e[3..])).collect()
    };
    let whole = values([0.0, -2.0, 0.5, 0.0, 0.0, 0.0]);
    let (saved_as, saved) = config.export(whole.clone(), &sites).unwrap();
    let AdapterConfig::AdaLora(saved_as) = saved_as else { panic!("{saved_as:?}") };
    assert_eq!(saved_as.outcome.rank_pattern["a.lora_E"], [false, true, true]);
    assert_eq!(saved["a.lora_B"].shape, [2, 2]);
    assert_eq!((&saved["b.lora_A"].shape, saved["b.lora_A"].values.len()), (&vec![0, 4], 0));
    let fitted = saved_as.fit(sites.to_vec()).unwrap();
    assert_eq!([fitted[0].rank, fitted[1].rank], [2, 0]);
    // The scale stays that of the first rank.
    assert!((fitted[0].scaling - 16.0 / 3.00001).abs() < 1e-12);
    let dense = |update: Update| -> Vec<f32> {
        let entry = |i: usize, j: usize| -> f32 {
            (0..update.rank).map(|k| update.left[i * update.rank + k] * update.right[k * update.cols + j]).sum()
        };
        (0..8).map(|at| entry(at / 4, at % 4)).collect()
    };
    for (before, after) in sites.iter().zip(&fitted) {
        let after = dense(saved_as.update(after, &saved).unwrap());
        same(&after, &dense(config.update(before, &whole).unwrap()), &before.path);
    }
    // Nothing has been trained yet: every triplet is still a candidate.
    let (saved_as, saved) = config.export(values([0.0; 6]), &sites).unwrap();
    assert_eq!(saved_as.spec().unwrap().fit(sites.to_vec()).unwrap()[0].rank, 3);
    assert_eq!(saved, values([0.0; 6]));
}
