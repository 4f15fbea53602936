//! The model's configuration from the metadata of a GGUF file.

use super::metadata::Metadata;
use crate::models::families::LlamaConfig;
use crate::models::{ModelConfig, Rope, RopeScaling, Sliding};
use crate::recipe::Task;
use crate::{Error, Result};

/// `shape` looks a tensor up by its Hugging Face name; `rope_factors` is `rope_freqs.weight`.
pub(super) fn config(
    metadata: &Metadata,
    rope_factors: Option<&[f32]>,
    shape: impl Fn(&str) -> Option<Vec<usize>>,
) -> Result<ModelConfig> {
    let arch = architecture(metadata)?;
    let key = |name: &str| format!("{arch}.{name}");
    let size = |name: &str| metadata.needed_size(&key(name));
    let hidden_size = size("embedding_length")?;
    let heads = size("attention.head_count")?;
    let head_dim = match metadata.size(&key("attention.key_length"))? {
        Some(length) => length,
        None => hidden_size.checked_div(heads).unwrap_or(0),
    };
    let embedding = shape("model.embed_tokens.weight");
    let vocab_size = embedding
        .and_then(|shape| shape.first().copied())
        .ok_or_else(|| Error::input("no token embedding").file(metadata.path()).tensor("token_embd.weight"))?;
    let bias = |module: &str| shape(&format!("model.layers.0.{module}.bias")).is_some();
    let theta = metadata.number(&key("rope.freq_base"))?.unwrap_or(10000.0);
    let family = LlamaConfig {
        intermediate_size: size("feed_forward_length")?,
        rms_norm_eps: metadata
            .number(&key("attention.layer_norm_rms_epsilon"))?
            .ok_or_else(|| metadata.error(&key("attention.layer_norm_rms_epsilon"), "missing from the metadata"))?,
        rope: Rope { theta, scaling: RopeScaling::Default },
        qkv_bias: bias("self_attn.q_proj"),
        o_bias: bias("self_attn.o_proj"),
        mlp_bias: bias("mlp.gate_proj"),
        qk_norm: false,
        sliding: Sliding::default(),
    };
    let config = ModelConfig {
        model_type: arch.to_string(),
        vocab_size,
        hidden_size,
        num_hidden_layers: size("block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: metadata.size(&key("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        max_position_embeddings: size("context_length")?,
        tie_word_embeddings: shape("lm_head.weight").is_none(),
        bos_token_id: metadata.token_id("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: end_tokens(metadata)?,
        pad_token_id: metadata.token_id("tokenizer.ggml.padding_token_id")?,
        task: Task::CausalLm,
        labels: Vec::new(),
        architecture: family.clone().into(),
    };
    config.check(metadata.path())?;
    refuse_other_maths(metadata, &config)?;
    let scaling = scaling(metadata, &config, theta, rope_factors)?;
    let architecture = LlamaConfig { rope: Rope { theta, scaling }, ..family }.into();
    Ok(ModelConfig { architecture, ..config })
}

fn architecture(metadata: &Metadata) -> Result<&str> {
    let arch = metadata.text("general.architecture")?.unwrap_or_default();
    if !["llama", "qwen2"].contains(&arch) {
        let error = metadata.error("general.architecture", "unsupported architecture");
        return Err(error.found(format!("{arch:?}")).expected("llama or qwen2").into());
    }
    match metadata.text("general.type")? {
        Some(kind) if kind != "model" => {
            Err(metadata.error("general.type", "not a model").found(kind).expected("model").into())
        }
        _ => Ok(arch),
    }
}

/// End of text, and end of turn where the file names one.
fn end_tokens(metadata: &Metadata) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        ids.extend(metadata.token_id(key)?.filter(|id| !ids.contains(id)));
    }
    Ok(ids)
}

fn refuse_other_maths(metadata: &Metadata, config: &ModelConfig) -> Result<()> {
    let key = |name: &str| format!("{}.{name}", config.model_type);
    for (name, plain) in
        [("rope.dimension_count", config.head_dim), ("attention.value_length", config.head_dim), ("expert_count", 0)]
    {
        if let Some(found) = metadata.size(&key(name))?.filter(|&found| found != plain) {
            return Err(metadata.error(&key(name), "unsupported").found(found).expected(plain).into());
        }
    }
    let longest = config.max_position_embeddings;
    if let Some(window) = metadata.size(&key("attention.sliding_window"))?.filter(|&w| w > 0 && w < longest) {
        let error = metadata.error(&key("attention.sliding_window"), "sliding-window attention is not implemented");
        return Err(error.found(window).expected(format!("none, or at least {longest}")).into());
    }
    if let Some(parts) = metadata.size("split.count")?.filter(|&parts| parts > 1) {
        let error = metadata.error("split.count", "GGUF files in several parts are not read").found(parts);
        return Err(error.hint("join the parts with `llama-gguf-split --merge`").into());
    }
    Ok(())
}

fn scaling(metadata: &Metadata, config: &ModelConfig, theta: f64, rope_factors: Option<&[f32]>) -> Result<RopeScaling> {
    let key = |name: &str| format!("{}.rope.{name}", config.model_type);
    let kind = metadata.text(&key("scaling.type"))?;
    let factor = match metadata.number(&key("scaling.factor"))? {
        Some(factor) => Some(factor),
        None => metadata.number(&key("scale_linear"))?,
    };
    match (kind, factor, rope_factors) {
        (None | Some("none"), _, Some(factors)) => llama3(metadata, config, theta, factors),
        (Some("none"), _, None) | (None, None, None) => Ok(RopeScaling::Default),
        (None | Some("linear"), Some(factor), None) if factor.is_finite() && factor > 0.0 => {
            Ok(if factor == 1.0 { RopeScaling::Default } else { RopeScaling::Linear { factor } })
        }
        _ => {
            let found = format!("type {kind:?}, factor {factor:?}, rope_freqs {}", rope_factors.is_some());
            let error = metadata.error(&key("scaling.type"), "unsupported rotary scaling").found(found);
            Err(error.expected("none, linear, or the frequency factors of Llama 3").into())
        }
    }
}

/// The converter stores the result of Llama 3's scaling, one divisor per frequency, and not its
/// parameters. Every published Llama 3 has the same ones but for the factor, which is the largest divisor.
fn llama3(metadata: &Metadata, config: &ModelConfig, theta: f64, stored: &[f32]) -> Result<RopeScaling> {
    let largest = f64::from(stored.iter().copied().fold(0.0, f32::max));
    let (low, high, original) = (1.0, 4.0, 8192);
    let divisor = |i: usize| {
        let exponent = 2.0 * i as f64 / config.head_dim as f64;
        let turns = original as f64 / (std::f64::consts::TAU * theta.powf(exponent));
        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / ((1.0 - smooth) / largest + smooth)
    };
    let close = |(i, &value): (usize, &f32)| (divisor(i) - f64::from(value)).abs() <= 1e-3 * divisor(i);
    if stored.len() * 2 != config.head_dim || !largest.is_finite() || !stored.iter().enumerate().all(close) {
        let error = Error::input("unknown rotary frequency factors").file(metadata.path());
        let error =
            error.tensor(super::tensors::ROPE_FACTORS).expected("those of Llama 3 (low 1, high 4, original 8192)");
        return Err(error.hint("open the Hugging Face directory of this model instead").into());
    }
    Ok(RopeScaling::Llama3 {
        factor: largest,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::super::header::Value;
    use super::*;

    fn fields(arch: &str) -> HashMap<String, Value> {
        let sizes = [
            ("context_length", 128),
            ("embedding_length", 64),
            ("block_count", 2),
            ("feed_forward_length", 160),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
        ];
        let mut all: HashMap<_, _> =
            sizes.into_iter().map(|(key, size)| (format!("{arch}.{key}"), Value::Int(size))).collect();
        all.insert("general.architecture".into(), Value::Text(arch.into()));
        all.insert(format!("{arch}.attention.layer_norm_rms_epsilon"), Value::Float(1e-6));
        all
    }

    fn parse(fields: HashMap<String, Value>, factors: Option<&[f32]>, tensors: &[&str]) -> Result<ModelConfig> {
        config(&Metadata::new(fields, Path::new("m.gguf")), factors, |name| {
            (name == "model.embed_tokens.weight" || tensors.contains(&name)).then(|| vec![512, 64])
        })
    }

    fn llama_with(key: &str, value: Value) -> Result<ModelConfig> {
        let mut fields = fields("llama");
        fields.insert(key.into(), value);
        parse(fields, None, &[])
    }

    #[test]
    fn tensors_tell_the_biases_and_the_head() {
        let llama = parse(fields("llama"), None, &[]).unwrap();
        let own = llama.llama();
        assert!(llama.tie_word_embeddings && !own.qkv_bias && !own.o_bias && !own.mlp_bias);
        let tensors = ["model.layers.0.self_attn.q_proj.bias", "lm_head.weight"];
        let qwen = parse(fields("qwen2"), None, &tensors).unwrap();
        assert_eq!((qwen.model_type.as_str(), qwen.head_dim, qwen.vocab_size), ("qwen2", 16, 512));
        assert!(qwen.llama().qkv_bias && !qwen.llama().o_bias && !qwen.tie_word_embeddings);
    }

    #[test]
    fn both_kinds_of_end_token_end_a_generation() {
        let mut fields = fields("llama");
        fields.insert("tokenizer.ggml.eos_token_id".into(), Value::Int(2));
        fields.insert("tokenizer.ggml.eot_token_id".into(), Value::Int(5));
        assert_eq!(parse(fields, None, &[]).unwrap().eos_token_ids, [2, 5]);
    }

    #[test]
    fn scaling_is_linear_or_found_in_the_frequency_factors() {
        let linear = llama_with("llama.rope.scaling.factor", Value::Float(4.0)).unwrap();
        assert_eq!(linear.llama().rope.scaling, RopeScaling::Linear { factor: 4.0 });

        // Llama 3.2's factor 32 over heads of 16, from the formula in the model's own documentation.
        let mut fields = fields("llama");
        fields.insert("llama.rope.freq_base".into(), Value::Float(5e5));
        let factors = [1.0, 1.0, 1.0, 1.0, 3.292_262, 32.0, 32.0, 32.0];
        let scaling = parse(fields.clone(), Some(&factors), &[]).unwrap().llama().rope.scaling.clone();
        let expected = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        assert_eq!(scaling, expected);
        for wrong in [&factors[..7], &[2.0; 8], &[f32::NAN; 8], &[0.0; 8], &[]] {
            let message = parse(fields.clone(), Some(wrong), &[]).unwrap_err().to_string();
            assert!(message.contains("rope_freqs.weight"), "{message}");
        }
    }

    #[test]
    fn other_maths_is_refused_by_name() {
        for (key, value) in [
            ("general.architecture", Value::Text("gemma".into())),
            ("general.type", Value::Text("adapter".into())),
            ("llama.attention.head_count", Value::Int(0)),
            ("llama.attention.head_count", Value::Ints(vec![4, 4])),
            ("llama.feed_forward_length", Value::Int(-1)),
            ("llama.block_count", Value::Text("2".into())),
            ("llama.rope.dimension_count", Value::Int(8)),
            ("llama.rope.freq_base", Value::Float(f64::NAN)),
            ("llama.rope.scaling.type", Value::Text("yarn".into())),
            ("llama.expert_count", Value::Int(8)),
            ("llama.attention.sliding_window", Value::Int(64)),
            ("split.count", Value::Int(2)),
            ("tokenizer.ggml.eos_token_id", Value::Int(512)),
        ] {
            let message = llama_with(key, value).unwrap_err().to_string();
            let plain = key.rsplit('.').next().unwrap_or(key);
            let known = ["head_count", "num_attention_heads", "rope_theta", "eos_token_id"];
            let named = message.contains(plain) || known.iter().any(|name| message.contains(name));
            assert!(named && message.contains("m.gguf"), "{key}: {message}");
        }
    }
}
