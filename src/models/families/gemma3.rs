//! Gemma 3's text model (Gemma Team 2025): norms around both parts of a block and on queries and keys, and most layers seeing a
//! window alone, with a rotation of their own.

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
use crate::models::load::Reader;
use crate::models::{ModelConfig, Rope, RopeScaling};
use crate::nn::params::trains;
use crate::nn::{At, Attention, AttentionForm, Embedding, Gate, Mlp, Pass, RmsNorm, View, Views};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gemma3Config {
    pub intermediate_size: usize,
    pub rms_norm_eps: f64,
    /// Scores are divided by its root.
    pub query_pre_attn_scalar: f64,
    /// What sliding layers see, the token itself included.
    pub sliding_window: usize,
    /// Whether each layer slides.
    pub sliding: Vec<bool>,
    /// Of layers that see everything.
    pub rope: Rope,
    /// Rotary base of layers that slide.
    pub local_theta: f64,
}

parts! {
    pub struct Gemma3<B> {
        pub embed_tokens: Embedding<B>,
        pub layers: Vec<Block<B>>,
        pub norm: RmsNorm<B>,
        /// What embeddings are multiplied by.
        pub scale: f64 = |reader: &Reader<'_, B>| (reader.config.hidden_size as f64).sqrt(),
    }

    pub struct Block<B> {
        pub input_layernorm: RmsNorm<B>,
        pub self_attn: Attention<B>,
        pub post_attention_layernorm: RmsNorm<B>,
        pub pre_feedforward_layernorm: RmsNorm<B>,
        pub mlp: Mlp<B>,
        pub post_feedforward_layernorm: RmsNorm<B>,
    }
}

impl Family for Gemma3Config {
    fn defaults(_: &str) -> Defaults {
        Defaults { max_position_embeddings: 131_072, tie_word_embeddings: true, head_dim: Some(256) }
    }

    fn read(json: &Json<'_>, _: &str) -> Result<Self> {
        json.only("hidden_activation", &["gelu_pytorch_tanh"])?;
        json.only_flag("attention_bias", false)?;
        json.only_flag("use_bidirectional_attention", false)?;
        json.absent("final_logit_softcapping")?;
        let per_kind = json.rope_of("sliding_attention", 10_000.0)?.zip(json.rope_of("full_attention", 1e6)?);
        let (local, rope) = match per_kind {
            Some(ropes) => ropes,
            None => {
                let theta = json.number("rope_local_base_freq")?.unwrap_or(10_000.0);
                (Rope { theta, scaling: RopeScaling::Default }, json.rope(1e6)?)
            }
        };
        if local.scaling != RopeScaling::Default {
            return Err(json.refusal("rope_parameters", "unsupported scaling of layers that slide", "default"));
        }
        let pattern = json.size_or("sliding_window_pattern", 6)?;
        let slides = |layer: usize| (layer + 1).checked_rem(pattern).is_some_and(|left| left != 0);
        Ok(Self {
            intermediate_size: json.size("intermediate_size")?,
            rms_norm_eps: json.number("rms_norm_eps")?.unwrap_or(1e-6),
            query_pre_attn_scalar: json.number("query_pre_attn_scalar")?.unwrap_or(256.0),
            sliding_window: json.size_or("sliding_window", 4096)?,
            sliding: json.layer_types(slides)?,
            rope,
            local_theta: local.theta,
        })
    }

    fn write(&self, _: &ModelConfig) -> Value {
        let kind = |slides: &bool| if *slides { "sliding_attention" } else { "full_attention" };
        json!({
            "intermediate_size": self.intermediate_size, "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": self.rms_norm_eps, "query_pre_attn_scalar": self.query_pre_attn_scalar,
            "sliding_window": self.sliding_window, "layer_types": self.sliding.iter().map(kind).collect::<Vec<_>>(),
            "rope_theta": self.rope.theta, "rope_scaling": self.rope.scaling.to_json(),
            "rope_local_base_freq": self.local_theta,
        })
    }

    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()> {
        checks.size("intermediate_size", self.intermediate_size, 1 << 20)?;
        checks.size("sliding_window", self.sliding_window, 1 << 26)?;
        checks.even("head_dim", config.head_dim)?;
        checks.small("rms_norm_eps", self.rms_norm_eps)?;
        checks.positive("query_pre_attn_scalar", self.query_pre_attn_scalar)?;
        checks.positive("rope_local_base_freq", self.local_theta)?;
        checks.rope(&self.rope)
    }

    fn modules(&self, c: &ModelConfig) -> Vec<Module> {
        let norm = |name: &str| [Module::norm(name, c.hidden_size)];
        let mut block = norm("input_layernorm").to_vec();
        block.extend(attention(c, Biases::default()));
        block.extend(head_norms(c));
        block.extend(norm("post_attention_layernorm"));
        block.extend(norm("pre_feedforward_layernorm"));
        block.extend(gated("mlp", self.intermediate_size, c.hidden_size));
        block.extend(norm("post_feedforward_layernorm"));
        backbone(c, |_| block.clone())
    }

    fn views(&self, c: &ModelConfig) -> Views {
        let local = Rope { theta: self.local_theta, scaling: RopeScaling::Default };
        let everything = View::rotary(self.rope.frequencies(c.head_dim));
        let window = View { window: Some(self.sliding_window), ..View::rotary(local.frequencies(c.head_dim)) };
        Views { kinds: vec![everything, window], of_layer: self.sliding.iter().map(|&slides| slides.into()).collect() }
    }

    fn norms(&self) -> Norms {
        Norms { epsilon: self.rms_norm_eps, plus: 1.0 }
    }

    fn attention(&self) -> AttentionForm {
        AttentionForm { scale: Some(self.query_pre_attn_scalar), ..AttentionForm::default() }
    }

    fn gate(&self) -> Gate {
        Gate::Gelu
    }

    fn footprint(&self, c: &ModelConfig) -> Footprint {
        let (hidden, inner) = (c.hidden_size, self.intermediate_size);
        let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        // The inputs of four norms; q and k before and after theirs, v, the scaled q and what attention makes of them; gate, up
        // and what the activation keeps.
        Footprint { kept: 4 * hidden + 4 * q + 3 * kv + 8 * inner, temporaries: 6 * inner + 4 * hidden }
    }
}

impl<B: LowRankBackend> Backbone<B> for Gemma3<B> {
    fn embed(&self, ids: Tensor<B, 1, Int>, _: Place<'_>) -> Tensor<B, 2> {
        self.embed_tokens.forward(ids).mul_scalar(self.scale)
    }

    fn embedding_trains(&self) -> bool {
        trains(&self.embed_tokens)
    }

    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let block = &self.layers[layer];
        let y = block.self_attn.forward(block.input_layernorm.forward(x.clone()), at, pass);
        let x = x + block.post_attention_layernorm.forward(y);
        let y = block.mlp.forward(block.pre_feedforward_layernorm.forward(x.clone()), pass);
        x + block.post_feedforward_layernorm.forward(y)
    }

    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.norm.forward(x)
    }

    fn table(&self) -> &Embedding<B> {
        &self.embed_tokens
    }
}
