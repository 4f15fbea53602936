//! Around an optimizer step: the gradient of the orthogonality term before it, the allocation of the budget after it.
//!
//! Importances take the values after the step and the gradients that the optimizer saw (accumulated and clipped), once for each
//! step. That is the order of the authors' code and of PEFT; Algorithm 1 of the paper takes the values before the step.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use indexmap::IndexMap;

use super::AdaLoraConfig;
use super::allocator::{Due, Schedule, survivors};
use super::importance::Importance;
use super::orthogonality::deviation;
use crate::adapters::{Rule, Selected};
use crate::events::{Event, ModuleRank};
use crate::nn::params::GradMap;
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

/// Names in a checkpoint: of a module's triplets, and whether they are final.
const KEPT: &str = "kept";
const SCORE: &str = "score";
const SETTLED: &str = "settled";

/// The parameters of one module, and their sizes.
pub struct Triplets {
    path: String,
    pub rank: usize,
    pub out: usize,
    pub cols: usize,
}

impl Triplets {
    fn new(site: &Selected) -> Self {
        let [out, cols] = site.outputs_and_inputs();
        Self { path: site.path.clone(), rank: site.rank, out, cols }
    }

    /// Of A `[r, in]`, E `[r, 1]` and B `[out, r]`.
    pub fn paths(&self) -> [String; 3] {
        ["lora_A", "lora_E", "lora_B"].map(|field| format!("{}.{field}", self.path))
    }

    pub fn sizes(&self) -> [usize; 3] {
        [self.rank * self.cols, self.rank, self.out * self.rank]
    }
}

/// The rank allocator over all modules.
pub struct Allocation<B: Backend> {
    schedule: Schedule,
    orth_weight: f64,
    modules: Vec<Triplets>,
    importance: Importance<B>,
    /// Triplets that kept their place in the last allocation, and the scores it went by.
    kept: Vec<Vec<bool>>,
    scores: Vec<Vec<f32>>,
    /// No more allocations follow: what was dropped stays so.
    settled: bool,
}

impl<B: Backend> Allocation<B> {
    pub fn new(config: &AdaLoraConfig, selected: &[Selected], total: usize) -> Self {
        let modules: Vec<_> = selected.iter().map(Triplets::new).collect();
        let schedule = Schedule {
            initial: modules.iter().map(|module| module.rank).sum(),
            target: config.target_rank * modules.len(),
            warmup: config.warmup_steps,
            end: total.saturating_sub(config.final_steps),
            interval: config.interval,
            total,
        };
        Self {
            schedule,
            orth_weight: config.orth_weight,
            importance: Importance::new(config.beta1, config.beta2),
            kept: modules.iter().map(|module| vec![true; module.rank]).collect(),
            scores: modules.iter().map(|module| vec![0.0; module.rank]).collect(),
            modules,
            settled: false,
        }
    }

    fn allocate(&mut self, budget: usize) {
        self.scores = self.importance.scores(&self.modules);
        self.kept = survivors(&self.scores, budget);
    }

    fn settle(&mut self) {
        self.allocate(self.schedule.target);
        self.settled = true;
        self.importance.clear();
    }

    /// E of every module that lost triplets, with zeros in their place.
    fn masked(&self, params: &IndexMap<String, Tensor<B, 1>>) -> GradMap<B> {
        let pruned = self.modules.iter().zip(&self.kept).filter(|(_, kept)| kept.contains(&false));
        let masked = pruned.filter_map(|(module, kept)| {
            let [_, path, _] = module.paths();
            let e = params.get(&path)?.clone();
            let dropped: Vec<bool> = kept.iter().map(|kept| !kept).collect();
            let dropped = Tensor::<B, 1, Bool>::from_data(TensorData::from(&dropped[..]), &e.device());
            Some((path, e.mask_fill(dropped, 0.0)))
        });
        masked.collect()
    }
}

impl<B: Backend> Rule<B> for Allocation<B> {
    fn regularise(&mut self, params: &IndexMap<String, Tensor<B, 1>>, grads: &mut GradMap<B>) {
        if self.orth_weight == 0.0 {
            return;
        }
        let weight = self.orth_weight / (2 * self.modules.len()) as f64;
        let mut add = |path: String, grad: Tensor<B, 2>| {
            let grad = grad.reshape([-1]).mul_scalar(weight);
            let sum = grads.get(&path).map_or(grad.clone(), |data| data.clone() + grad);
            grads.insert(path, sum);
        };
        for module in &self.modules {
            let [a_path, _, b_path] = module.paths();
            let (Some(a), Some(b)) = (params.get(&a_path), params.get(&b_path)) else { continue };
            add(a_path, deviation(a.clone().reshape([module.rank, module.cols])).1);
            add(b_path, deviation(b.clone().reshape([module.out, module.rank]).transpose()).1.transpose());
        }
    }

    fn stepped(&mut self, step: usize, params: &IndexMap<String, Tensor<B, 1>>, grads: &GradMap<B>) -> GradMap<B> {
        // The schedule counts from 0.
        let t = step - 1;
        if !self.settled {
            if t < self.schedule.end {
                self.importance.observe(&self.modules, params, grads);
            }
            match self.schedule.due(t) {
                // Between allocations the optimizer may bring back what the last one dropped.
                Due::Nothing => return GradMap::new(),
                Due::Allocation => self.allocate(self.schedule.budget(t)),
                Due::Settlement => self.settle(),
            }
        }
        self.masked(params)
    }

    fn finish(&mut self, _step: usize, params: &IndexMap<String, Tensor<B, 1>>) -> GradMap<B> {
        // Only a run that skipped steps comes here unsettled: its step numbers fell short of the schedule's end.
        if !self.settled {
            self.settle();
        }
        self.masked(params)
    }

    fn ranks(&self, step: usize) -> Option<Event> {
        let budget = match step.checked_sub(1) {
            _ if self.settled => self.schedule.target,
            Some(t) => self.schedule.budget(t),
            None => self.schedule.initial,
        };
        let modules = self.modules.iter().zip(&self.kept).zip(&self.scores);
        let modules = modules.map(|((module, kept), scores)| ModuleRank {
            name: module.path.clone(),
            active: kept.iter().filter(|kept| **kept).count(),
            total: module.rank,
            importance: scores.iter().map(|score| f64::from(*score)).sum(),
        });
        Some(Event::Ranks { step, budget, modules: modules.collect() })
    }

    fn state(&self) -> HostTensors {
        let host = |values: Vec<f32>| HostTensor { shape: vec![values.len()], values };
        let flag = |on: &bool| f32::from(u8::from(*on));
        let mut state = self.importance.state();
        for ((module, kept), scores) in self.modules.iter().zip(&self.kept).zip(&self.scores) {
            state.insert(format!("{}.{KEPT}", module.path), host(kept.iter().map(flag).collect()));
            state.insert(format!("{}.{SCORE}", module.path), host(scores.clone()));
        }
        state.insert(SETTLED.into(), host(vec![flag(&self.settled)]));
        state
    }

    fn set_state(&mut self, state: &HostTensors, device: &B::Device) -> Result<()> {
        let mut state = state.clone();
        self.importance.set_state(&self.modules, &mut state, device)?;
        for (i, module) in self.modules.iter().enumerate() {
            let kept = take(&mut state, &format!("{}.{KEPT}", module.path), module.rank)?;
            self.kept[i] = kept.iter().map(|kept| *kept != 0.0).collect();
            self.scores[i] = take(&mut state, &format!("{}.{SCORE}", module.path), module.rank)?;
        }
        self.settled = take(&mut state, SETTLED, 1)? != [0.0];
        match state.keys().next() {
            None => Ok(()),
            Some(unknown) => Err(Error::input("state of a module that carries no adapter").tensor(unknown).into()),
        }
    }
}

/// The values `name`, moved out of `state`.
fn take(state: &mut HostTensors, name: &str, len: usize) -> Result<Vec<f32>> {
    match state.shift_remove(name) {
        Some(host) if host.values.len() == len => Ok(host.values),
        found => Err(Error::input("the checkpoint does not fit the adapter")
            .tensor(name)
            .found(found.map_or("nothing".into(), |host| format!("{} values", host.values.len())))
            .expected(format!("{len} values"))
            .into()),
    }
}
