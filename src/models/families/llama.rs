//! The Llama architecture (Touvron et al. 2023): Llama, SmolLM, TinyLlama, Mistral, Qwen2 with its q, k and v
//! biases, and Qwen3 with norms on queries and keys.

use burn::tensor::{Int, Tensor};
use lowrank_kernels::LowRankBackend;
use serde::Serialize;
use serde_json::{Value, json};

use super::layers::{Biases, attention, backbone, gated, head_norms};
use super::{Backbone, Defaults, Family, Footprint, Norms, Place, parts};
use crate::Result;
use crate::adapters::Module;
use crate::models::config::Checks;
use crate::models::json::Json;
use crate::models::{ModelConfig, Rope, Sliding};
use crate::nn::params::trains;
use crate::nn::{At, Attention, Embedding, Mlp, Pass, RmsNorm, View, Views};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LlamaConfig {
    pub intermediate_size: usize,
    pub rms_norm_eps: f64,
    pub rope: Rope,
    /// Bias on q, k and v (Qwen2, or `attention_bias`).
    pub qkv_bias: bool,
    /// Bias on o (`attention_bias`).
    pub o_bias: bool,
    pub mlp_bias: bool,
    /// Norms over each head of q and k (Qwen3).
    pub qk_norm: bool,
    pub sliding: Sliding,
}

parts! {
    pub struct Llama<B> {
        pub embed_tokens: Embedding<B>,
        pub layers: Vec<Block<B>>,
        pub norm: RmsNorm<B>,
    }

    pub struct Block<B> {
        pub input_layernorm: RmsNorm<B>,
        pub self_attn: Attention<B>,
        pub post_attention_layernorm: RmsNorm<B>,
        pub mlp: Mlp<B>,
    }
}

impl Family for LlamaConfig {
    fn defaults(model_type: &str) -> Defaults {
        let max_position_embeddings = if model_type == "llama" { 2048 } else { 32768 };
        let head_dim = (model_type == "qwen3").then_some(128);
        Defaults { max_position_embeddings, tie_word_embeddings: false, head_dim }
    }

    fn read(json: &Json<'_>, model_type: &str) -> Result<Self> {
        json.only("hidden_act", &["silu", "swish"])?;
        json.refuse_partial_rotary()?;
        let slides = match model_type {
            "mistral" => true,
            "qwen2" | "qwen3" => json.flag("use_sliding_window", false)?,
            _ => false,
        };
        let first = if model_type == "mistral" { 0 } else { json.size_or("max_window_layers", 28)? };
        let longest = Self::defaults(model_type).max_position_embeddings;
        let attention_bias = ["llama", "qwen3"].contains(&model_type) && json.flag("attention_bias", false)?;
        Ok(Self {
            intermediate_size: json.size("intermediate_size")?,
            rms_norm_eps: json.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope: json.rope(10_000.0)?,
            qkv_bias: attention_bias || model_type == "qwen2",
            o_bias: attention_bias,
            mlp_bias: model_type == "llama" && json.flag("mlp_bias", false)?,
            qk_norm: model_type == "qwen3",
            sliding: json.sliding(slides, longest, |layer| layer >= first)?,
        })
    }

    fn write(&self, config: &ModelConfig) -> Value {
        let mut keys = json!({
            "intermediate_size": self.intermediate_size, "hidden_act": "silu", "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope.theta, "rope_scaling": self.rope.scaling.to_json(),
        });
        if ["llama", "qwen3"].contains(&config.model_type.as_str()) {
            keys["attention_bias"] = json!(self.qkv_bias);
        }
        if config.model_type == "llama" {
            keys["mlp_bias"] = json!(self.mlp_bias);
        } else if let (Value::Object(keys), Value::Object(sliding)) = (&mut keys, self.sliding.to_json()) {
            keys.extend(sliding);
        }
        keys
    }

    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()> {
        checks.size("intermediate_size", self.intermediate_size, 1 << 20)?;
        if config.model_type != "qwen3" {
            checks.divisor("num_attention_heads", config.num_attention_heads, "hidden_size", config.hidden_size)?;
        }
        checks.even("head_dim", config.head_dim)?;
        checks.small("rms_norm_eps", self.rms_norm_eps)?;
        checks.rope(&self.rope)
    }

    fn modules(&self, c: &ModelConfig) -> Vec<Module> {
        let mut block = vec![Module::norm("input_layernorm", c.hidden_size)];
        block.extend(attention(c, Biases { qkv: self.qkv_bias, o: self.o_bias }));
        if self.qk_norm {
            block.extend(head_norms(c));
        }
        block.push(Module::norm("post_attention_layernorm", c.hidden_size));
        block.extend(gated("mlp", self.intermediate_size, c.hidden_size).map(|linear| linear.biased(self.mlp_bias)));
        backbone(c, |_| block.clone())
    }

    fn views(&self, c: &ModelConfig) -> Views {
        self.sliding.views(View::rotary(self.rope.frequencies(c.head_dim)), c.num_hidden_layers)
    }

    fn norms(&self) -> Norms {
        Norms { epsilon: self.rms_norm_eps, plus: 0.0 }
    }

    fn footprint(&self, c: &ModelConfig) -> Footprint {
        let (hidden, inner) = (c.hidden_size, self.intermediate_size);
        let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        // The inputs of both norms; q, k, v and what attention makes of them; gate and up. The rest is computed again.
        let heads = if self.qk_norm { q + kv } else { 0 };
        Footprint { kept: heads + 2 * hidden + 2 * q + 2 * kv + 2 * inner, temporaries: 6 * inner + 4 * hidden }
    }
}

impl<B: LowRankBackend> Backbone<B> for Llama<B> {
    fn embed(&self, ids: Tensor<B, 1, Int>, _: Place<'_>) -> Tensor<B, 2> {
        self.embed_tokens.forward(ids)
    }

    fn embedding_trains(&self) -> bool {
        trains(&self.embed_tokens)
    }

    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let block = &self.layers[layer];
        // What is added to comes first: its memory is nobody else's and takes the sum.
        let x = block.self_attn.forward(block.input_layernorm.forward(x.clone()), at, pass.read()) + x;
        block.mlp.forward(block.post_attention_layernorm.forward(x.clone()), pass) + x
    }

    fn block_unread(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        self.block(layer, x, at, Pass { unread: true, ..pass })
    }

    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.norm.forward(x)
    }

    fn table(&self) -> &Embedding<B> {
        &self.embed_tokens
    }
}

#[cfg(test)]
impl ModelConfig {
    /// The family's own keys, in tests that know the family.
    pub(crate) fn llama(&self) -> &LlamaConfig {
        crate::models::families::Own::of(&self.architecture).unwrap()
    }
}
