//! Hugging Face names and row order for the tensors of a GGUF file.

use crate::models::ModelConfig;

/// Divisors of the rotary frequencies (Llama 3), a constant that stands for part of the configuration.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`. A name we do not know stays as it is and
/// shows up as an extra tensor when the names are compared with the configuration.
pub(super) fn hugging_face_name(name: &str) -> String {
    known_name(name).unwrap_or_else(|| name.to_string())
}

fn known_name(name: &str) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    let module = match stem {
        "token_embd" => "model.embed_tokens".to_string(),
        "output_norm" => "model.norm".to_string(),
        "output" => "lm_head".to_string(),
        _ => {
            let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
            let layer: u32 = layer.parse().ok()?;
            format!("model.layers.{layer}.{}", in_layer(part)?)
        }
    };
    Some(format!("{module}.{kind}"))
}

fn in_layer(part: &str) -> Option<&'static str> {
    Some(match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    })
}

/// How many heads the rows of a tensor are interleaved in, or `None` if they are not: the converter of
/// llama.cpp rearranges weight and bias of q and k of `llama` models, and leaves `qwen2` alone.
pub(super) fn interleaved_heads(name: &str, config: &ModelConfig) -> Option<usize> {
    if config.model_type != "llama" {
        return None;
    }
    let module = name.rsplit_once('.')?.0;
    if module.ends_with("self_attn.q_proj") {
        Some(config.num_attention_heads)
    } else if module.ends_with("self_attn.k_proj") {
        Some(config.num_key_value_heads)
    } else {
        None
    }
}

/// Undoes the rearrangement. Inside a head of size 2n the file has the rows 0, n, 1, n + 1, … that rotate
/// together side by side; Hugging Face has the first halves, then the second halves. `None` if the rows
/// do not divide into `heads` of even size.
pub(super) fn undo_interleaving(values: &[f32], rows: usize, heads: usize) -> Option<Vec<f32>> {
    let half = rows / heads.max(1) / 2;
    if rows == 0 || half * 2 * heads != rows {
        return None;
    }
    let width = values.len() / rows;
    let mut ordered = Vec::with_capacity(values.len());
    for head in 0..heads {
        for part in 0..2 {
            for pair in 0..half {
                let row = (head * half + pair) * 2 + part;
                ordered.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    Some(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_hugging_face() {
        assert_eq!(hugging_face_name("blk.11.ffn_down.weight"), "model.layers.11.mlp.down_proj.weight");
        assert_eq!(hugging_face_name("blk.0.attn_k.bias"), "model.layers.0.self_attn.k_proj.bias");
        assert_eq!(hugging_face_name("output.weight"), "lm_head.weight");
        assert_eq!(hugging_face_name("blk.0.attn_q_norm.weight"), "blk.0.attn_q_norm.weight");
    }

    #[test]
    fn halves_are_gathered_head_by_head() {
        // Two heads of four rows of one value; the file pairs row i with row i + 2 of its head.
        let file = [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0];
        let expected = vec![0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
        assert_eq!(undo_interleaving(&file, 8, 2), Some(expected));
        assert_eq!(undo_interleaving(&file, 8, 8), None);
        assert_eq!(undo_interleaving(&file, 8, 3), None);
    }

    #[test]
    fn only_q_and_k_of_llama_are_rearranged() {
        let config = |model_type: &str| {
            let json = format!(
                r#"{{"model_type":"{model_type}","vocab_size":8,"hidden_size":64,"intermediate_size":8,
                "num_hidden_layers":1,"num_attention_heads":8,"num_key_value_heads":2}}"#
            );
            ModelConfig::from_json(json.as_bytes(), std::path::Path::new("config.json")).unwrap()
        };
        let (llama, qwen) = (config("llama"), config("qwen2"));
        let at = |module: &str| format!("model.layers.0.self_attn.{module}");
        assert_eq!(interleaved_heads(&at("q_proj.weight"), &llama), Some(8));
        assert_eq!(interleaved_heads(&at("k_proj.bias"), &llama), Some(2));
        assert_eq!(interleaved_heads(&at("v_proj.weight"), &llama), None);
        assert_eq!(interleaved_heads(&at("q_proj.weight"), &qwen), None);
    }
}
