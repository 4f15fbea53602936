//! GPT-2 (Radford et al. 2019): learned positions, layer norms before each part, one product for q, k and v.
//!
//! Its linear layers are `Conv1D`s, stored `[in, out]`.

use burn::tensor::{Int, Tensor, TensorData};
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
pub struct Gpt2Config {
    /// Width of the feed-forward layers.
    pub n_inner: usize,
    pub layer_norm_epsilon: f64,
}

parts! {
    pub struct Gpt2<B> {
        pub wte: Embedding<B>,
        pub wpe: Embedding<B>,
        pub h: Vec<Block<B>>,
        pub ln_f: LayerNorm<B>,
    }

    pub struct Block<B> {
        pub ln_1: LayerNorm<B>,
        pub attn: SelfAttention<B>,
        pub ln_2: LayerNorm<B>,
        pub mlp: FeedForward<B>,
    }

    pub struct SelfAttention<B> {
        pub c_attn: Linear<B>,
        pub c_proj: Linear<B>,
        pub heads: usize = |reader: &Reader<'_, B>| reader.config.num_attention_heads,
    }

    pub struct FeedForward<B> {
        pub c_fc: Linear<B>,
        pub c_proj: Linear<B>,
    }
}

impl Family for Gpt2Config {
    fn aliases() -> Aliases {
        &[
            ("hidden_size", "n_embd"),
            ("num_hidden_layers", "n_layer"),
            ("num_attention_heads", "n_head"),
            ("max_position_embeddings", "n_positions"),
            ("num_key_value_heads", ""),
            ("head_dim", ""),
        ]
    }

    fn defaults(_: &str) -> Defaults {
        Defaults { max_position_embeddings: 1024, tie_word_embeddings: true, head_dim: None }
    }

    fn read(json: &Json<'_>, _: &str) -> Result<Self> {
        json.only("activation_function", &["gelu_new", "gelu_pytorch_tanh"])?;
        json.only_flag("scale_attn_weights", true)?;
        json.only_flag("scale_attn_by_inverse_layer_idx", false)?;
        json.only_flag("add_cross_attention", false)?;
        Ok(Self {
            n_inner: json.size_or("n_inner", json.size("hidden_size")?.saturating_mul(4))?,
            layer_norm_epsilon: json.number("layer_norm_epsilon")?.unwrap_or(1e-5),
        })
    }

    fn write(&self, _: &ModelConfig) -> Value {
        json!({
            "n_inner": self.n_inner, "activation_function": "gelu_new", "layer_norm_epsilon": self.layer_norm_epsilon,
        })
    }

    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()> {
        checks.size("n_inner", self.n_inner, 1 << 20)?;
        checks.divisor("num_attention_heads", config.num_attention_heads, "n_embd", config.hidden_size)?;
        checks.even("n_embd / n_head", config.head_dim)?;
        checks.small("layer_norm_epsilon", self.layer_norm_epsilon)
    }

    fn modules(&self, c: &ModelConfig) -> Vec<Module> {
        let (hidden, inner) = (c.hidden_size, self.n_inner);
        let block = [
            Module::layer_norm("ln_1", hidden),
            Module::conv1d("attn.c_attn", 3 * hidden, hidden),
            Module::conv1d("attn.c_proj", hidden, hidden),
            Module::layer_norm("ln_2", hidden),
            Module::conv1d("mlp.c_fc", inner, hidden),
            Module::conv1d("mlp.c_proj", hidden, inner),
        ];
        let embeddings = [
            Module::embedding("wte", c.vocab_size, hidden),
            Module::embedding("wpe", c.max_position_embeddings, hidden),
        ];
        let blocks = Module::repeated("h", c.num_hidden_layers, |_| block.to_vec());
        embeddings.into_iter().chain(blocks).chain([Module::layer_norm("ln_f", hidden)]).collect()
    }

    fn head(&self, config: &ModelConfig, task: Task) -> Option<HeadForm> {
        HeadForm::transformer(config, task)
    }

    fn ignored(&self) -> &'static [&'static str] {
        // The causal mask, in old files.
        &["attn.bias", "attn.masked_bias"]
    }

    fn views(&self, c: &ModelConfig) -> Views {
        Views::alike(View::plain(c.head_dim), c.num_hidden_layers)
    }

    fn norms(&self) -> Norms {
        Norms { epsilon: self.layer_norm_epsilon, plus: 0.0 }
    }

    fn footprint(&self, c: &ModelConfig) -> Footprint {
        // Inputs and intermediates of two norms; q, k, v and what attention makes of them; the activation's.
        Footprint { kept: 12 * c.hidden_size + 6 * self.n_inner, temporaries: 6 * self.n_inner + 4 * c.hidden_size }
    }
}

impl<B: LowRankBackend> Backbone<B> for Gpt2<B> {
    fn embed(&self, ids: Tensor<B, 1, Int>, place: Place<'_>) -> Tensor<B, 2> {
        let position = Tensor::from_data(TensorData::from(place.position), &ids.device());
        self.wte.forward(ids) + self.wpe.forward(position)
    }

    fn embedding_trains(&self) -> bool {
        trains(&self.wte) || trains(&self.wpe)
    }

    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let block = &self.h[layer];
        let x = x.clone() + block.attn.forward(block.ln_1.forward(x), at, pass);
        let y = gelu(block.mlp.c_fc.forward(block.ln_2.forward(x.clone()), pass));
        x + block.mlp.c_proj.forward(y, pass)
    }

    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.ln_f.forward(x)
    }

    fn table(&self) -> &Embedding<B> {
        &self.wte
    }
}

impl<B: LowRankBackend> SelfAttention<B> {
    fn forward(&self, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let hidden = x.dims()[1];
        let qkv = self.c_attn.forward(x, pass);
        let [q, k, v] = [0, 1, 2].map(|part| qkv.clone().narrow(1, part * hidden, hidden));
        let heads = Heads { heads: self.heads, kv_heads: self.heads, head_dim: hidden / self.heads };
        self.c_proj.forward(at.attention(q, k, v, heads), pass)
    }
}
