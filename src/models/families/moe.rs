//! Sparse mixtures of experts over Llama's attention: Mixtral (Jiang et al. 2024), Qwen2 and Qwen3 MoE (with an expert that all
//! tokens share, or none), and DeepSeek-MoE (Dai et al. 2024).
//!
//! Experts are layers of their own, as in the files. transformers 5 stacks those of one layer in memory.

use burn::tensor::{Int, Tensor, activation};
use lowrank_kernels::{LowRankBackend, swiglu};
use serde::Serialize;
use serde_json::{Value, json};

use super::layers::{Biases, attention, backbone, gated, head_norms};
use super::{Backbone, Defaults, Family, Footprint, Norms, Part, Place, parts};
use crate::Result;
use crate::adapters::Module;
use crate::models::config::Checks;
use crate::models::json::Json;
use crate::models::load::Reader;
use crate::models::{ModelConfig, Rope, Site, Sliding};
use crate::nn::params::trains;
use crate::nn::{At, Attention, Embedding, Linear, Mlp, Pass, RmsNorm, Routing, View, Views};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MoeConfig {
    /// Width of layers without experts.
    pub intermediate_size: usize,
    /// Width of an expert.
    pub moe_intermediate_size: usize,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    /// Whether the weights of the chosen experts are brought to a sum of 1.
    pub norm_topk_prob: bool,
    /// Width of what all tokens go through besides.
    pub shared: Option<usize>,
    /// Whether each layer has experts.
    pub sparse: Vec<bool>,
    pub rms_norm_eps: f64,
    pub rope: Rope,
    pub qkv_bias: bool,
    pub o_bias: bool,
    /// Norms over each head of q and k (Qwen3).
    pub qk_norm: bool,
    pub sliding: Sliding,
}

parts! {
    pub struct Moe<B> {
        pub embed_tokens: Embedding<B>,
        pub layers: Vec<Block<B>>,
        pub norm: RmsNorm<B>,
        pub experts_per_token: usize = |reader: &Reader<'_, B>| {
            reader.own::<MoeConfig>().map_or(0, |own| own.num_experts_per_tok)
        },
        pub normalised: bool = |reader: &Reader<'_, B>| reader.own::<MoeConfig>().is_some_and(|own| own.norm_topk_prob),
    }

    pub struct Block<B> {
        pub input_layernorm: RmsNorm<B>,
        pub self_attn: Attention<B>,
        pub post_attention_layernorm: RmsNorm<B>,
        pub mlp: Option<FeedForward<B>>,
        pub block_sparse_moe: Option<MixtralExperts<B>>,
    }

    /// Mixtral's.
    pub struct MixtralExperts<B> {
        pub gate: Linear<B>,
        pub experts: Vec<MixtralExpert<B>>,
    }

    /// w1 is the gate, w3 goes up, w2 down.
    pub struct MixtralExpert<B> {
        pub w1: Linear<B>,
        pub w2: Linear<B>,
        pub w3: Linear<B>,
    }

    /// Qwen's and DeepSeek's.
    pub struct Experts<B> {
        pub gate: Linear<B>,
        pub experts: Vec<Mlp<B>>,
        pub shared_expert: Option<Mlp<B>>,
        /// What Qwen's shared expert is multiplied by, through a sigmoid.
        pub shared_expert_gate: Option<Linear<B>>,
        /// DeepSeek's name of it.
        pub shared_experts: Option<Mlp<B>>,
    }
}

#[derive(burn::module::Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each layer, and burn has no modules in boxes")]
pub enum FeedForward<B: burn::tensor::backend::Backend> {
    Dense(Mlp<B>),
    Sparse(Experts<B>),
}

impl<B: LowRankBackend> Part<B> for FeedForward<B> {
    fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
        match reader.has(&format!("{path}.gate")) {
            true => Ok(Self::Sparse(Part::read(reader, path)?)),
            false => Ok(Self::Dense(Part::read(reader, path)?)),
        }
    }
    fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
        match self {
            Self::Dense(mlp) => mlp.sites(path, found),
            Self::Sparse(experts) => experts.sites(path, found),
        }
    }
}

impl Family for MoeConfig {
    fn defaults(model_type: &str) -> Defaults {
        let max_position_embeddings = match model_type {
            "mixtral" => 131_072,
            "deepseek" => 2048,
            _ => 32768,
        };
        Defaults { max_position_embeddings, tie_word_embeddings: false, head_dim: None }
    }

    fn read(json: &Json<'_>, model_type: &str) -> Result<Self> {
        json.only("hidden_act", &["silu", "swish"])?;
        json.refuse_partial_rotary()?;
        let slides = match model_type {
            "mixtral" => true,
            "qwen2_moe" | "qwen3_moe" => json.flag("use_sliding_window", false)?,
            _ => false,
        };
        let longest = Self::defaults(model_type).max_position_embeddings;
        // Without a list, every other layer of Qwen2's below `max_window_layers` slides, and all of the others'.
        let below = json.size_or("max_window_layers", 28)?;
        let sliding = json.sliding(slides, longest, |layer| {
            model_type != "qwen2_moe" || (layer.is_multiple_of(2) && layer < below)
        })?;
        // A loss on the router, and noise on its input.
        json.only_flag("output_router_logits", false)?;
        json.only_number("router_jitter_noise", 0.0)?;
        json.only_number("aux_loss_alpha", 0.0)?;
        let qwen2 = model_type == "qwen2_moe";
        let attention_bias = !qwen2 && model_type != "mixtral" && json.flag("attention_bias", false)?;
        let own = Self {
            intermediate_size: json.size("intermediate_size")?,
            moe_intermediate_size: json.size("intermediate_size")?,
            num_experts: 0,
            num_experts_per_tok: json.size_or("num_experts_per_tok", 2)?,
            norm_topk_prob: json.flag("norm_topk_prob", false)?,
            shared: None,
            sparse: vec![true; json.size("num_hidden_layers")?.min(1 << 12)],
            rms_norm_eps: json.number("rms_norm_eps")?.unwrap_or(if model_type == "mixtral" { 1e-5 } else { 1e-6 }),
            rope: json.rope(10_000.0)?,
            qkv_bias: if qwen2 { json.flag("qkv_bias", true)? } else { attention_bias },
            o_bias: attention_bias,
            qk_norm: model_type == "qwen3_moe",
            sliding,
        };
        match model_type {
            "mixtral" => Ok(Self { num_experts: json.size("num_local_experts")?, norm_topk_prob: true, ..own }),
            "deepseek" => own.deepseek(json),
            _ => own.qwen(json, qwen2),
        }
    }

    fn write(&self, config: &ModelConfig) -> Value {
        let mut keys = json!({
            "intermediate_size": self.intermediate_size, "hidden_act": "silu", "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope.theta, "rope_scaling": self.rope.scaling.to_json(),
            "num_experts_per_tok": self.num_experts_per_tok,
        });
        let dense = self.sparse.iter().enumerate().filter(|(_, sparse)| !**sparse).map(|(layer, _)| layer);
        let own = match config.model_type.as_str() {
            "mixtral" => json!({ "num_local_experts": self.num_experts }),
            "deepseek" => json!({
                "n_routed_experts": self.num_experts, "moe_intermediate_size": self.moe_intermediate_size,
                "norm_topk_prob": self.norm_topk_prob, "attention_bias": self.o_bias, "aux_loss_alpha": 0.0,
                "n_shared_experts": self.shared.map(|width| width / self.moe_intermediate_size),
                "first_k_dense_replace": dense.count(), "moe_layer_freq": 1,
            }),
            _ => json!({
                "num_experts": self.num_experts, "moe_intermediate_size": self.moe_intermediate_size,
                "norm_topk_prob": self.norm_topk_prob, "mlp_only_layers": dense.collect::<Vec<_>>(),
                "decoder_sparse_step": 1,
                "shared_expert_intermediate_size": self.shared, "qkv_bias": self.qkv_bias, "attention_bias": self.o_bias,
            }),
        };
        for more in [own, self.sliding.to_json()] {
            if let (Value::Object(keys), Value::Object(more)) = (&mut keys, more) {
                keys.extend(more);
            }
        }
        keys
    }

    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()> {
        checks.size("intermediate_size", self.intermediate_size, 1 << 20)?;
        checks.size("moe_intermediate_size", self.moe_intermediate_size, 1 << 20)?;
        checks.size("num_experts", self.num_experts, 1 << 12)?;
        checks.size("num_experts_per_tok", self.num_experts_per_tok, self.num_experts)?;
        if let Some(width) = self.shared {
            checks.size("width of the shared expert", width, 1 << 20)?;
        }
        checks.even("head_dim", config.head_dim)?;
        checks.small("rms_norm_eps", self.rms_norm_eps)?;
        checks.rope(&self.rope)
    }

    fn modules(&self, c: &ModelConfig) -> Vec<Module> {
        backbone(c, |layer| {
            let mut block = vec![Module::norm("input_layernorm", c.hidden_size)];
            block.extend(attention(c, Biases { qkv: self.qkv_bias, o: self.o_bias }));
            if self.qk_norm {
                block.extend(head_norms(c));
            }
            block.push(Module::norm("post_attention_layernorm", c.hidden_size));
            block.extend(match c.model_type.as_str() {
                "mixtral" => self.mixtral_modules(c.hidden_size),
                _ if self.sparse.get(layer).copied().unwrap_or(false) => self.expert_modules(c),
                _ => gated("mlp", self.intermediate_size, c.hidden_size).to_vec(),
            });
            block
        })
    }

    fn views(&self, c: &ModelConfig) -> Views {
        self.sliding.views(View::rotary(self.rope.frequencies(c.head_dim)), c.num_hidden_layers)
    }

    fn norms(&self) -> Norms {
        Norms { epsilon: self.rms_norm_eps, plus: 0.0 }
    }

    fn footprint(&self, c: &ModelConfig) -> Footprint {
        let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        // Each token is kept once for each of its experts: their input, gate and up, and their result.
        let experts = self.num_experts_per_tok * (2 * c.hidden_size + 2 * self.moe_intermediate_size);
        let inner = 2 * self.shared.unwrap_or(0).max(self.intermediate_size);
        let kept = 2 * c.hidden_size + 2 * q + 2 * kv + experts + inner + 3 * self.num_experts;
        Footprint { kept, temporaries: 3 * inner + 4 * c.hidden_size }
    }
}

impl MoeConfig {
    fn qwen(self, json: &Json<'_>, qwen2: bool) -> Result<Self> {
        let every = json.size_or("decoder_sparse_step", 1)?;
        let dense = json.sizes("mlp_only_layers")?;
        let is_sparse = |layer: usize| !dense.contains(&layer) && (layer + 1).checked_rem(every) == Some(0);
        let experts = json.size_if_any("num_experts")?.map_or_else(|| json.size("num_local_experts"), Ok)?;
        Ok(Self {
            moe_intermediate_size: json.size("moe_intermediate_size")?,
            num_experts: experts,
            shared: qwen2.then(|| json.size("shared_expert_intermediate_size")).transpose()?,
            sparse: (0..self.sparse.len()).map(is_sparse).collect(),
            ..self
        })
    }

    fn deepseek(self, json: &Json<'_>) -> Result<Self> {
        json.only("scoring_func", &["softmax"])?;
        let width = json.size("moe_intermediate_size")?;
        json.only_number("moe_layer_freq", 1.0)?;
        let first = json.size_or("first_k_dense_replace", 0)?;
        Ok(Self {
            moe_intermediate_size: width,
            num_experts: json.size("n_routed_experts")?,
            shared: json.size_if_any("n_shared_experts")?.map(|shared| shared.saturating_mul(width)),
            sparse: (0..self.sparse.len()).map(|layer| layer >= first).collect(),
            ..self
        })
    }

    fn mixtral_modules(&self, hidden: usize) -> Vec<Module> {
        let inner = self.moe_intermediate_size;
        let expert = [
            Module::linear("w1", inner, hidden),
            Module::linear("w2", hidden, inner),
            Module::linear("w3", inner, hidden),
        ];
        let experts = Module::repeated("block_sparse_moe.experts", self.num_experts, |_| expert.to_vec());
        [Module::linear("block_sparse_moe.gate", self.num_experts, hidden)].into_iter().chain(experts).collect()
    }

    fn expert_modules(&self, c: &ModelConfig) -> Vec<Module> {
        let (hidden, width) = (c.hidden_size, self.moe_intermediate_size);
        let mut modules = vec![Module::linear("mlp.gate", self.num_experts, hidden)];
        modules.extend((0..self.num_experts).flat_map(|i| gated(&format!("mlp.experts.{i}"), width, hidden)));
        match self.shared {
            Some(shared) if c.model_type == "deepseek" => modules.extend(gated("mlp.shared_experts", shared, hidden)),
            Some(shared) => {
                modules.extend(gated("mlp.shared_expert", shared, hidden));
                modules.push(Module::linear("mlp.shared_expert_gate", 1, hidden));
            }
            None => {}
        }
        modules
    }
}

impl<B: LowRankBackend> Backbone<B> for Moe<B> {
    fn embed(&self, ids: Tensor<B, 1, Int>, _: Place<'_>) -> Tensor<B, 2> {
        self.embed_tokens.forward(ids)
    }

    fn embedding_trains(&self) -> bool {
        trains(&self.embed_tokens)
    }

    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let block = &self.layers[layer];
        let routing = Routing { experts_per_token: self.experts_per_token, normalised: self.normalised };
        let x = x.clone() + block.self_attn.forward(block.input_layernorm.forward(x), at, pass);
        let y = block.post_attention_layernorm.forward(x.clone());
        match (&block.mlp, &block.block_sparse_moe) {
            (Some(FeedForward::Dense(mlp)), _) => x + mlp.forward(y, pass),
            (Some(FeedForward::Sparse(experts)), _) => x + experts.forward(y, routing, pass),
            (None, Some(experts)) => x + experts.forward(y, routing, pass),
            (None, None) => x,
        }
    }

    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.norm.forward(x)
    }

    fn table(&self) -> &Embedding<B> {
        &self.embed_tokens
    }
}

impl<B: LowRankBackend> MixtralExperts<B> {
    fn forward(&self, x: Tensor<B, 2>, routing: Routing, pass: Pass) -> Tensor<B, 2> {
        let scores = self.gate.forward(x.clone(), pass);
        routing.mixture(
            x,
            scores,
            |e| trains(&self.experts[e]),
            |e, x| {
                let MixtralExpert { w1, w2, w3 } = &self.experts[e];
                w2.forward(swiglu(w1.forward(x.clone(), pass), w3.forward(x, pass)), pass)
            },
        )
    }
}

impl<B: LowRankBackend> Experts<B> {
    fn forward(&self, x: Tensor<B, 2>, routing: Routing, pass: Pass) -> Tensor<B, 2> {
        let scores = self.gate.forward(x.clone(), pass);
        let expert = |e: usize, x| self.experts[e].forward(x, pass);
        let y = routing.mixture(x.clone(), scores, |e| trains(&self.experts[e]), expert);
        match (&self.shared_expert, &self.shared_expert_gate, &self.shared_experts) {
            (Some(shared), Some(gate), _) => {
                y + shared.forward(x.clone(), pass) * activation::sigmoid(gate.forward(x, pass))
            }
            (_, _, Some(shared)) => y + shared.forward(x, pass),
            _ => y,
        }
    }
}
