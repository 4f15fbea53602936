//! A model for a task that its file has no head for: the head is made, and the rest is the file's.

use std::path::Path;

use lowrank_kernels::four_bit::{Format, Quantised};

use super::class::generic_label;
use super::{ModelConfig, Opened, WeightSource};
use crate::adapters::random::Stream;
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

/// Deviation of a new head's weights, as in BERT (Devlin et al. 2019); its biases start at zero.
const DEVIATION: f64 = 0.02;
/// Heads do not depend on a run's seed, so that runs can share a base.
const SEED: u64 = 0;

/// `source` with a head beside it.
struct Headed {
    source: Box<dyn WeightSource>,
    head: HostTensors,
}

/// Names and shapes of the tensors of a head.
pub(super) fn head_tensors(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    config.head().layers.iter().flat_map(|layer| layer.module.tensors()).collect()
}

impl Opened {
    /// Names of the classes that the file's own head tells; none where it has no such head.
    pub fn labels(&self) -> &[String] {
        if self.fresh_head.is_empty() { &self.config.labels } else { &[] }
    }

    /// Tensors of the head that the file does not have, so that they are made.
    pub fn fresh_head(&self) -> &[String] {
        &self.fresh_head
    }

    /// The same with outputs that stand for `labels`, and with a head of that many where the file has none.
    ///
    /// # Errors
    /// If the file's own head has another number of outputs.
    pub fn with_labels(mut self, labels: &[String]) -> Result<Self> {
        let classifies = self.config.task.has_labels();
        let outputs = labels.len().max(1);
        if classifies && self.fresh_head.is_empty() && outputs != self.config.outputs() {
            let error = Error::input("the model's head does not fit the labels").file(self.weights.path());
            let error = error.found(format!("{} outputs ({})", self.config.outputs(), named(&self.config.labels)));
            return Err(error.expected(format!("{outputs} for the labels ({})", named(labels))).into());
        }
        if classifies {
            self.config.labels = labels.to_vec();
        }
        let is_fresh = |(name, _): &(String, Vec<usize>)| self.fresh_head.contains(name);
        let head: HostTensors = head_tensors(&self.config).into_iter().filter(is_fresh).map(fresh).collect();
        if !head.is_empty() {
            self.weights = Box::new(Headed { source: self.weights, head });
        }
        Ok(self)
    }
}

fn fresh((name, shape): (String, Vec<usize>)) -> (String, HostTensor) {
    let n = shape.iter().product();
    let values = if shape.len() == 1 { vec![0.0; n] } else { Stream::new(SEED, &name).normal(n, DEVIATION) };
    (name, HostTensor { shape, values })
}

/// The first few of a list of labels.
fn named(labels: &[String]) -> String {
    let (shown, more) = (labels.iter().take(4).map(String::as_str), if labels.len() > 4 { ", ..." } else { "" });
    format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
}

/// Whether all labels are as transformers names outputs that nobody has named.
pub fn are_generic(labels: &[String]) -> bool {
    labels.iter().enumerate().all(|(i, label)| *label == generic_label(i))
}

impl WeightSource for Headed {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn names(&self) -> Vec<String> {
        let own = self.source.names().into_iter().filter(|name| !self.head.contains_key(name));
        let mut names: Vec<String> = own.chain(self.head.keys().cloned()).collect();
        names.sort_unstable();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.head.get(name).map(|tensor| tensor.shape.clone()).or_else(|| self.source.shape(name))
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.head.get(name).map_or_else(|| self.source.read(name), |tensor| Ok(tensor.values.clone()))
    }

    fn dtype(&self, name: &str) -> String {
        if self.head.contains_key(name) { "F32".into() } else { self.source.dtype(name) }
    }

    fn stored_bytes(&self, name: &str) -> u64 {
        if self.head.contains_key(name) { 0 } else { self.source.stored_bytes(name) }
    }

    fn sha256(&self) -> String {
        self.source.sha256()
    }

    fn four_bit_format(&self, name: &str) -> Option<Format> {
        self.source.four_bit_format(name).filter(|_| !self.head.contains_key(name))
    }

    fn four_bit(&self, name: &str) -> Result<Option<Quantised>> {
        if self.head.contains_key(name) { Ok(None) } else { self.source.four_bit(name) }
    }
}
