//! BLOOM (Le Scao et al. 2022): a layer norm on the embeddings, and positions by a penalty on distance (ALiBi, Press et al. 2021).

use burn::tensor::{Int, Tensor};
use lowrank_kernels::{Heads, LowRankBackend};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Aliases, Backbone, Defaults, Family, Footprint, HeadForm, Norms, Place, parts};
use crate::Result;
use crate::adapters::Module;
use crate::models::ModelConfig;
use crate::models::config::Checks;
use crate::models::json::Json;
use crate::models::load::Reader;
use crate::nn::params::trains;
use crate::nn::{At, Embedding, LayerNorm, Linear, Pass, View, Views, gelu};
use crate::recipe::Task;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BloomConfig {
    pub layer_norm_epsilon: f64,
    /// Whether what a part is added to has been through the norm.
    pub apply_residual_connection_post_layernorm: bool,
}

parts! {
    pub struct Bloom<B> {
        pub word_embeddings: Embedding<B>,
        pub word_embeddings_layernorm: LayerNorm<B>,
        pub h: Vec<Block<B>>,
        pub ln_f: LayerNorm<B>,
        pub normed_residual: bool = |reader: &Reader<'_, B>| reader.own::<BloomConfig>().is_some_and(
            |own| own.apply_residual_connection_post_layernorm
        ),
    }

    pub struct Block<B> {
        pub input_layernorm: LayerNorm<B>,
        pub self_attention: SelfAttention<B>,
        pub post_attention_layernorm: LayerNorm<B>,
        pub mlp: FeedForward<B>,
    }

    pub struct SelfAttention<B> {
        pub query_key_value: Linear<B>,
        pub dense: Linear<B>,
        pub heads: usize = |reader: &Reader<'_, B>| reader.config.num_attention_heads,
    }

    pub struct FeedForward<B> {
        pub dense_h_to_4h: Linear<B>,
        pub dense_4h_to_h: Linear<B>,
    }
}

impl Family for BloomConfig {
    fn aliases() -> Aliases {
        &[
            ("num_hidden_layers", "n_layer"),
            ("num_attention_heads", "n_head"),
            ("max_position_embeddings", "seq_length"),
            ("num_key_value_heads", ""),
            ("head_dim", ""),
        ]
    }

    fn defaults(_: &str) -> Defaults {
        Defaults { max_position_embeddings: 2048, tie_word_embeddings: true, head_dim: None }
    }

    fn read(json: &Json<'_>, _: &str) -> Result<Self> {
        Ok(Self {
            layer_norm_epsilon: json.number("layer_norm_epsilon")?.unwrap_or(1e-5),
            apply_residual_connection_post_layernorm: json.flag("apply_residual_connection_post_layernorm", false)?,
        })
    }

    fn write(&self, _: &ModelConfig) -> Value {
        json!({
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "apply_residual_connection_post_layernorm": self.apply_residual_connection_post_layernorm,
        })
    }

    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()> {
        checks.divisor("num_attention_heads", config.num_attention_heads, "hidden_size", config.hidden_size)?;
        checks.small("layer_norm_epsilon", self.layer_norm_epsilon)
    }

    fn modules(&self, c: &ModelConfig) -> Vec<Module> {
        let hidden = c.hidden_size;
        let block = [
            Module::layer_norm("input_layernorm", hidden),
            Module::linear("self_attention.query_key_value", 3 * hidden, hidden).biased(true),
            Module::linear("self_attention.dense", hidden, hidden).biased(true),
            Module::layer_norm("post_attention_layernorm", hidden),
            Module::linear("mlp.dense_h_to_4h", 4 * hidden, hidden).biased(true),
            Module::linear("mlp.dense_4h_to_h", hidden, 4 * hidden).biased(true),
        ];
        let first = [
            Module::embedding("word_embeddings", c.vocab_size, hidden),
            Module::layer_norm("word_embeddings_layernorm", hidden),
        ];
        let blocks = Module::repeated("h", c.num_hidden_layers, |_| block.to_vec());
        first.into_iter().chain(blocks).chain([Module::layer_norm("ln_f", hidden)]).collect()
    }

    fn head(&self, config: &ModelConfig, task: Task) -> Option<HeadForm> {
        HeadForm::transformer(config, task)
    }

    fn views(&self, c: &ModelConfig) -> Views {
        Views::alike(View { slopes: slopes(c.num_attention_heads), ..View::plain(0) }, c.num_hidden_layers)
    }

    fn norms(&self) -> Norms {
        Norms { epsilon: self.layer_norm_epsilon, plus: 0.0 }
    }

    fn footprint(&self, c: &ModelConfig) -> Footprint {
        // Inputs and intermediates of two norms; q, k, v and what attention makes of them; the activation's.
        Footprint { kept: 36 * c.hidden_size, temporaries: 28 * c.hidden_size }
    }
}

/// How much each head minds distance: a geometric sequence from 2^(-8/n) for n heads, n a power of two; the heads beyond it
/// take every other slope of twice as many.
pub(super) fn slopes(heads: usize) -> Vec<f32> {
    let even = 1 << heads.max(1).ilog2();
    let series = |n: usize| (1..=n).map(move |i| (-8.0 * i as f64 / n as f64).exp2() as f32);
    series(even).chain(series(2 * even).step_by(2)).take(heads).collect()
}

impl<B: LowRankBackend> Backbone<B> for Bloom<B> {
    fn embed(&self, ids: Tensor<B, 1, Int>, _: Place<'_>) -> Tensor<B, 2> {
        self.word_embeddings_layernorm.forward(self.word_embeddings.forward(ids))
    }

    fn embedding_trains(&self) -> bool {
        trains(&self.word_embeddings) || trains(&self.word_embeddings_layernorm)
    }

    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let block = &self.h[layer];
        let residual = |x: Tensor<B, 2>, normed: &Tensor<B, 2>| if self.normed_residual { normed.clone() } else { x };
        let normed = block.input_layernorm.forward(x.clone());
        let x = residual(x, &normed) + block.self_attention.forward(normed, at, pass);
        let normed = block.post_attention_layernorm.forward(x.clone());
        let x = residual(x, &normed);
        x + block.mlp.dense_4h_to_h.forward(gelu(block.mlp.dense_h_to_4h.forward(normed, pass)), pass)
    }

    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.ln_f.forward(x)
    }

    fn table(&self) -> &Embedding<B> {
        &self.word_embeddings
    }
}

impl<B: LowRankBackend> SelfAttention<B> {
    /// q, k and v of one head lie beside each other.
    fn forward(&self, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let [n, hidden] = x.dims();
        let heads = Heads { heads: self.heads, kv_heads: self.heads, head_dim: hidden / self.heads };
        let qkv = self.query_key_value.forward(x, pass).reshape([n, self.heads, 3, heads.head_dim]);
        let [q, k, v] = [0, 1, 2].map(|part| qkv.clone().narrow(2, part, 1).reshape([n, hidden]));
        self.dense.forward(at.attention(q, k, v, heads), pass)
    }
}
