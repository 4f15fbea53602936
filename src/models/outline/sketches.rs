//! Models that are described here for their size alone: no family runs them. A row goes when its family comes.

use super::Outline;
use crate::Result;
use crate::adapters::Module;
use crate::models::families::Footprint;
use crate::models::json::Json;

struct Sketch {
    model_type: &'static str,
    default_targets: &'static [&'static str],
    read: fn(&Json<'_>) -> Result<Outline>,
}

const SKETCHES: [Sketch; 1] = [Sketch { model_type: "chatglm", default_targets: &["query_key_value"], read: chatglm }];

const VOCABULARY: usize = 1 << 24;
const HIDDEN: usize = 1 << 18;
const LAYERS: usize = 1 << 12;
const INNER: usize = 1 << 20;

/// None of a `model_type` that is not sketched here.
pub(super) fn read(model_type: &str, json: &Json<'_>) -> Result<Option<Outline>> {
    let Some(sketch) = SKETCHES.iter().find(|sketch| sketch.model_type == model_type) else { return Ok(None) };
    let (model_type, default_targets) = (model_type.to_string(), sketch.default_targets);
    Ok(Some(Outline { model_type, default_targets, ..(sketch.read)(json)? }))
}

pub(super) fn names() -> String {
    SKETCHES.map(|sketch| sketch.model_type).join(", ")
}

/// Reads sizes of keys, each with the largest that is not taken for a slip: products of them must not overflow.
fn sizes<const N: usize>(json: &Json<'_>, keys: [(&str, usize); N]) -> Result<[usize; N]> {
    let mut sizes = [0; N];
    for (size, (key, limit)) in sizes.iter_mut().zip(keys) {
        *size = json.size(key)?;
        if !(1..=limit).contains(size) {
            return Err(json.refusal(key, "this cannot be", &format!("1 to {limit}")));
        }
    }
    Ok(sizes)
}

/// ChatGLM-6B (Zeng et al. 2022): GLM's blocks without gates, a bias everywhere. The head is the embedding table, as PEFT counts it.
fn chatglm(json: &Json<'_>) -> Result<Outline> {
    let keys = [
        ("vocab_size", VOCABULARY),
        ("hidden_size", HIDDEN),
        ("num_layers", LAYERS),
        ("inner_hidden_size", INNER),
        ("max_sequence_length", VOCABULARY),
    ];
    let [vocab_size, hidden, layers, inner, positions] = sizes(json, keys)?;
    let block = [
        Module::layer_norm("input_layernorm", hidden),
        Module::linear("attention.query_key_value", 3 * hidden, hidden).biased(true),
        Module::linear("attention.dense", hidden, hidden).biased(true),
        Module::layer_norm("post_attention_layernorm", hidden),
        Module::linear("mlp.dense_h_to_4h", inner, hidden).biased(true),
        Module::linear("mlp.dense_4h_to_h", hidden, inner).biased(true),
    ];
    let mut modules = vec![Module::embedding("transformer.word_embeddings", vocab_size, hidden)];
    modules.extend(Module::repeated("transformer.layers", layers, |_| block.to_vec()));
    modules.push(Module::layer_norm("transformer.final_layernorm", hidden));
    modules.push(Module::head("lm_head", vocab_size, hidden));
    Ok(Outline {
        tie_word_embeddings: true,
        // Inputs and intermediates of two norms; q, k, v and what attention makes of them; the activation's.
        footprint: Footprint { kept: 12 * hidden + 6 * inner, temporaries: 6 * inner + 4 * hidden },
        ..outline(modules, [vocab_size, hidden, layers, positions])
    })
}

fn outline(modules: Vec<Module>, [vocab_size, hidden_size, num_hidden_layers, positions]: [usize; 4]) -> Outline {
    Outline {
        model_type: String::new(),
        modules,
        tie_word_embeddings: false,
        scores: 0,
        vocab_size,
        hidden_size,
        num_hidden_layers,
        max_position_embeddings: positions,
        footprint: Footprint { kept: 0, temporaries: 0 },
        quant: None,
        default_targets: &[],
    }
}
