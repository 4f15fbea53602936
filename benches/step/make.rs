//! Untrained models of known shapes.

use std::path::Path;

use clap::ValueEnum;
use lowrank::models::{ModelConfig, write_untrained};
use lowrank::{Error, Result};
use serde_json::{Value, json};

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
    /// As `config.json` has it.
    fn config(self) -> Value {
        let (hidden, layers, heads, kv_heads, inner, vocab, tied) = match self {
            Shape::Nano => (128, 4, 4, 4, 344, 512, false),
            Shape::Mini => (288, 6, 6, 6, 768, 32_000, true),
            Shape::Smollm135 => (576, 30, 9, 3, 1536, 49_152, true),
        };
        json!({
            "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "max_position_embeddings": 2048,
            "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 2,
        })
    }
}

pub fn write(shape: Shape, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let config = ModelConfig::from_json(shape.config().to_string().as_bytes(), &dir.join("config.json"))?;
    write_untrained(&config, 0, dir)
}
