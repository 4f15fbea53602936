//! What a task reads from the last hidden states: layers behind the backbone, and where they look.

use burn::module::Module as BurnModule;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, activation};
use lowrank_kernels::LowRankBackend;
use serde::Serialize;

use crate::Result;
use crate::adapters::Module;
use crate::models::ModelConfig;
use crate::models::load::Reader;
use crate::nn::{Linear, Pass};
use crate::recipe::Task;

/// How a family does a task.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadForm {
    /// Where the backbone is in the whole model; "" where the task has the backbone alone.
    pub root: &'static str,
    /// In order; none where hidden states are the result.
    pub layers: Vec<HeadLayer>,
    pub reads: Reads,
}

/// One layer of a head.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadLayer {
    /// Under its path in the whole model.
    pub module: Module,
    pub then: Activation,
}

/// What follows a layer of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Activation {
    #[default]
    None,
    Tanh,
    Relu,
}

/// Which tokens of a row the head is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Every,
    First,
    Last,
}

impl HeadLayer {
    /// A layer of the task's own, which nothing follows.
    pub fn last(path: &str, out: usize, inputs: usize) -> Self {
        Self { module: Module::head(path, out, inputs), then: Activation::None }
    }

    pub fn biased(self) -> Self {
        Self { module: self.module.biased(true), ..self }
    }

    pub fn then(self, then: Activation) -> Self {
        Self { then, ..self }
    }
}

impl HeadForm {
    /// What transformers puts behind decoders, whose backbone is at `root`.
    pub fn decoder(c: &ModelConfig, task: Task, root: &'static str) -> Option<Self> {
        let (hidden, outputs) = (c.hidden_size, c.outputs());
        let (layer, reads) = match task {
            Task::CausalLm => (HeadLayer::last("lm_head", c.vocab_size, hidden), Reads::Every),
            Task::SeqCls => (HeadLayer::last("score", outputs, hidden), Reads::Last),
            Task::TokenCls => (HeadLayer::last("score", outputs, hidden).biased(), Reads::Every),
            // Llama's class calls its backbone `transformer` here.
            Task::QuestionAns => {
                let layers = vec![HeadLayer::last("qa_outputs", 2, hidden).biased()];
                return Some(Self { root: "transformer", layers, reads: Reads::Every });
            }
            Task::FeatureExtraction => return Some(Self { root: "", layers: Vec::new(), reads: Reads::Every }),
            Task::Seq2seqLm => return None,
        };
        Some(Self { root, layers: vec![layer], reads })
    }

    /// The same for families whose backbone is `transformer`; their token classifiers have another name.
    pub fn transformer(c: &ModelConfig, task: Task) -> Option<Self> {
        let mut form = Self::decoder(c, task, "transformer")?;
        if task == Task::TokenCls {
            form.layers = vec![HeadLayer::last("classifier", c.outputs(), c.hidden_size).biased()];
        }
        Some(form)
    }

    /// What transformers puts behind encoders, whose backbone is at `root`; `of_texts` tells classes of whole texts from their first
    /// token.
    pub fn encoder(c: &ModelConfig, task: Task, root: &'static str, of_texts: Vec<HeadLayer>) -> Option<Self> {
        let of_tokens = |path, outputs| vec![HeadLayer::last(path, outputs, c.hidden_size).biased()];
        let (layers, reads) = match task {
            Task::SeqCls => (of_texts, Reads::First),
            Task::TokenCls => (of_tokens("classifier", c.outputs()), Reads::Every),
            Task::QuestionAns => (of_tokens("qa_outputs", 2), Reads::Every),
            Task::FeatureExtraction => return Some(Self { root: "", layers: Vec::new(), reads: Reads::Every }),
            Task::CausalLm | Task::Seq2seqLm => return None,
        };
        Some(Self { root, layers, reads })
    }
}

/// The layers of a head on a device; none where it is the embedding table, or where there is no head.
#[derive(BurnModule, Debug)]
pub struct Head<B: Backend> {
    pub layers: Vec<Linear<B>>,
    #[module(skip)]
    pub forms: Vec<(String, Activation)>,
}

impl<B: LowRankBackend> Head<B> {
    pub(super) fn read(reader: &mut Reader<'_, B>) -> Result<Self> {
        let mut head = Self { layers: Vec::new(), forms: Vec::new() };
        for HeadLayer { module, then } in reader.config.head().layers {
            if reader.has(&module.path) {
                head.layers.push(reader.linear(&module.path)?);
                head.forms.push((module.path, then));
            }
        }
        Ok(head)
    }

    /// `[n, hidden] → [n, outputs]`.
    pub fn forward(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        let layers = self.layers.iter().zip(&self.forms);
        layers.fold(x, |x, (layer, (_, then))| match then {
            Activation::None => layer.forward(x, pass),
            Activation::Tanh => layer.forward(x, pass).tanh(),
            Activation::Relu => activation::relu(layer.forward(x, pass)),
        })
    }
}
