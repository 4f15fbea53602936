//! The Llama architecture (Touvron et al. 2023): Llama, SmolLM, TinyLlama, Mistral, and Qwen2 with its q, k and v biases.
//!
//! Field names are the checkpoint's tensor names.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use lowrank_kernels::{AttentionLayout, LowRankBackend, cross_entropy, swiglu};

use crate::nn::{Attention, Embedding, LayerCache, Linear, NewTokens, Pass, RmsNorm, Weight};

/// `model.*` and `lm_head`.
#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    pub model: Decoder<B>,
    /// Absent when the head is the embedding table itself.
    pub lm_head: Option<Linear<B>>,
}

#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    pub embed_tokens: Embedding<B>,
    pub layers: Vec<Block<B>>,
    pub norm: RmsNorm<B>,
}

#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    pub input_layernorm: RmsNorm<B>,
    pub self_attn: Attention<B>,
    pub post_attention_layernorm: RmsNorm<B>,
    pub mlp: Mlp<B>,
}

/// `down(silu(gate(x)) ⊙ up(x))` (Shazeer 2020).
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    pub gate_proj: Linear<B>,
    pub up_proj: Linear<B>,
    pub down_proj: Linear<B>,
}

impl<B: LowRankBackend> Llama<B> {
    pub fn device(&self) -> B::Device {
        self.model.norm.weight.device()
    }

    /// Bytes of all weights as stored, a tied head counted once.
    pub fn bytes(&self) -> u64 {
        let linear =
            |linear: &Linear<B>| linear.weight.bytes() + linear.bias.as_ref().map_or(0, |b| 4 * b.dims()[0] as u64);
        let norm = |norm: &RmsNorm<B>| 4 * norm.weight.dims()[0] as u64;
        let block = |block: &Block<B>| {
            let (a, m) = (&block.self_attn, &block.mlp);
            let linears = [&a.q_proj, &a.k_proj, &a.v_proj, &a.o_proj, &m.gate_proj, &m.up_proj, &m.down_proj];
            linears.map(linear).iter().sum::<u64>()
                + norm(&block.input_layernorm)
                + norm(&block.post_attention_layernorm)
        };
        self.model.embed_tokens.weight.bytes()
            + self.model.layers.iter().map(block).sum::<u64>()
            + norm(&self.model.norm)
            + self.lm_head.as_ref().map_or(0, linear)
    }

    /// Hidden states after the last block, before the final norm: `[n] → [n, hidden]`.
    pub fn blocks(&self, ids: Tensor<B, 1, Int>, layout: &AttentionLayout<B>, pass: Pass) -> Tensor<B, 2> {
        let x = self.model.embed_tokens.forward(ids);
        self.model.layers.iter().fold(x, |x, block| block.forward(x, layout, pass))
    }

    /// The same for new tokens of one row, reading and extending a cache of one entry per layer.
    pub fn cached_blocks(
        &self,
        ids: Tensor<B, 1, Int>,
        new: &NewTokens<B>,
        cache: &mut [Option<LayerCache<B>>],
    ) -> Tensor<B, 2> {
        let x = self.model.embed_tokens.forward(ids);
        self.model.layers.iter().zip(cache).fold(x, |x, (block, cache)| block.cached(x, new, cache))
    }

    /// Final norm and output head: `[n, hidden] → [n, vocab]`.
    pub fn head(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        self.logits(self.model.norm.forward(x), pass)
    }

    fn logits(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        match &self.lm_head {
            Some(head) => head.forward(x, pass),
            None => self.model.embed_tokens.weight.matmul(x),
        }
    }

    /// Summed negative log-likelihood `[1]` of `targets [n]`, from `x [n, hidden]` as [`Self::head`] takes it.
    pub fn loss(&self, x: Tensor<B, 2>, targets: Tensor<B, 1, Int>, pass: Pass) -> Tensor<B, 1> {
        let x = self.model.norm.forward(x);
        match self.frozen_head() {
            Some(weight) => weight.loss(x, targets),
            None => cross_entropy(self.logits(x, pass), targets),
        }
    }

    /// The output matrix, where nothing of the head trains and nothing is added to its product.
    fn frozen_head(&self) -> Option<&Weight<B>> {
        let weight = match &self.lm_head {
            Some(Linear { weight, bias: None, adapter: None }) => weight,
            Some(_) => return None,
            None => &self.model.embed_tokens.weight,
        };
        (!weight.trains()).then_some(weight)
    }
}

impl<B: LowRankBackend> Block<B> {
    /// `[n, hidden] → [n, hidden]`.
    pub fn forward(&self, x: Tensor<B, 2>, layout: &AttentionLayout<B>, pass: Pass) -> Tensor<B, 2> {
        let x = x.clone() + self.self_attn.forward(self.input_layernorm.forward(x), layout, pass);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x), pass)
    }

    fn cached(&self, x: Tensor<B, 2>, new: &NewTokens<B>, cache: &mut Option<LayerCache<B>>) -> Tensor<B, 2> {
        let x = x.clone() + self.self_attn.cached(self.input_layernorm.forward(x), new, cache);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x), Pass::EVAL)
    }
}

impl<B: LowRankBackend> Mlp<B> {
    fn forward(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        let gate = self.gate_proj.forward(x.clone(), pass);
        self.down_proj.forward(swiglu(gate, self.up_proj.forward(x, pass)), pass)
    }
}
