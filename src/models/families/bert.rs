//! BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019): encoders with a norm after each part, and learned positions.
//!
//! RoBERTa numbers its positions from behind the id of padding, and has another head for whole texts.

// `LayerNorm` is the checkpoint's name.
#![allow(non_snake_case)]

use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::{Heads, LowRankBackend};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Activation, Aliases, Backbone, Defaults, Family, Footprint, HeadForm, HeadLayer, Norms, Place, SOFTMAX, parts,
};
use crate::Result;
use crate::adapters::Module;
use crate::models::ModelConfig;
use crate::models::config::Checks;
use crate::models::json::Json;
use crate::models::load::Reader;
use crate::nn::params::trains;
use crate::nn::{At, Embedding, LayerNorm, Linear, Pass, Unit, View, Views};
use crate::recipe::Task;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BertConfig {
    pub intermediate_size: usize,
    pub hidden_act: Unit,
    pub layer_norm_eps: f64,
    /// Texts that are told apart.
    pub type_vocab_size: usize,
    /// Where the first token of a text is in the table of positions.
    pub first_position: usize,
}

parts! {
    pub struct Bert<B> {
        pub embeddings: Embeddings<B>,
        pub encoder: Encoder<B>,
    }

    pub struct Embeddings<B> {
        pub word_embeddings: Embedding<B>,
        pub position_embeddings: Embedding<B>,
        pub token_type_embeddings: Embedding<B>,
        pub LayerNorm: LayerNorm<B>,
        pub first_position: usize = |reader: &Reader<'_, B>| reader.own::<BertConfig>().map_or(0, |own| own.first_position),
        pub types: usize = |reader: &Reader<'_, B>| reader.own::<BertConfig>().map_or(1, |own| own.type_vocab_size),
    }

    pub struct Encoder<B> {
        pub layer: Vec<Block<B>>,
    }

    pub struct Block<B> {
        pub attention: Attention<B>,
        pub intermediate: Intermediate<B>,
        pub output: Output<B>,
    }

    pub struct Attention<B> {
        pub self_: SelfAttention<B>,
        pub output: Output<B>,
    }

    pub struct SelfAttention<B> {
        pub query: Linear<B>,
        pub key: Linear<B>,
        pub value: Linear<B>,
        pub heads: usize = |reader: &Reader<'_, B>| reader.config.num_attention_heads,
    }

    pub struct Intermediate<B> {
        pub dense: Linear<B>,
        #[module(skip)]
        pub act: Unit = |reader: &Reader<'_, B>| reader.own::<BertConfig>().map(|own| own.hidden_act).unwrap_or_default(),
    }

    pub struct Output<B> {
        pub dense: Linear<B>,
        pub LayerNorm: LayerNorm<B>,
    }
}

impl Family for BertConfig {
    fn aliases() -> Aliases {
        &[("num_key_value_heads", ""), ("head_dim", "")]
    }

    fn defaults(_: &str) -> Defaults {
        Defaults { max_position_embeddings: 512, tie_word_embeddings: true, head_dim: None }
    }

    fn read(json: &Json<'_>, model_type: &str) -> Result<Self> {
        json.only("position_embedding_type", &["absolute"])?;
        json.only_flag("is_decoder", false)?;
        json.only_flag("add_cross_attention", false)?;
        let padding = json.ids("pad_token_id")?.first().map_or(1, |&id| id as usize);
        Ok(Self {
            intermediate_size: json.size("intermediate_size")?,
            hidden_act: json.one_of("hidden_act", &Unit::NAMES)?,
            layer_norm_eps: json.number("layer_norm_eps")?.unwrap_or(1e-12),
            type_vocab_size: json.size_or("type_vocab_size", 2)?,
            first_position: if model_type == "roberta" { padding.saturating_add(1) } else { 0 },
        })
    }

    fn write(&self, _: &ModelConfig) -> Value {
        json!({
            "intermediate_size": self.intermediate_size, "hidden_act": self.hidden_act.name(),
            "layer_norm_eps": self.layer_norm_eps, "type_vocab_size": self.type_vocab_size,
        })
    }

    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()> {
        checks.size("intermediate_size", self.intermediate_size, 1 << 20)?;
        checks.size("type_vocab_size", self.type_vocab_size, 1 << 20)?;
        checks.divisor("num_attention_heads", config.num_attention_heads, "hidden_size", config.hidden_size)?;
        checks.small("layer_norm_eps", self.layer_norm_eps)?;
        match config.max_position_embeddings.checked_sub(self.first_position) {
            None | Some(0) => {
                let expected = format!("more than pad_token_id + 1 = {}", self.first_position);
                checks.fault("max_position_embeddings", config.max_position_embeddings, expected)
            }
            Some(_) => Ok(()),
        }
    }

    fn modules(&self, c: &ModelConfig) -> Vec<Module> {
        let (hidden, inner) = (c.hidden_size, self.intermediate_size);
        let linear = |path: &str, out, inputs| Module::linear(path, out, inputs).biased(true);
        let block = [
            linear("attention.self.query", hidden, hidden),
            linear("attention.self.key", hidden, hidden),
            linear("attention.self.value", hidden, hidden),
            linear("attention.output.dense", hidden, hidden),
            Module::layer_norm("attention.output.LayerNorm", hidden),
            linear("intermediate.dense", inner, hidden),
            linear("output.dense", hidden, inner),
            Module::layer_norm("output.LayerNorm", hidden),
        ];
        let embeddings = [
            Module::embedding("embeddings.word_embeddings", c.vocab_size, hidden),
            Module::embedding("embeddings.position_embeddings", c.max_position_embeddings, hidden),
            Module::embedding("embeddings.token_type_embeddings", self.type_vocab_size, hidden),
            Module::layer_norm("embeddings.LayerNorm", hidden),
        ];
        let blocks = Module::repeated("encoder.layer", c.num_hidden_layers, |_| block.to_vec());
        embeddings.into_iter().chain(blocks).collect()
    }

    fn head(&self, c: &ModelConfig, task: Task) -> Option<HeadForm> {
        let (hidden, outputs) = (c.hidden_size, c.outputs());
        if c.model_type == "roberta" {
            let layers =
                [("classifier.dense", hidden, Activation::Tanh), ("classifier.out_proj", outputs, Activation::None)];
            let layers = layers.map(|(path, out, then)| HeadLayer::last(path, out, hidden).biased().then(then));
            return HeadForm::encoder(c, task, "roberta", layers.into());
        }
        // Of the backbone by its name, and only there where whole texts are told apart.
        let pooler = Module::linear("bert.pooler.dense", hidden, hidden).biased(true);
        let pooler = HeadLayer { module: pooler, then: Activation::Tanh };
        let layers = vec![pooler, HeadLayer::last("classifier", outputs, hidden).biased()];
        HeadForm::encoder(c, task, "bert", layers)
    }

    fn ignored(&self) -> &'static [&'static str] {
        // Numbers of positions and types, in old files; the pooler, of tasks that have none.
        &["embeddings.position_ids", "embeddings.token_type_ids", "pooler.dense.weight", "pooler.dense.bias"]
    }

    fn positions(&self, config: &ModelConfig) -> usize {
        config.max_position_embeddings - self.first_position
    }

    fn views(&self, c: &ModelConfig) -> Views {
        Views::alike(View::both(), c.num_hidden_layers)
    }

    fn norms(&self) -> Norms {
        Norms { epsilon: self.layer_norm_eps, plus: 0.0 }
    }

    fn footprint(&self, c: &ModelConfig) -> Footprint {
        Footprint::encoder(c.hidden_size, self.intermediate_size)
    }

    fn scores(&self, c: &ModelConfig) -> usize {
        SOFTMAX * c.num_attention_heads
    }
}

impl<B: LowRankBackend> Backbone<B> for Bert<B> {
    fn embed(&self, ids: Tensor<B, 1, Int>, place: Place<'_>) -> Tensor<B, 2> {
        let (own, device) = (&self.embeddings, ids.device());
        let index = |values: Vec<i32>| Tensor::from_data(TensorData::from(&values[..]), &device);
        let position = place.position.iter().map(|&position| position + own.first_position as i32).collect();
        let types = match place.token_type {
            given if own.types > 1 && !given.is_empty() => given.to_vec(),
            _ => vec![0; place.position.len()],
        };
        let x = own.word_embeddings.forward(ids) + own.position_embeddings.forward(index(position));
        own.LayerNorm.forward(x + own.token_type_embeddings.forward(index(types)))
    }

    fn embedding_trains(&self) -> bool {
        trains(&self.embeddings)
    }

    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let Block { attention, intermediate, output } = &self.encoder.layer[layer];
        let y = attention.self_.forward(x.clone(), at, pass);
        let x = attention.output.forward(y, x, pass);
        let y = intermediate.act.forward(intermediate.dense.forward(x.clone(), pass));
        output.forward(y, x, pass)
    }

    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        x
    }

    fn table(&self) -> &Embedding<B> {
        &self.embeddings.word_embeddings
    }
}

impl<B: LowRankBackend> SelfAttention<B> {
    fn forward(&self, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let heads = Heads { heads: self.heads, kv_heads: self.heads, head_dim: x.dims()[1] / self.heads };
        let [q, k, v] = [&self.query, &self.key, &self.value].map(|linear| linear.forward(x.clone(), pass));
        at.attention(q, k, v, heads)
    }
}

impl<B: LowRankBackend> Output<B> {
    /// Adds what `y` becomes to `x`.
    fn forward(&self, y: Tensor<B, 2>, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        self.LayerNorm.forward(x + self.dense.forward(y, pass))
    }
}
