//! `config.json` of the families we know, checked before anything is allocated.

use serde::Serialize;

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
