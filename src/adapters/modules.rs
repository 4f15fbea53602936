//! The modules of a model that an adapter can attach to or train whole, under their Hugging Face paths.

use crate::models::ModelConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    Linear,
    Embedding,
    /// The output embedding: a linear layer that `all-linear` leaves out.
    Head,
    /// A vector of scales. It carries no adapter; it trains whole or not at all.
    Norm,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// `model.layers.0.self_attn.q_proj`
    pub path: String,
    pub kind: ModuleKind,
    /// Rows of the stored weight: outputs of a linear layer, tokens of an embedding.
    pub rows: usize,
    /// Columns of the stored weight: inputs of a linear layer, width of an embedding; 1 for a norm.
    pub cols: usize,
}

impl Module {
    /// Every module of a decoder of the Llama family, in forward order.
    pub fn list(config: &ModelConfig) -> Vec<Module> {
        let module = |path: String, kind, rows, cols| Module { path, kind, rows, cols };
        let (hidden, inner, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let layers = [
            ("input_layernorm", ModuleKind::Norm, hidden, 1),
            ("self_attn.q_proj", ModuleKind::Linear, queries, hidden),
            ("self_attn.k_proj", ModuleKind::Linear, keys, hidden),
            ("self_attn.v_proj", ModuleKind::Linear, keys, hidden),
            ("self_attn.o_proj", ModuleKind::Linear, hidden, queries),
            ("post_attention_layernorm", ModuleKind::Norm, hidden, 1),
            ("mlp.gate_proj", ModuleKind::Linear, inner, hidden),
            ("mlp.up_proj", ModuleKind::Linear, inner, hidden),
            ("mlp.down_proj", ModuleKind::Linear, hidden, inner),
        ];
        let mut modules = vec![module("model.embed_tokens".into(), ModuleKind::Embedding, vocab, hidden)];
        for layer in 0..config.num_hidden_layers {
            modules.extend(
                layers.map(|(name, kind, rows, cols)| module(format!("model.layers.{layer}.{name}"), kind, rows, cols)),
            );
        }
        modules.push(module("model.norm".into(), ModuleKind::Norm, hidden, 1));
        modules.push(module("lm_head".into(), ModuleKind::Head, vocab, hidden));
        modules
    }

    /// Last segment of the path: `q_proj`.
    pub fn leaf(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// Whether an adapter can attach to it.
    pub fn is_adaptable(&self) -> bool {
        self.kind != ModuleKind::Norm
    }

    /// Shape of the stored weight.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self.kind {
            ModuleKind::Norm => vec![self.rows],
            _ => vec![self.rows, self.cols],
        }
    }

    /// Whether a linear layer of this name has a bias in the model.
    pub fn is_biased(&self, config: &ModelConfig) -> bool {
        match self.leaf() {
            "q_proj" | "k_proj" | "v_proj" => config.qkv_bias,
            "o_proj" => config.o_bias,
            "gate_proj" | "up_proj" | "down_proj" => config.mlp_bias,
            _ => false,
        }
    }

    /// Whether `name` is this module's path or ends it at a dot.
    pub fn is_named(&self, name: &str) -> bool {
        self.path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// The two tiny models under `tests/golden/e2e`.
#[cfg(test)]
pub(crate) mod tiny {
    use crate::models::{ModelConfig, Rope, RopeScaling};

    pub(crate) fn llama() -> ModelConfig {
        ModelConfig {
            model_type: "llama".into(),
            vocab_size: 512,
            hidden_size: 96,
            intermediate_size: 256,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 24,
            rms_norm_eps: 1e-5,
            max_position_embeddings: 128,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default },
            tie_word_embeddings: false,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            pad_token_id: Some(0),
        }
    }

    pub(crate) fn qwen2() -> ModelConfig {
        ModelConfig {
            model_type: "qwen2".into(),
            hidden_size: 64,
            intermediate_size: 160,
            head_dim: 16,
            rms_norm_eps: 1e-6,
            rope: Rope { theta: 1e6, scaling: RopeScaling::Default },
            tie_word_embeddings: true,
            qkv_bias: true,
            pad_token_id: None,
            ..llama()
        }
    }
}
