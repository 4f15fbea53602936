//! Eight layers of which two have more to learn than the others: where does the budget go?

use burn::tensor::TensorData;
use lowrank_kernels::testing::TestBackend;

use super::rule::Allocation;
use super::*;
use crate::adapters::fixtures::B;
use crate::adapters::random::Stream;
use crate::adapters::{Adapter, ModuleKind, Pool};
use crate::linalg::matmul;
use crate::nn::Storage;
use crate::nn::params::{GradMap, Register};
use crate::optim::{Form, Optimizer};
use crate::recipe::{BaseDtype, Optim};

const LAYERS: usize = 8;
/// The layers whose weight should have been another one, by a matrix of rank `RANK`.
const PLANTED: [usize; 2] = [2, 5];
const RANK: usize = 4;
const WIDTH: usize = 16;
const ROWS: usize = 32;
const STEPS: usize = 200;

fn weight(seed: u64, layer: usize) -> Vec<f32> {
    Stream::new(seed, &format!("weight {layer}")).normal(WIDTH * WIDTH, 0.25)
}

/// What the layer has to become; the change is about as large as the weight.
fn goal(seed: u64, layer: usize) -> Vec<f32> {
    let weight = weight(seed, layer);
    if !PLANTED.contains(&layer) {
        return weight;
    }
    let factor = |name: &str| -> Vec<f64> {
        let values = Stream::new(seed, &format!("{name} {layer}")).normal(WIDTH * RANK, 0.35);
        values.into_iter().map(f64::from).collect()
    };
    let change = matmul(&factor("left"), [WIDTH, RANK], &factor("right"), WIDTH);
    weight.iter().zip(change).map(|(weight, change)| weight + change as f32).collect()
}

fn layer(weight: Vec<f32>) -> Linear<B> {
    let storage = Storage::<B>::new(BaseDtype::F32, &Default::default());
    Linear::new(storage.weight(weight, [WIDTH, WIDTH]), None)
}

/// `x ← x + tanh(W x)`, layer after layer: every one of them sees a gradient.
fn network(layers: &[Linear<B>], x: Tensor<B, 2>) -> Tensor<B, 2> {
    layers.iter().fold(x, |x, layer| x.clone() + layer.forward(x, Pass::EVAL).tanh())
}

fn inputs(seed: u64, step: usize) -> Tensor<B, 2> {
    let values = Stream::new(seed, &format!("x {step}")).normal(ROWS * WIDTH, 1.0);
    Tensor::from_data(TensorData::new(values, [ROWS, WIDTH]), &Default::default())
}

/// Layers with an adapter each, stepped as a run steps a model.
struct Student {
    layers: Vec<Linear<B>>,
    register: Register,
    optimizer: Optimizer<TestBackend>,
    rule: Allocation<TestBackend>,
    steps: usize,
}

impl Student {
    fn new(seed: u64, config: &AdaLoraConfig) -> Self {
        let site = |layer: usize| Selected {
            path: layer.to_string(),
            kind: ModuleKind::Linear,
            rows: WIDTH,
            cols: WIDTH,
            rank: RANK,
            alpha: config.alpha,
            scaling: config.scaling(),
        };
        let sites: Vec<Selected> = (0..LAYERS).map(site).collect();
        let adapted = |(i, site): (usize, &Selected)| {
            let mut linear = layer(weight(seed, i));
            let (device, mut pool) = (Default::default(), Pool::new());
            let weight = &linear.weight;
            let mut start = Start { seed, device, selected: &sites, weight, pool: &mut pool, values: None };
            let adapter = AdaLora::new(site, config, &mut start).unwrap();
            linear.adapter = Some(Adapter::AdaLora(adapter));
            linear
        };
        let layers: Vec<Linear<B>> = sites.iter().enumerate().map(adapted).collect();
        let register = Register::new(&layers);
        let optimizer = Optimizer::new(&Optim::default(), Form::Torch, &register.trainable(), &sites);
        let rule = Allocation::new(config, &sites, STEPS);
        Self { layers, register, optimizer, rule, steps: 0 }
    }

    /// Returns the loss before the step.
    fn step(&mut self, x: Tensor<B, 2>, goal: Tensor<B, 2>, lr: f64) -> f32 {
        let loss = (network(&self.layers, x) - goal).powi_scalar(2).mean();
        let mut grads = GradMap::new();
        self.register.collect_grads(&self.layers, &loss.backward(), &mut grads);
        self.rule.regularise(&self.register.flat(&self.layers), &mut grads);
        let Self { register, optimizer, .. } = self;
        self.layers = register
            .update(self.layers.clone(), |path, value| Some(optimizer.step(path, lr, value, grads.get(path)?.clone())));
        self.steps += 1;
        let mut changed = self.rule.stepped(self.steps, &self.register.flat(&self.layers), &grads);
        self.layers = self.register.update(self.layers.clone(), |path, _| changed.swap_remove(path));
        loss.into_data().to_vec::<f32>().unwrap()[0]
    }

    /// How many triplets each layer has left.
    fn ranks(&self) -> Vec<usize> {
        let values = self.register.read(&self.layers);
        let left = |layer: usize| values[&format!("{layer}.lora_E")].values.iter().filter(|e| **e != 0.0).count();
        (0..LAYERS).map(left).collect()
    }
}

/// Eight triplets are to be left of 32, as many as the two changes need.
#[test]
fn most_of_the_budget_goes_to_the_layers_that_need_it() {
    let config = AdaLoraConfig {
        init_rank: RANK,
        target_rank: 1,
        alpha: 4.0,
        warmup_steps: 30,
        final_steps: 60,
        interval: 5,
        orth_weight: 0.1,
        ..AdaLoraConfig::default()
    };
    for seed in 0..6 {
        let teacher: Vec<_> = (0..LAYERS).map(|i| layer(goal(seed, i))).collect();
        let mut student = Student::new(seed, &config);
        let step = |step| {
            let x = inputs(seed, step);
            student.step(x.clone(), network(&teacher, x), 2e-2)
        };
        let losses: Vec<f32> = (0..STEPS).map(step).collect();
        let ranks = student.ranks();
        let planted: usize = PLANTED.iter().map(|layer| ranks[*layer]).sum();
        let (first, last) = (losses[0], losses[STEPS - 1]);
        println!("seed {seed}: planted layers keep {planted} of 8, ranks {ranks:?}, loss {first:.3} to {last:.3}");
        assert_eq!(ranks.iter().sum::<usize>(), 8, "seed {seed}: {ranks:?}");
        // Evenly spread the two would keep 2.
        assert!(planted >= 5, "seed {seed}: {ranks:?}");
        assert!(last < 0.15 * first, "seed {seed}: {first} to {last}");
    }
}
