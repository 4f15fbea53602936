//! GLM-4 (GLM Team 2024): a part of each head rotates, neighbouring dimensions together; gate and up are one product. The
//! 0414 models (`glm4`) have two norms more, on what each part gives.

use burn::tensor::{Int, Tensor};
use lowrank_kernels::LowRankBackend;
use serde::Serialize;
use serde_json::{Value, json};

use super::layers::{Biases, attention, backbone};
use super::{Backbone, Defaults, Family, Footprint, Norms, Place, parts};
use crate::Result;
use crate::adapters::Module;
use crate::models::config::Checks;
use crate::models::json::Json;
use crate::models::{ModelConfig, Rope};
use crate::nn::params::trains;
use crate::nn::{At, Attention, AttentionForm, Embedding, FusedMlp, Pairs, Pass, RmsNorm, View, Views};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GlmConfig {
    pub intermediate_size: usize,
    pub rms_norm_eps: f64,
    pub rope: Rope,
    /// How much of each head rotates.
    pub partial_rotary_factor: f64,
    /// Bias on q, k and v.
    pub attention_bias: bool,
    /// Norms on what attention and feed-forward layer give (`glm4`).
    pub post_norms: bool,
}

parts! {
    pub struct Glm<B> {
        pub embed_tokens: Embedding<B>,
        pub layers: Vec<Block<B>>,
        pub norm: RmsNorm<B>,
    }

    pub struct Block<B> {
        pub input_layernorm: RmsNorm<B>,
        pub self_attn: Attention<B>,
        pub post_self_attn_layernorm: Option<RmsNorm<B>>,
        /// Before the feed-forward layer.
        pub post_attention_layernorm: RmsNorm<B>,
        pub mlp: FusedMlp<B>,
        pub post_mlp_layernorm: Option<RmsNorm<B>>,
    }
}

impl GlmConfig {
    /// Dimensions of a head that rotate.
    fn rotated(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.partial_rotary_factor) as usize
    }
}

impl Family for GlmConfig {
    fn defaults(_: &str) -> Defaults {
        Defaults { max_position_embeddings: 131_072, tie_word_embeddings: false, head_dim: Some(128) }
    }

    fn read(json: &Json<'_>, model_type: &str) -> Result<Self> {
        json.only("hidden_act", &["silu", "swish"])?;
        let (rope, partial) = json.partial_rope(10_000.0, 0.5)?;
        Ok(Self {
            intermediate_size: json.size("intermediate_size")?,
            rms_norm_eps: json.number("rms_norm_eps")?.unwrap_or(1.5625e-7),
            rope,
            partial_rotary_factor: partial,
            attention_bias: json.flag("attention_bias", true)?,
            post_norms: model_type == "glm4",
        })
    }

    fn write(&self, _: &ModelConfig) -> Value {
        json!({
            "intermediate_size": self.intermediate_size, "hidden_act": "silu", "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope.theta, "rope_scaling": self.rope.scaling.to_json(),
            "partial_rotary_factor": self.partial_rotary_factor, "attention_bias": self.attention_bias,
        })
    }

    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()> {
        checks.size("intermediate_size", self.intermediate_size, 1 << 20)?;
        checks.even("head_dim", config.head_dim)?;
        checks.small("rms_norm_eps", self.rms_norm_eps)?;
        if !(self.partial_rotary_factor > 0.0 && self.partial_rotary_factor <= 1.0) {
            return checks.fault("partial_rotary_factor", self.partial_rotary_factor, "above 0, at most 1");
        }
        checks.even("head_dim * partial_rotary_factor", self.rotated(config.head_dim))?;
        checks.rope(&self.rope)
    }

    fn modules(&self, c: &ModelConfig) -> Vec<Module> {
        let (hidden, inner) = (c.hidden_size, self.intermediate_size);
        let post = |name: &str| self.post_norms.then(|| Module::norm(name, hidden));
        let mut block = vec![Module::norm("input_layernorm", hidden)];
        block.extend(attention(c, Biases { qkv: self.attention_bias, o: false }));
        block.extend(post("post_self_attn_layernorm"));
        block.push(Module::norm("post_attention_layernorm", hidden));
        block.push(Module::linear("mlp.gate_up_proj", 2 * inner, hidden));
        block.push(Module::linear("mlp.down_proj", hidden, inner));
        block.extend(post("post_mlp_layernorm"));
        backbone(c, |_| block.clone())
    }

    fn views(&self, c: &ModelConfig) -> Views {
        let mut frequencies = self.rope.frequencies(self.rotated(c.head_dim));
        frequencies.resize(c.head_dim / 2, 0.0);
        Views::alike(View::rotary(frequencies), c.num_hidden_layers)
    }

    fn norms(&self) -> Norms {
        Norms { epsilon: self.rms_norm_eps, plus: 0.0 }
    }

    fn attention(&self) -> AttentionForm {
        AttentionForm { pairs: Pairs::Neighbours, ..AttentionForm::default() }
    }

    fn footprint(&self, c: &ModelConfig) -> Footprint {
        let (hidden, inner) = (c.hidden_size, self.intermediate_size);
        let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        // The inputs of the norms; q, k, v and what attention makes of them; gate and up, together and apart.
        let norms = if self.post_norms { 4 } else { 2 };
        Footprint { kept: norms * hidden + 2 * q + 2 * kv + 4 * inner, temporaries: 6 * inner + 4 * hidden }
    }
}

impl<B: LowRankBackend> Backbone<B> for Glm<B> {
    fn embed(&self, ids: Tensor<B, 1, Int>, _: Place<'_>) -> Tensor<B, 2> {
        self.embed_tokens.forward(ids)
    }

    fn embedding_trains(&self) -> bool {
        trains(&self.embed_tokens)
    }

    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let block = &self.layers[layer];
        let normed = |norm: &Option<RmsNorm<B>>, y: Tensor<B, 2>| match norm {
            Some(norm) => norm.forward(y),
            None => y,
        };
        let y = block.self_attn.forward(block.input_layernorm.forward(x.clone()), at, pass);
        let x = x + normed(&block.post_self_attn_layernorm, y);
        let y = block.mlp.forward(block.post_attention_layernorm.forward(x.clone()), pass);
        x + normed(&block.post_mlp_layernorm, y)
    }

    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.norm.forward(x)
    }

    fn table(&self) -> &Embedding<B> {
        &self.embed_tokens
    }
}
