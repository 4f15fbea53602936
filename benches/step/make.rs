//! Untrained models of known shapes.

use std::path::Path;

use clap::ValueEnum;
use lowrank::models::{ModelConfig, Rope, RopeScaling, write_untrained};
use lowrank::{Error, Result};

#[derive(Clone, Copy, ValueEnum)]
pub enum Shape {
    /// 0.9 million parameters.
    Nano,
    /// 15 million.
    Mini,
    /// SmolLM2-135M.
    Smollm135,
}

impl Shape {
    fn config(self) -> ModelConfig {
        let (hidden, layers, heads, kv_heads, inner, vocab, tied) = match self {
            Shape::Nano => (128, 4, 4, 4, 344, 512, false),
            Shape::Mini => (288, 6, 6, 6, 768, 32_000, true),
            Shape::Smollm135 => (576, 30, 9, 3, 1536, 49_152, true),
        };
        ModelConfig {
            model_type: "llama".into(),
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: inner,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: hidden / heads,
            rms_norm_eps: 1e-5,
            max_position_embeddings: 2048,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default },
            tie_word_embeddings: tied,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            pad_token_id: None,
        }
    }
}

pub fn write(shape: Shape, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    write_untrained(&shape.config(), 0, dir)
}
