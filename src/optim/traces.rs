//! Training a model of three layers step by step, as torch and PEFT trained it.

use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use indexmap::IndexMap;

use super::schedule::multiplier;
use super::{Form, Optimizer};
use crate::adapters::fixtures::{B, assert_close, golden};
use crate::adapters::{Adapter, AdapterConfig, LoraConfig, ModuleKind, Pool, Rule, Selected, Spec, Start};
use crate::nn::params::{GradMap, Register};
use crate::nn::{Linear, Pass, Storage};
use crate::recipe::{AdamW, BaseDtype, Offload, Optim, Schedule};
use crate::tensors::HostTensors;

type Inner = <B as AutodiffBackend>::InnerBackend;

const LAYERS: [&str; 3] = ["l1", "l2", "l3"];

/// `l3(tanh(l2(tanh(l1(x)))))`.
#[derive(Module, Debug)]
struct Model<B: Backend> {
    l1: Linear<B>,
    l2: Linear<B>,
    l3: Linear<B>,
}

/// A run over the batches of a reference file.
pub struct Trace {
    golden: HostTensors,
    model: Model<B>,
    register: Register,
    optimizer: Optimizer<Inner>,
    rule: Option<Box<dyn Rule<Inner>>>,
}

impl Trace {
    /// From the values that the reference started with.
    pub fn new(name: &str, adapter: &AdapterConfig, optim: &Optim) -> Self {
        let golden = golden(name);
        let sites = LAYERS.map(|layer| site(layer, adapter, &golden));
        let [l1, l2, l3] = LAYERS.map(|layer| linear(layer, adapter, &sites, &golden));
        let model = Model { l1, l2, l3 };
        let register = Register::new(&model);
        let start = register.iter().map(|owned| (owned.path.clone(), golden[&reference("step0", &owned.path)].clone()));
        let (model, unmatched) = register.assign(model, &start.collect());
        assert!(unmatched.is_empty());
        let form = adapter.spec().map(Spec::optimizer).unwrap_or_default();
        let optimizer = Optimizer::new(optim, form, &register.trainable(), &sites);
        let mut rule = Adapter::rule(adapter, &sites, 0);
        rule.iter_mut().for_each(|rule: &mut Box<dyn Rule<Inner>>| rule.loaded(&register.flat(&model)).unwrap());
        Self { golden, model, register, optimizer, rule }
    }

    /// Loss and gradients of batch `k`, from 0.
    fn backward(&self, k: usize) -> (Tensor<Inner, 1>, GradMap<Inner>) {
        let batch = |name: &str| {
            let tensor = &self.golden[name];
            let (rows, cols) = (tensor.shape[1], tensor.shape[2]);
            let values = tensor.values[k * rows * cols..(k + 1) * rows * cols].to_vec();
            Tensor::<B, 2>::from_data(TensorData::new(values, [rows, cols]), &Default::default())
        };
        let Model { l1, l2, l3 } = &self.model;
        let h = l2.forward(l1.forward(batch("x"), Pass::EVAL).tanh(), Pass::EVAL).tanh();
        let loss = (l3.forward(h, Pass::EVAL) - batch("t")).square().mean();
        let (mut grads, backward) = (GradMap::new(), loss.backward());
        self.register.collect_grads(&self.model, &backward, &mut grads);
        (loss.inner(), grads)
    }

    pub fn step(&mut self, lr: f64, grads: &GradMap<Inner>) {
        let (optimizer, rule) = (&mut self.optimizer, &self.rule);
        self.model = self.register.update(self.model.clone(), |path, value| {
            let grad = grads.get(path)?.clone();
            let grad = rule.as_ref().map_or(grad.clone(), |rule| rule.direct(path, grad));
            Some(optimizer.step(path, lr, value, grad))
        });
    }

    /// Takes every step of the reference: losses, gradients and values are its own.
    pub fn equals_reference(mut self, lr: f64) {
        let losses = self.golden["losses"].values.clone();
        for (k, expected) in losses.iter().enumerate() {
            let (loss, grads) = self.backward(k);
            assert!((loss.into_scalar() - expected).abs() < 2e-5 * expected.max(1.0), "loss of step {k}");
            for (path, grad) in &grads {
                assert_close(grad.clone(), &self.golden, &reference(&format!("grad{}", k + 1), path));
            }
            self.step(lr, &grads);
            for (path, value) in self.register.flat(&self.model) {
                assert_close(value, &self.golden, &reference(&format!("step{}", k + 1), &path));
            }
        }
        assert!(losses.len() >= 5);
    }

    fn values(&self) -> HostTensors {
        self.register.read(&self.model)
    }
}

fn reference(moment: &str, path: &str) -> String {
    format!("{moment}.{path}.weight")
}

fn site(layer: &str, adapter: &AdapterConfig, golden: &HostTensors) -> Selected {
    let [rows, cols] = golden[&format!("base.{layer}.base_layer.weight")].shape[..] else { panic!("a matrix") };
    let shared = adapter.shared().unwrap();
    let (rank, alpha) = (shared.rank, shared.alpha);
    let scaling = alpha / if shared.rslora { (rank as f64).sqrt() } else { rank as f64 };
    Selected { path: layer.into(), kind: ModuleKind::Linear, rows, cols, rank, alpha, scaling }
}

fn linear(layer: &str, adapter: &AdapterConfig, sites: &[Selected], golden: &HostTensors) -> Linear<B> {
    let storage = Storage::<B>::new(BaseDtype::F32, &Default::default());
    let base = |part: &str| golden[&format!("base.{layer}.base_layer.{part}")].values.clone();
    let site = sites.iter().find(|site| site.path == layer).unwrap();
    let weight = storage.weight(base("weight"), [site.rows, site.cols]);
    let mut pool = Pool::new();
    let (device, pool) = (Default::default(), &mut pool);
    let mut start = Start { seed: 0, device, selected: sites, weight: &weight, pool, values: None };
    let adapter = Adapter::new(site, adapter, &mut start).unwrap();
    Linear { adapter, ..Linear::new(weight, Some(storage.vector(base("bias")))) }
}

fn lora() -> AdapterConfig {
    LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() }.into()
}

fn optim(lr: f64, weight_decay: f64, lora_plus_ratio: Option<f64>) -> Optim {
    Optim { adamw: AdamW { lr, weight_decay, ..AdamW::default() }, lora_plus_ratio, ..Optim::default() }
}

/// Steps with gradients of its own, after each of which `look` sees the run.
fn run(optim: &Optim, steps: usize, mut look: impl FnMut(&mut Trace)) -> HostTensors {
    let mut trace = Trace::new("optim_loraplus_default", &lora(), optim);
    for k in 0..steps {
        let (_, grads) = trace.backward(k);
        trace.step(optim.adamw.lr, &grads);
        look(&mut trace);
    }
    trace.values()
}

/// Not so with `amsgrad`, which no recipe can ask for.
#[test]
fn ten_steps_of_adamw_equal_torch() {
    for (name, decay) in [("optim_adamw_wd0", 0.0), ("optim_adamw_wd01", 0.1)] {
        Trace::new(name, &lora(), &optim(1e-2, decay, None)).equals_reference(1e-2);
    }
}

#[test]
fn five_steps_of_lora_plus_equal_peft() {
    for (name, decay) in [("optim_loraplus_default", 0.0), ("optim_loraplus_wd", 0.1)] {
        Trace::new(name, &lora(), &optim(1e-3, decay, Some(16.0))).equals_reference(1e-3);
    }
}

#[test]
fn clipped_steps_equal_torch() {
    let golden = golden("optim_adamw_clip");
    let adamw = AdamW { lr: 3e-3, weight_decay: 0.05, beta2: 0.95, ..AdamW::default() };
    // In the reference the vector decays too; a row does here.
    let shapes = IndexMap::from([("p".to_string(), vec![7, 5]), ("q".to_string(), vec![1, 9])]);
    let optim = Optim { adamw, ..Optim::default() };
    let mut optimizer = Optimizer::<Inner>::new(&optim, Form::Torch, &shapes, &[]);
    let flat = |name: &str| Tensor::<Inner, 1>::from_floats(&golden[name].values[..], &Default::default());
    let mut values = GradMap::from([("p".to_string(), flat("step0.p")), ("q".to_string(), flat("step0.q"))]);
    for k in 1..=10 {
        let norm = f64::from(golden["total_norm"].values[k - 1]);
        for (path, value) in &mut values {
            let grad = flat(&format!("grad{k}.{path}")).mul_scalar((optim.clip / (norm + 1e-6)).min(1.0));
            assert_close(grad.clone(), &golden, &format!("clipped{k}.{path}"));
            *value = optimizer.step(path, optim.adamw.lr, value.clone(), grad);
            assert_close(value.clone(), &golden, &format!("step{k}.{path}"));
        }
    }
}

#[test]
fn a_ratio_of_one_is_lora_to_the_bit() {
    let values = |ratio| run(&optim(1e-2, 0.1, ratio), 5, |_| ());
    assert_eq!(values(Some(1.0)), values(None));
    assert_ne!(values(Some(2.0)), values(None));
}

#[test]
fn the_first_step_is_the_rate_of_the_group() {
    let mut optim = optim(1e-3, 0.0, Some(16.0));
    optim.adamw.eps = Some(1e-30);
    let before = Trace::new("optim_loraplus_default", &lora(), &optim).values();
    for (path, after) in run(&optim, 1, |_| ()) {
        let moved = after.values.iter().zip(&before[&path].values).map(|(after, before)| (after - before).abs());
        let expected = if path.ends_with("lora_B") { 16e-3 } else { 1e-3 };
        moved.for_each(|moved| assert!((moved - expected).abs() < 1e-6, "{path} moved by {moved}"));
    }
}

#[test]
fn the_ratio_holds_at_every_step_of_every_schedule_and_after_resume() {
    let ratio = 7.3;
    let optim = optim(1e-2, 0.1, Some(ratio));
    let holds = |optimizer: &Optimizer<Inner>| {
        let warmup = 5.0;
        for schedule in [
            Schedule::Constant { warmup },
            Schedule::Linear { warmup },
            Schedule::Cosine { warmup },
            Schedule::Polynomial { warmup, power: 2.0, end: 0.1 },
            Schedule::InverseSqrt { warmup },
        ] {
            for step in 0..40 {
                let rates = optimizer.rates(optim.adamw.lr * multiplier(&schedule, step, 40));
                let (a, b) = (rates["matrices"], rates["lora_B"]);
                assert!(
                    (b - ratio * a).abs() <= 1e-15 * b && (b > 0.0) == (step > 0),
                    "{schedule:?} {step}: {rates:?}"
                );
            }
        }
    };
    let whole = run(&optim, 4, |_| ());
    let resumed = run(&optim, 4, |trace| {
        let moments = trace.optimizer.moments();
        let sites = LAYERS.map(|layer| site(layer, &lora(), &trace.golden));
        trace.optimizer = Optimizer::new(&optim, Form::Torch, &trace.register.trainable(), &sites);
        trace.optimizer.set_moments(&moments, &Default::default()).unwrap();
        holds(&trace.optimizer);
    });
    assert_eq!(whole, resumed);
}

/// Moments on the host, and moments that move between host and device halfway, make the same steps to the bit.
#[test]
fn where_moments_lie_changes_no_step() {
    for ratio in [None, Some(7.3)] {
        let device = optim(1e-2, 0.1, ratio);
        let host = Optim { offload: Offload::Host, ..device.clone() };
        let moved = |from: &Optim, to: &Optim| {
            let mut taken = 0;
            run(from, 5, |trace| {
                taken += 1;
                if taken == 3 {
                    let moments = trace.optimizer.moments();
                    let sites = LAYERS.map(|layer| site(layer, &lora(), &trace.golden));
                    trace.optimizer = Optimizer::new(to, Form::Torch, &trace.register.trainable(), &sites);
                    trace.optimizer.set_moments(&moments, &Default::default()).unwrap();
                    assert_eq!(trace.optimizer.moments(), moments);
                }
            })
        };
        let whole = run(&device, 5, |_| ());
        assert_eq!(whole, run(&host, 5, |_| ()));
        assert_eq!(whole, moved(&device, &host));
        assert_eq!(whole, moved(&host, &device));
    }
}
