//! Published configurations by name: of each `config.json` what sizes follow from.

use crate::Error;
use crate::models::{EMBEDDED, embedded};
use crate::recipe::nearest;

const MODELS: &[(&str, &str)] = &[
    (
        "llama-3.2-1b",
        r#"{ "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "tie_word_embeddings": true }"#,
    ),
    (
        "llama-3.2-3b",
        r#"{ "model_type": "llama", "vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
        "num_attention_heads": 24, "num_key_value_heads": 8, "max_position_embeddings": 131072, "tie_word_embeddings": true }"#,
    ),
    (
        "llama-3.1-8b",
        r#"{ "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "tie_word_embeddings": false }"#,
    ),
    (
        "llama-2-7b",
        r#"{ "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096, "tie_word_embeddings": false }"#,
    ),
    (
        "smollm2-135m",
        r#"{ "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": true }"#,
    ),
    (
        "deepseek-llm-7b",
        r#"{ "model_type": "llama", "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096, "tie_word_embeddings": false }"#,
    ),
    (
        "mistral-7b",
        r#"{ "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768, "tie_word_embeddings": false }"#,
    ),
    (
        "mixtral-8x7b",
        r#"{ "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768, "tie_word_embeddings": false,
        "num_local_experts": 8, "num_experts_per_tok": 2 }"#,
    ),
    (
        "qwen2.5-0.5b",
        r#"{ "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": true }"#,
    ),
    (
        "qwen2.5-1.5b",
        r#"{ "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 131072, "tie_word_embeddings": true }"#,
    ),
    (
        "qwen2.5-3b",
        r#"{ "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": true }"#,
    ),
    (
        "qwen2.5-7b",
        r#"{ "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 131072, "tie_word_embeddings": false }"#,
    ),
    (
        "qwen3-0.6b",
        r#"{ "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "max_position_embeddings": 40960, "tie_word_embeddings": true, "head_dim": 128 }"#,
    ),
    (
        "qwen3-8b",
        r#"{ "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 40960, "tie_word_embeddings": false, "head_dim": 128 }"#,
    ),
    (
        "gemma-3-1b",
        r#"{ "model_type": "gemma3_text", "vocab_size": 262144, "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "max_position_embeddings": 32768 }"#,
    ),
    (
        "glm-4-9b",
        r#"{ "model_type": "glm", "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40,
        "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "attention_bias": true, "max_position_embeddings": 131072 }"#,
    ),
    (
        "chatglm-6b",
        r#"{ "model_type": "chatglm", "vocab_size": 130528, "hidden_size": 4096, "inner_hidden_size": 16384, "num_layers": 28,
        "max_sequence_length": 2048 }"#,
    ),
    (
        "bloom-560m",
        r#"{ "model_type": "bloom", "vocab_size": 250880, "hidden_size": 1024, "n_layer": 24, "n_head": 16 }"#,
    ),
    (
        "bloom-7b1",
        r#"{ "model_type": "bloom", "vocab_size": 250880, "hidden_size": 4096, "n_layer": 30, "n_head": 32 }"#,
    ),
    (
        "gpt2",
        r#"{ "model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024 }"#,
    ),
    (
        "gpt2-medium",
        r#"{ "model_type": "gpt2", "vocab_size": 50257, "n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 1024 }"#,
    ),
    (
        "bert-base",
        r#"{ "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 512, "type_vocab_size": 2 }"#,
    ),
    (
        "roberta-base",
        r#"{ "model_type": "roberta", "vocab_size": 50265, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "pad_token_id": 1, "max_position_embeddings": 514, "type_vocab_size": 1 }"#,
    ),
    (
        "roberta-large",
        r#"{ "model_type": "roberta", "vocab_size": 50265, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "pad_token_id": 1, "max_position_embeddings": 514, "type_vocab_size": 1 }"#,
    ),
];

/// Every name, those of embedded models first.
pub fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|model| model.name).chain(MODELS.iter().map(|(name, _)| *name))
}

/// The `config.json` of that name.
pub(super) fn find(name: &str) -> Option<&'static [u8]> {
    let published = || MODELS.iter().find(|(known, _)| *known == name).map(|(_, config)| config.as_bytes());
    embedded(name).map(|model| model.config_json).or_else(published)
}

/// For a name that is none of ours, and nothing on disk. Of `organisation/name`, as the hub has it, the name may be one of ours.
pub(super) fn unknown(name: &str) -> Error {
    let known = names().collect::<Vec<_>>().join(", ");
    let error = Error::input(format!("no such model: {name}"));
    let error = error.expected(format!("a config.json, its directory, a .gguf file, or one of {known}"));
    let last = name.rsplit('/').next().unwrap_or(name);
    match nearest(last, names()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")).into(),
        None => error.into(),
    }
}
