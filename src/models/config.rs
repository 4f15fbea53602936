//! What a decoder-only transformer of the Llama family looks like, checked before anything is allocated.

use std::path::Path;

use serde::Serialize;

use crate::{Error, Result};

/// A decoder-only transformer of the Llama family (Llama, SmolLM, TinyLlama, Mistral, Qwen2).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// `llama`, `mistral`, `qwen2`.
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub max_position_embeddings: usize,
    pub rope: Rope,
    pub tie_word_embeddings: bool,
    /// Bias on q, k and v (Qwen2, or `attention_bias`).
    pub qkv_bias: bool,
    /// Bias on o (`attention_bias`).
    pub o_bias: bool,
    pub mlp_bias: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum RopeScaling {
    Default,
    Linear { factor: f64 },
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position_embeddings: usize },
}

impl ModelConfig {
    /// Refuses dimensions that cannot be, or that no machine could hold, naming the `config.json` key.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let fault = |key: &str, found: String, expected: String| -> Result<()> {
            Err(Error::input("this cannot be").file(path).key(key).found(found).expected(expected).into())
        };
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 18),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 12),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 26),
        ];
        for (key, size, limit) in sizes {
            if size == 0 || size > limit {
                return fault(key, size.to_string(), format!("1 to {limit}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size {}", self.hidden_size);
            return fault("num_attention_heads", self.num_attention_heads.to_string(), expected);
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let expected = format!("a divisor of num_attention_heads {}", self.num_attention_heads);
            return fault("num_key_value_heads", self.num_key_value_heads.to_string(), expected);
        }
        if !self.head_dim.is_multiple_of(2) {
            return fault("head_dim", self.head_dim.to_string(), "an even number, halves are rotated".into());
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return fault("rms_norm_eps", self.rms_norm_eps.to_string(), "between 0 and 1".into());
        }
        let ids = [("bos_token_id", self.bos_token_id), ("pad_token_id", self.pad_token_id)];
        let eos = self.eos_token_ids.iter().map(|&id| ("eos_token_id", Some(id)));
        for (key, id) in ids.into_iter().chain(eos) {
            if id.is_some_and(|id| id as usize >= self.vocab_size) {
                let expected = format!("below vocab_size {}", self.vocab_size);
                return fault(key, id.unwrap_or_default().to_string(), expected);
            }
        }
        self.rope.check(path)
    }

    /// Name and shape of every tensor the checkpoint must hold, in the order of the layers.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        let linears = [
            ("self_attn.q_proj", q, hidden, self.qkv_bias),
            ("self_attn.k_proj", kv, hidden, self.qkv_bias),
            ("self_attn.v_proj", kv, hidden, self.qkv_bias),
            ("self_attn.o_proj", hidden, q, self.o_bias),
            ("mlp.gate_proj", inner, hidden, self.mlp_bias),
            ("mlp.up_proj", inner, hidden, self.mlp_bias),
            ("mlp.down_proj", hidden, inner, self.mlp_bias),
        ];
        let mut all = vec![("model.embed_tokens.weight".to_string(), vec![self.vocab_size, hidden])];
        for layer in 0..self.num_hidden_layers {
            for (module, out, input, bias) in linears {
                all.push((format!("model.layers.{layer}.{module}.weight"), vec![out, input]));
                all.extend(bias.then(|| (format!("model.layers.{layer}.{module}.bias"), vec![out])));
            }
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                all.push((format!("model.layers.{layer}.{norm}.weight"), vec![hidden]));
            }
        }
        all.push(("model.norm.weight".to_string(), vec![hidden]));
        if !self.tie_word_embeddings {
            all.push(("lm_head.weight".to_string(), vec![self.vocab_size, hidden]));
        }
        all
    }
}

impl Rope {
    fn check(&self, path: &Path) -> Result<()> {
        let mut positive = vec![("rope_theta", self.theta)];
        match self.scaling {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } => positive.push(("rope_scaling.factor", factor)),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                positive.push(("rope_scaling.factor", factor));
                positive.push(("rope_scaling.low_freq_factor", low_freq_factor));
                positive.push(("rope_scaling.high_freq_factor - low_freq_factor", high_freq_factor - low_freq_factor));
                let original = original_max_position_embeddings as f64;
                positive.push(("rope_scaling.original_max_position_embeddings", original));
            }
        }
        match positive.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            Some((key, value)) => Err(Error::input("this cannot be")
                .file(path)
                .key(key)
                .found(value)
                .expected("a positive number")
                .into()),
            None => Ok(()),
        }
    }
}
