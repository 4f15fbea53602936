//! One layer that learns a map, beside others that should learn it the same way.

use burn::module::AutodiffModule;
use burn::tensor::TensorData;
use indexmap::IndexMap;
use lowrank_kernels::DropoutKey;
use lowrank_kernels::testing::TestBackend;

use super::*;
use crate::adapters::fixtures::B;
use crate::adapters::random::Stream;
use crate::adapters::{Adapter, ModuleKind, Pool};
use crate::linalg::{matmul, svd};
use crate::nn::params::{GradMap, Register};
use crate::nn::{Storage, Weight};
use crate::optim::Form;
use crate::optim::Optimizer;
use crate::recipe::{BaseDtype, Optim};

const ROWS: usize = 8;
const OUT: usize = 7;
const IN: usize = 6;
const R: usize = 2;
const LAMBDA: f64 = 2.0;

fn values(name: &str, n: usize) -> Vec<f32> {
    Stream::new(1, name).uniform(n, 1.0)
}

fn matrix<T: Backend>(values: Vec<f32>, shape: [usize; 2]) -> Tensor<T, 2> {
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

fn host<T: Backend>(tensor: Tensor<T, 2>) -> Vec<f32> {
    tensor.into_data().into_vec().unwrap()
}

fn weight(values: Vec<f32>, dtype: BaseDtype) -> Weight<B> {
    Storage::new(dtype, &Default::default()).weight(values, [OUT, IN])
}

/// The inputs and outputs of a step; no two of eleven are alike, so that gradients do not fade.
fn batch(step: usize) -> [Tensor<B, 2>; 2] {
    let x = values(&format!("x{}", step % 11), ROWS * IN);
    let goal = matrix::<B>(values("goal", OUT * IN), [OUT, IN]);
    let x = matrix::<B>(x, [ROWS, IN]);
    [x.clone(), x.matmul(goal.transpose())]
}

/// One layer with its adapter and optimizer, stepped as a run steps a model.
struct Student {
    linear: Linear<B>,
    register: Register,
    optimizer: Optimizer<TestBackend>,
    steps: usize,
}

impl Student {
    fn new(config: impl Into<AdapterConfig>, optim: &Optim) -> Self {
        Self::over(weight(values("w", OUT * IN), BaseDtype::F32), config, optim)
    }

    fn over(weight: Weight<B>, config: impl Into<AdapterConfig>, optim: &Optim) -> Self {
        let (config, mut pool) = (config.into(), Pool::new());
        let site = site(&config);
        let (device, selected) = (Default::default(), std::slice::from_ref(&site));
        let mut start = Start { seed: 3, device, selected, weight: &weight, pool: &mut pool, values: None };
        let adapter = Adapter::new(&site, &config, &mut start).unwrap();
        let linear = Linear { weight, bias: None, adapter };
        let register = Register::new(&linear);
        let optimizer = Optimizer::new(optim, Form::Torch, &register.trainable(), selected);
        Self { linear, register, optimizer, steps: 0 }
    }

    fn step(&mut self, lr: f64) {
        let [x, goal] = batch(self.steps);
        let loss = (self.linear.forward(x, Pass::EVAL) - goal).powi_scalar(2).mean();
        let mut grads = GradMap::new();
        let Self { register, optimizer, .. } = self;
        register.collect_grads(&self.linear, &loss.backward(), &mut grads);
        self.linear = register
            .update(self.linear.clone(), |path, value| Some(optimizer.step(path, lr, value, grads.get(path)?.clone())));
        self.steps += 1;
        self.linear.adapter.as_mut().unwrap().at_step(self.steps, Moment::Stepped);
    }

    /// Outputs for one batch that is not trained on.
    fn outputs(&self) -> Vec<f32> {
        host(self.linear.valid().forward(matrix(values("probe", ROWS * IN), [ROWS, IN]), Pass::EVAL))
    }

    fn values(&self) -> HostTensors {
        let values = self.register.read(&self.linear);
        values.into_iter().map(|(name, tensor)| (format!("layer.{name}"), tensor)).collect()
    }

    /// `B · A`
    fn product(&self) -> Vec<f64> {
        let values = self.values();
        let factor = |name: &str| values[name].values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        matmul(&factor("layer.lora_B"), [OUT, R], &factor("layer.lora_A"), IN)
    }
}

fn site(config: &AdapterConfig) -> Selected {
    let Shared { rank, alpha, rslora, .. } = config.shared().unwrap();
    let scaling = if rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 };
    Selected { path: "layer".into(), kind: ModuleKind::Linear, rows: OUT, cols: IN, rank, alpha, scaling }
}

fn lora(alpha: f64) -> LoraConfig {
    LoraConfig { rank: R, alpha, ..LoraConfig::default() }
}

fn delta(start_step: usize) -> DeltaLoraConfig {
    DeltaLoraConfig { rank: R, alpha: 3.0, lambda: LAMBDA, start_step, ..DeltaLoraConfig::default() }
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |max, d| if d.is_nan() { d } else { max.max(d) })
}

/// The paper's algorithm as it stands: LoRA, and W written in f64 after every step past `start_step`.
struct Writer {
    student: Student,
    w: Vec<f64>,
    start_step: usize,
}

impl Writer {
    fn step(&mut self, lr: f64) {
        let before = self.student.product();
        self.student.step(lr);
        if self.student.steps > self.start_step {
            let (after, s) = (self.student.product(), 1.5);
            self.w.iter_mut().zip(before.iter().zip(after)).for_each(|(w, (b, a))| *w += LAMBDA * s * (a - b));
            self.student.linear.weight = weight(self.w.iter().map(|w| *w as f32).collect(), BaseDtype::F32);
        }
    }
}

#[test]
fn writing_w_at_every_step_gives_the_same() {
    let (start_step, lr, optim) = (20, 3e-3, Optim::default());
    let w: Vec<f64> = values("w", OUT * IN).into_iter().map(f64::from).collect();
    let mut writer = Writer { student: Student::new(lora(3.0), &optim), w: w.clone(), start_step };
    let (mut side, mut plain) = (Student::new(delta(start_step), &optim), Student::new(lora(3.0), &optim));
    let mut worst = 0.0f32;
    for step in 1..=1000 {
        writer.step(lr);
        side.step(lr);
        if step <= start_step + 1 {
            plain.step(lr);
            let moved = distance(&side.outputs(), &plain.outputs());
            // Nothing differs through step K, and at step K + 1 the factors do not differ yet, but W has moved.
            assert_eq!(moved > 1e-3, step == start_step + 1, "step {step}: {moved}");
            assert!(step > start_step || moved == 0.0);
            assert_eq!(side.values()["layer.lora_A"], plain.values()["layer.lora_A"]);
        }
        worst = worst.max(distance(&side.outputs(), &writer.student.outputs()));
    }
    // Outputs are of order one.
    assert!(worst < 2e-5, "{worst}");
    // W has gone as far as a matrix of rank 2r can.
    let moved: Vec<f64> = writer.w.iter().zip(&w).map(|(now, start)| now - start).collect();
    let s = svd(&moved, [OUT, IN]).unwrap().s;
    assert!(s[2 * R] < 1e-12 * s[0] && s[2 * R - 1] > 1e-3 * s[0], "{s:?}");
}

/// Adam's step does not depend on the scale of a gradient, as far as eps is nothing beside it and nothing is clipped.
#[test]
fn from_the_first_step_on_it_is_lora_of_a_larger_alpha_under_adam() {
    let mut optim = Optim::default();
    optim.adamw.eps = Some(1e-30);
    optim.adamw.weight_decay = 0.1;
    let (mut side, mut plain) = (Student::new(delta(0), &optim), Student::new(lora(3.0 * (1.0 + LAMBDA)), &optim));
    let mut worst = 0.0f32;
    for _ in 0..300 {
        side.step(3e-3);
        plain.step(3e-3);
        worst = worst.max(distance(&side.outputs(), &plain.outputs()));
    }
    assert!(worst < 2e-5, "{worst}");
    let start = Student::new(delta(0), &optim);
    assert!(distance(&side.outputs(), &start.outputs()) > 0.5, "learned nothing");
}

#[test]
fn with_lambda_zero_it_is_lora_to_the_bit() {
    let config = DeltaLoraConfig { lambda: 0.0, ..delta(3) };
    let (mut side, mut plain) =
        (Student::new(config.clone(), &Optim::default()), Student::new(lora(3.0), &Optim::default()));
    for _ in 0..10 {
        side.step(1e-2);
        plain.step(1e-2);
        assert_eq!(side.outputs(), plain.outputs());
    }
    assert_eq!(
        config.export(side.values(), &[site(&config.clone().into())]).unwrap(),
        (lora(3.0).into(), plain.values())
    );
}

/// Gradients of the layer on one batch, with W a leaf of the graph as well: x, W, A and B.
fn gradients(linear: &Linear<B>, [a, b]: [&Param<Tensor<B, 2>>; 2], pass: Pass) -> [Vec<f32>; 4] {
    let mut linear = linear.clone();
    linear.weight.make_trainable();
    let x = matrix::<B>(values("probe", ROWS * IN), [ROWS, IN]).require_grad();
    let grads = (linear.forward(x.clone(), pass) * matrix(values("g", ROWS * OUT), [ROWS, OUT])).sum().backward();
    let Weight::Dense(w) = &linear.weight else { unreachable!() };
    [x, w.val(), a.val(), b.val()].map(|leaf| host(leaf.grad(&grads).unwrap()))
}

#[test]
fn the_gradient_of_the_product_is_that_of_w_unless_inputs_are_dropped() {
    // grad A = s Bᵀ grad W and grad B = s grad W Aᵀ: through the LoRA term alone, even after W has moved.
    let through_w = |w: &[f32], a: &Param<Tensor<B, 2>>, b: &Param<Tensor<B, 2>>| {
        let w = matrix::<TestBackend>(w.to_vec(), [OUT, IN]);
        let (a, b) = (a.val().inner(), b.val().inner());
        [host(b.transpose().matmul(w.clone()).mul_scalar(1.5)), host(w.matmul(a.transpose()).mul_scalar(1.5))]
    };
    let mut side = Student::new(delta(2), &Optim::default());
    (0..5).for_each(|_| side.step(1e-1));
    let Some(Adapter::DeltaLora(adapter)) = &side.linear.adapter else { unreachable!() };
    let [x, w, a, b] = gradients(&side.linear, [&adapter.lora_A, &adapter.lora_B], Pass::EVAL);
    let expected = through_w(&w, &adapter.lora_A, &adapter.lora_B);
    assert!(distance(&a, &expected[0]) < 1e-5 && distance(&b, &expected[1]) < 1e-5);
    // x sees all of it: g · (W + s BA + λ s (BA − B_K A_K)).
    let whole = matrix::<TestBackend>(change(&delta(2), &side), [OUT, IN]) + side.linear.weight.dense().inner();
    let expected = host(matrix::<TestBackend>(values("g", ROWS * OUT), [ROWS, OUT]).matmul(whole));
    assert!(distance(&x, &expected) < 1e-5);

    let mut dropping = Student::new(LoraConfig { dropout: 0.5, ..lora(3.0) }, &Optim::default());
    (0..5).for_each(|_| dropping.step(1e-1));
    let Some(Adapter::Lora(adapter)) = &dropping.linear.adapter else { unreachable!() };
    let pass = Pass { dropout: Some(DropoutKey { seed: 1, step: 1, micro: 0 }), ..Pass::EVAL };
    let [_, w, a, _] = gradients(&dropping.linear, [&adapter.lora_A, &adapter.lora_B], pass);
    assert!(distance(&a, &through_w(&w, &adapter.lora_A, &adapter.lora_B)[0]) > 0.1);
}

/// ΔW of the exported adapter, `[out, in]`.
fn change(config: &DeltaLoraConfig, student: &Student) -> Vec<f32> {
    let (saved_as, values) = config.export(student.values(), &[site(&config.clone().into())]).unwrap();
    assert!(values.keys().eq(["layer.lora_A", "layer.lora_B"]));
    let update = saved_as.spec().unwrap().update(&site(&saved_as), &values).unwrap();
    let double = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let product = matmul(&double(&update.left), [OUT, update.rank], &double(&update.right), IN);
    product.iter().map(|v| (v * f64::from(update.scaling)) as f32).collect()
}

#[test]
fn it_is_saved_as_lora_of_rank_r_and_then_of_twice_the_rank() {
    for rslora in [false, true] {
        let config = DeltaLoraConfig { rslora, ..delta(3) };
        let mut student = Student::new(config.clone(), &Optim::default());
        for step in 1..6 {
            student.step(1e-1);
            let (saved_as, _) = config.export(student.values(), &[site(&config.clone().into())]).unwrap();
            assert_eq!(saved_as.shared().unwrap().rank, if step < 3 { R } else { 2 * R });
            let mut w = student.linear.weight.dense().inner();
            w = w + matrix(change(&config, &student), [OUT, IN]);
            let y = host(matrix(values("probe", ROWS * IN), [ROWS, IN]).matmul(w.transpose()));
            assert!(distance(&y, &student.outputs()) < 1e-5, "step {step}");
        }
    }
}

#[test]
fn a_base_of_any_storage_stays_as_it_is() {
    for dtype in [BaseDtype::F32, BaseDtype::Bf16] {
        let weight = weight(values("w", OUT * IN), dtype);
        let mut student = Student::over(weight.clone(), delta(2), &Optim::default());
        let start = student.outputs();
        (0..6).for_each(|_| student.step(1e-1));
        assert_ne!(student.outputs(), start);
        assert_eq!(host(student.linear.weight.dense()), host(weight.dense()));
        assert_eq!(
            student.register.trainable(),
            IndexMap::from([("lora_A".to_string(), vec![R, IN]), ("lora_B".to_string(), vec![OUT, R]),])
        );
    }
}
