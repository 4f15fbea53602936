//! T5 (Raffel et al. 2020): an encoder, and a decoder that reads it, with distances told by a table and no biases. Version 1.1 and
//! Flan-T5 have a gated feed-forward layer and a head of their own.

mod layers;

pub use layers::T5;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Aliases, Defaults, Family, Footprint, HeadForm, HeadLayer, Norms, Reads, SOFTMAX};
use crate::Result;
use crate::adapters::Module;
use crate::models::ModelConfig;
use crate::models::config::Checks;
use crate::models::json::Json;
use crate::nn::{Buckets, Stack, View, Views};
use crate::recipe::Task;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct T5Config {
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    pub num_decoder_layers: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    /// Whether the feed-forward layers have a gate, with GELU, and not ReLU.
    pub gated: bool,
    /// Whether the decoder's states are divided by the root of their width before the head.
    pub scale_decoder_outputs: bool,
    pub layer_norm_epsilon: f64,
    pub decoder_start_token_id: u32,
}

impl T5Config {
    fn buckets(&self, stack: Stack) -> Buckets {
        let (count, max_distance) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        Buckets { stack, count, max_distance }
    }

    /// The modules of attention `name`, number `at` of a block.
    fn attention(c: &ModelConfig, at: usize, name: &str) -> Vec<Module> {
        let (inner, hidden) = (c.num_attention_heads * c.head_dim, c.hidden_size);
        let linear = |(leaf, out, inputs)| Module::linear(&format!("layer.{at}.{name}.{leaf}"), out, inputs);
        let products = [("q", inner, hidden), ("k", inner, hidden), ("v", inner, hidden), ("o", hidden, inner)];
        let norm = Module::norm(&format!("layer.{at}.layer_norm"), hidden);
        [norm].into_iter().chain(products.map(linear)).collect()
    }

    fn self_attention(&self, c: &ModelConfig, block: usize) -> Vec<Module> {
        let mut modules = Self::attention(c, 0, "SelfAttention");
        if block == 0 {
            let path = "layer.0.SelfAttention.relative_attention_bias";
            modules.push(Module::embedding(path, self.relative_attention_num_buckets, c.num_attention_heads));
        }
        modules
    }

    fn feed_forward(&self, c: &ModelConfig, at: usize) -> Vec<Module> {
        let (inner, hidden) = (self.d_ff, c.hidden_size);
        let first: &[&str] = if self.gated { &["wi_0", "wi_1"] } else { &["wi"] };
        let linear =
            |leaf: &str, out, inputs| Module::linear(&format!("layer.{at}.DenseReluDense.{leaf}"), out, inputs);
        let norm = Module::norm(&format!("layer.{at}.layer_norm"), hidden);
        let first = first.iter().map(|leaf| linear(leaf, inner, hidden));
        [norm].into_iter().chain(first).chain([linear("wo", hidden, inner)]).collect()
    }
}

impl Family for T5Config {
    fn aliases() -> Aliases {
        &[
            ("hidden_size", "d_model"),
            ("num_hidden_layers", "num_layers"),
            ("num_attention_heads", "num_heads"),
            ("head_dim", "d_kv"),
            ("num_key_value_heads", ""),
            // Distances have no end; `n_positions` of old files is what the model was trained on.
            ("max_position_embeddings", ""),
        ]
    }

    fn defaults(_: &str) -> Defaults {
        Defaults { max_position_embeddings: 1 << 20, tie_word_embeddings: true, head_dim: Some(64) }
    }

    fn read(json: &Json<'_>, _: &str) -> Result<Self> {
        json.only("feed_forward_proj", &["relu", "gated-gelu"])?;
        let gated = json.text("feed_forward_proj")? == Some("gated-gelu");
        json.only("dense_act_fn", &[if gated { "gelu_new" } else { "relu" }])?;
        json.only_flag("is_gated_act", gated)?;
        json.only_flag("scalable_attention", false)?;
        json.only_flag("is_decoder", false)?;
        // Files from before the key tell by the head: version 1.0 ties it, and scales.
        let scaled = json.flag("tie_word_embeddings", true)?;
        let start = json.ids("decoder_start_token_id")?.first().or(json.ids("pad_token_id")?.first()).copied();
        Ok(Self {
            d_ff: json.size("d_ff")?,
            num_decoder_layers: json.size_or("num_decoder_layers", json.size("num_hidden_layers")?)?,
            relative_attention_num_buckets: json.size_or("relative_attention_num_buckets", 32)?,
            relative_attention_max_distance: json.size_or("relative_attention_max_distance", 128)?,
            gated,
            scale_decoder_outputs: json.flag("scale_decoder_outputs", scaled)?,
            layer_norm_epsilon: json.number("layer_norm_epsilon")?.unwrap_or(1e-6),
            decoder_start_token_id: start.unwrap_or(0),
        })
    }

    fn write(&self, config: &ModelConfig) -> Value {
        let [projection, activation] = if self.gated { ["gated-gelu", "gelu_new"] } else { ["relu", "relu"] };
        json!({
            "d_ff": self.d_ff, "num_decoder_layers": self.num_decoder_layers,
            "relative_attention_num_buckets": self.relative_attention_num_buckets,
            "relative_attention_max_distance": self.relative_attention_max_distance,
            "feed_forward_proj": projection, "dense_act_fn": activation, "is_gated_act": self.gated,
            // A scale under a head that is not tied is only believed where the key says tied.
            "tie_word_embeddings": config.tie_word_embeddings || self.scale_decoder_outputs,
            "scale_decoder_outputs": self.scale_decoder_outputs, "layer_norm_epsilon": self.layer_norm_epsilon,
            "decoder_start_token_id": self.decoder_start_token_id, "is_encoder_decoder": true,
        })
    }

    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()> {
        checks.size("d_ff", self.d_ff, 1 << 20)?;
        checks.size("num_decoder_layers", self.num_decoder_layers, 1 << 12)?;
        let (buckets, furthest) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if !(4..=1 << 16).contains(&buckets) {
            return checks.fault("relative_attention_num_buckets", buckets, "4 to 65536");
        }
        if furthest <= buckets / 2 || furthest > 1 << 26 {
            let expected = format!("more than half of relative_attention_num_buckets {buckets}");
            return checks.fault("relative_attention_max_distance", furthest, expected);
        }
        if self.decoder_start_token_id as usize >= config.vocab_size {
            let expected = format!("below vocab_size {}", config.vocab_size);
            return checks.fault("decoder_start_token_id", self.decoder_start_token_id, expected);
        }
        checks.small("layer_norm_epsilon", self.layer_norm_epsilon)
    }

    fn modules(&self, c: &ModelConfig) -> Vec<Module> {
        let encoder = |block| [self.self_attention(c, block), self.feed_forward(c, 1)].concat();
        let decoder = |block| {
            [self.self_attention(c, block), Self::attention(c, 1, "EncDecAttention"), self.feed_forward(c, 2)].concat()
        };
        let mut modules = vec![Module::embedding("shared", c.vocab_size, c.hidden_size)];
        modules.extend(Module::repeated("encoder.block", c.num_hidden_layers, encoder));
        modules.push(Module::norm("encoder.final_layer_norm", c.hidden_size));
        modules.extend(Module::repeated("decoder.block", self.num_decoder_layers, decoder));
        modules.push(Module::norm("decoder.final_layer_norm", c.hidden_size));
        modules
    }

    fn head(&self, c: &ModelConfig, task: Task) -> Option<HeadForm> {
        let layers = vec![HeadLayer::last("lm_head", c.vocab_size, c.hidden_size)];
        (task == Task::Seq2seqLm).then_some(HeadForm { root: "", layers, reads: Reads::Every })
    }

    fn is_tied_by_weights(&self) -> bool {
        true
    }

    fn decoder_start(&self) -> Option<u32> {
        Some(self.decoder_start_token_id)
    }

    fn ignored(&self) -> &'static [&'static str] {
        // Copies of the table, and what the first versions stored for nothing.
        &[
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            "EncDecAttention.relative_attention_bias.weight",
        ]
    }

    fn views(&self, c: &ModelConfig) -> Views {
        let kinds = [Stack::Encoder, Stack::Decoder].map(|stack| View::stack(self.buckets(stack)));
        let of_layer = [vec![0; c.num_hidden_layers], vec![1; self.num_decoder_layers]].concat();
        Views { kinds: kinds.to_vec(), of_layer }
    }

    fn norms(&self) -> Norms {
        Norms { epsilon: self.layer_norm_epsilon, plus: 0.0 }
    }

    fn footprint(&self, c: &ModelConfig) -> Footprint {
        let (hidden, inner) = (c.hidden_size, c.num_attention_heads * c.head_dim);
        // Of both stacks in the mean: the inputs of two or three norms, a result, and the tokens of both put together again; q, k, v
        // and what attention makes of them, or two; the activation's parts.
        let wide = if self.gated { 8 } else { 2 };
        Footprint { kept: 5 * hidden + 9 * inner + wide * self.d_ff, temporaries: 6 * self.d_ff + 4 * hidden }
    }

    fn scores(&self, c: &ModelConfig) -> usize {
        // A decoder's tokens have two attentions; there are fewer of them, and of each other.
        (SOFTMAX + 1) * c.num_attention_heads
    }
}
