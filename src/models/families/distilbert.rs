//! DistilBERT (Sanh et al. 2019): BERT's blocks under other names, without types of text and pooler.

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
pub struct DistilBertConfig {
    /// Width of the feed-forward layers.
    pub hidden_dim: usize,
    pub activation: Unit,
}

parts! {
    pub struct DistilBert<B> {
        pub embeddings: Embeddings<B>,
        pub transformer: Transformer<B>,
    }

    pub struct Embeddings<B> {
        pub word_embeddings: Embedding<B>,
        pub position_embeddings: Embedding<B>,
        pub LayerNorm: LayerNorm<B>,
    }

    pub struct Transformer<B> {
        pub layer: Vec<Block<B>>,
    }

    pub struct Block<B> {
        pub attention: SelfAttention<B>,
        pub sa_layer_norm: LayerNorm<B>,
        pub ffn: FeedForward<B>,
        pub output_layer_norm: LayerNorm<B>,
    }

    pub struct SelfAttention<B> {
        pub q_lin: Linear<B>,
        pub k_lin: Linear<B>,
        pub v_lin: Linear<B>,
        pub out_lin: Linear<B>,
        pub heads: usize = |reader: &Reader<'_, B>| reader.config.num_attention_heads,
    }

    pub struct FeedForward<B> {
        pub lin1: Linear<B>,
        pub lin2: Linear<B>,
        #[module(skip)]
        pub act: Unit = |reader: &Reader<'_, B>| {
            reader.own::<DistilBertConfig>().map(|own| own.activation).unwrap_or_default()
        },
    }
}

impl Family for DistilBertConfig {
    fn aliases() -> Aliases {
        &[
            ("hidden_size", "dim"),
            ("num_hidden_layers", "n_layers"),
            ("num_attention_heads", "n_heads"),
            ("num_key_value_heads", ""),
            ("head_dim", ""),
        ]
    }

    fn defaults(_: &str) -> Defaults {
        Defaults { max_position_embeddings: 512, tie_word_embeddings: true, head_dim: None }
    }

    fn read(json: &Json<'_>, _: &str) -> Result<Self> {
        // Sinusoids are what the table of positions starts from; files hold the table itself.
        json.flag("sinusoidal_pos_embds", false)?;
        Ok(Self { hidden_dim: json.size("hidden_dim")?, activation: json.one_of("activation", &Unit::NAMES)? })
    }

    fn write(&self, _: &ModelConfig) -> Value {
        json!({ "hidden_dim": self.hidden_dim, "activation": self.activation.name(), "sinusoidal_pos_embds": false })
    }

    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()> {
        checks.size("hidden_dim", self.hidden_dim, 1 << 20)?;
        checks.divisor("num_attention_heads", config.num_attention_heads, "dim", config.hidden_size)
    }

    fn modules(&self, c: &ModelConfig) -> Vec<Module> {
        let (hidden, inner) = (c.hidden_size, self.hidden_dim);
        let linear = |path: &str, out, inputs| Module::linear(path, out, inputs).biased(true);
        let block = [
            linear("attention.q_lin", hidden, hidden),
            linear("attention.k_lin", hidden, hidden),
            linear("attention.v_lin", hidden, hidden),
            linear("attention.out_lin", hidden, hidden),
            Module::layer_norm("sa_layer_norm", hidden),
            linear("ffn.lin1", inner, hidden),
            linear("ffn.lin2", hidden, inner),
            Module::layer_norm("output_layer_norm", hidden),
        ];
        let embeddings = [
            Module::embedding("embeddings.word_embeddings", c.vocab_size, hidden),
            Module::embedding("embeddings.position_embeddings", c.max_position_embeddings, hidden),
            Module::layer_norm("embeddings.LayerNorm", hidden),
        ];
        let blocks = Module::repeated("transformer.layer", c.num_hidden_layers, |_| block.to_vec());
        embeddings.into_iter().chain(blocks).collect()
    }

    fn head(&self, c: &ModelConfig, task: Task) -> Option<HeadForm> {
        let hidden = c.hidden_size;
        let layers = [("pre_classifier", hidden, Activation::Relu), ("classifier", c.outputs(), Activation::None)];
        let layers = layers.map(|(path, out, then)| HeadLayer::last(path, out, hidden).biased().then(then));
        HeadForm::encoder(c, task, "distilbert", layers.into())
    }

    fn ignored(&self) -> &'static [&'static str] {
        // Numbers of positions, in old files.
        &["embeddings.position_ids"]
    }

    fn views(&self, c: &ModelConfig) -> Views {
        Views::alike(View::both(), c.num_hidden_layers)
    }

    fn norms(&self) -> Norms {
        Norms { epsilon: 1e-12, plus: 0.0 }
    }

    fn footprint(&self, c: &ModelConfig) -> Footprint {
        Footprint::encoder(c.hidden_size, self.hidden_dim)
    }

    fn scores(&self, c: &ModelConfig) -> usize {
        SOFTMAX * c.num_attention_heads
    }
}

impl<B: LowRankBackend> Backbone<B> for DistilBert<B> {
    fn embed(&self, ids: Tensor<B, 1, Int>, place: Place<'_>) -> Tensor<B, 2> {
        let position = Tensor::from_data(TensorData::from(place.position), &ids.device());
        let own = &self.embeddings;
        own.LayerNorm.forward(own.word_embeddings.forward(ids) + own.position_embeddings.forward(position))
    }

    fn embedding_trains(&self) -> bool {
        trains(&self.embeddings)
    }

    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let block = &self.transformer.layer[layer];
        let x = block.sa_layer_norm.forward(x.clone() + block.attention.forward(x, at, pass));
        let y = block.ffn.act.forward(block.ffn.lin1.forward(x.clone(), pass));
        block.output_layer_norm.forward(x + block.ffn.lin2.forward(y, pass))
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
        let [q, k, v] = [&self.q_lin, &self.k_lin, &self.v_lin].map(|linear| linear.forward(x.clone(), pass));
        self.out_lin.forward(at.attention(q, k, v, heads), pass)
    }
}
