//! Modules under the names that most families took from Llama, each list once.

use crate::adapters::Module;
use crate::models::ModelConfig;

/// Everything below the head, around the modules of each block.
pub(super) fn backbone(c: &ModelConfig, block: impl Fn(usize) -> Vec<Module>) -> Vec<Module> {
    let mut modules = vec![Module::embedding("embed_tokens", c.vocab_size, c.hidden_size)];
    modules.extend(Module::repeated("layers", c.num_hidden_layers, block));
    modules.push(Module::norm("norm", c.hidden_size));
    modules
}

/// Where a block's attention has biases.
#[derive(Clone, Copy, Default)]
pub(super) struct Biases {
    pub qkv: bool,
    pub o: bool,
}

/// The products of a block's attention.
pub(super) fn attention(c: &ModelConfig, biases: Biases) -> [Module; 4] {
    let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
    [
        Module::linear("self_attn.q_proj", q, c.hidden_size).biased(biases.qkv),
        Module::linear("self_attn.k_proj", kv, c.hidden_size).biased(biases.qkv),
        Module::linear("self_attn.v_proj", kv, c.hidden_size).biased(biases.qkv),
        Module::linear("self_attn.o_proj", c.hidden_size, q).biased(biases.o),
    ]
}

/// The norms over each head of q and k.
pub(super) fn head_norms(c: &ModelConfig) -> [Module; 2] {
    ["q_norm", "k_norm"].map(|name| Module::norm(&format!("self_attn.{name}"), c.head_dim))
}

/// The products of a gated layer.
pub(super) fn gated(path: &str, inner: usize, hidden: usize) -> [Module; 3] {
    let shapes = [("gate_proj", inner, hidden), ("up_proj", inner, hidden), ("down_proj", hidden, inner)];
    shapes.map(|(name, out, inputs)| Module::linear(&format!("{path}.{name}"), out, inputs))
}
