//! A runtime that computes nothing.

use indexmap::IndexMap;

use crate::adapters::Selected;
use crate::data::Batch;
use crate::events::Event;
use crate::runtime::{
    AdapterSpec, Base, BaseSpec, DeviceInfo, Learner, Micro, MicroResult, Processor, Runtime, Sampling, SelfTest,
};
use crate::tensors::HostTensors;
use crate::{Error, Result};

/// A device on which nothing is computed.
pub struct Still(pub Processor);

/// Its loss is the number of trained tokens times the learning rate it was made with; a rate of 1 or more makes it not a number. It answers
/// with the prompt.
struct Steady(f64);

impl Runtime for Still {
    fn name(&self) -> &'static str {
        "still"
    }
    fn processor(&self) -> Processor {
        self.0
    }
    fn devices(&self) -> Vec<DeviceInfo> {
        Vec::new()
    }
    fn self_test(&self, _: usize) -> Result<SelfTest> {
        Err(Error::Failed("it computes nothing".into()))
    }
    fn load(&self, _: usize, _: &BaseSpec<'_>) -> Result<Box<dyn Base>> {
        Ok(Box::new(Still(self.0)))
    }
}

impl Base for Still {
    fn attach(&self, spec: &AdapterSpec<'_>) -> Result<Box<dyn Learner>> {
        let rate = spec.optim.adamw.lr;
        Ok(Box::new(Steady(if rate < 1.0 { rate } else { f64::NAN })))
    }
    fn bytes(&self) -> u64 {
        0
    }
}

impl Learner for Steady {
    fn adapted(&self) -> &[Selected] {
        &[]
    }
    fn trainable(&self) -> IndexMap<String, Vec<usize>> {
        IndexMap::new()
    }
    fn logits(&self, _: &Batch) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }
    fn loss(&self, batch: &Batch) -> Result<f64> {
        Ok(batch.terms() as f64 * self.0)
    }
    fn update_energy(&self, _: &Batch) -> Result<IndexMap<String, f64>> {
        Ok(IndexMap::new())
    }
    fn generate(&self, prompt: &[u32], _: &Sampling, _: &mut dyn FnMut(u32) -> bool) -> Result<Vec<u32>> {
        Ok(prompt.to_vec())
    }
    fn accumulate(&mut self, batch: &Batch, _: &Micro) -> Result<MicroResult> {
        Ok(MicroResult { loss: batch.terms() as f64 * self.0, ..MicroResult::default() })
    }
    fn grad_norm(&mut self) -> f64 {
        1.0
    }
    fn step(&mut self, _: f64, _: f64) {}
    fn discard(&mut self) {}
    fn rates(&self, lr: f64) -> IndexMap<String, f64> {
        IndexMap::from([("matrices".to_string(), lr)])
    }
    fn ranks(&self) -> Option<Event> {
        None
    }
    fn finish(&mut self) {}
    fn export(&self) -> HostTensors {
        HostTensors::new()
    }
    fn gradients(&self) -> IndexMap<String, Vec<f32>> {
        IndexMap::new()
    }
    fn import(&mut self, _: &HostTensors) -> Result<()> {
        Ok(())
    }
    fn state(&self) -> HostTensors {
        HostTensors::new()
    }
    fn set_state(&mut self, _: &HostTensors, _: usize) -> Result<()> {
        Ok(())
    }
}
