//! The layers of T5, under the names of its files.

#![allow(non_snake_case)]

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, activation};
use lowrank_kernels::LowRankBackend;

use super::T5Config;
use crate::Result;
use crate::models::Site;
use crate::models::families::{Backbone, Part, Place, join, parts};
use crate::models::load::Reader;
use crate::nn::params::trains;
use crate::nn::{At, AtStack, Embedding, Gate, Linear, Pass, RmsNorm, Stack};

parts! {
    pub struct T5<B> {
        pub shared: Embedding<B>,
        pub encoder: Encoder<B>,
        pub decoder: Decoder<B>,
        /// What the decoder's states are multiplied by.
        pub scale: Option<f64> = |reader: &Reader<'_, B>| {
            let scales = reader.own::<T5Config>().is_some_and(|own| own.scale_decoder_outputs);
            scales.then(|| (reader.config.hidden_size as f64).powf(-0.5))
        },
    }

    pub struct Encoder<B> {
        pub block: Vec<EncoderBlock<B>>,
        pub final_layer_norm: RmsNorm<B>,
    }

    pub struct Decoder<B> {
        pub block: Vec<DecoderBlock<B>>,
        pub final_layer_norm: RmsNorm<B>,
    }

    pub struct EncoderBlock<B> {
        pub layer: (SelfLayer<B>, FeedForwardLayer<B>),
    }

    pub struct DecoderBlock<B> {
        pub layer: (SelfLayer<B>, CrossLayer<B>, FeedForwardLayer<B>),
    }

    pub struct SelfLayer<B> {
        pub layer_norm: RmsNorm<B>,
        pub SelfAttention: Attention<B>,
    }

    pub struct CrossLayer<B> {
        pub layer_norm: RmsNorm<B>,
        pub EncDecAttention: Attention<B>,
    }

    pub struct FeedForwardLayer<B> {
        pub layer_norm: RmsNorm<B>,
        pub DenseReluDense: FeedForward<B>,
    }

    pub struct Attention<B> {
        pub q: Linear<B>,
        pub k: Linear<B>,
        pub v: Linear<B>,
        pub o: Linear<B>,
        /// For all blocks of a stack, in its first.
        pub relative_attention_bias: Option<Embedding<B>>,
        pub heads: usize = |reader: &Reader<'_, B>| reader.config.num_attention_heads,
    }

    pub struct Plain<B> {
        pub wi: Linear<B>,
        pub wo: Linear<B>,
    }

    pub struct Gated<B> {
        pub wi_0: Linear<B>,
        pub wi_1: Linear<B>,
        pub wo: Linear<B>,
    }
}

#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each block, and burn has no modules in boxes")]
pub enum FeedForward<B: Backend> {
    Plain(Plain<B>),
    Gated(Gated<B>),
}

impl<B: LowRankBackend> Part<B> for FeedForward<B> {
    fn read(reader: &mut Reader<'_, B>, path: &str) -> Result<Self> {
        Ok(match reader.has(&join(path, "wi")) {
            true => Self::Plain(Part::read(reader, path)?),
            false => Self::Gated(Part::read(reader, path)?),
        })
    }

    fn sites<'a>(&'a mut self, path: &str, found: &mut Vec<(String, Site<'a, B>)>) {
        match self {
            Self::Plain(plain) => plain.sites(path, found),
            Self::Gated(gated) => gated.sites(path, found),
        }
    }
}

impl<B: LowRankBackend> Backbone<B> for T5<B> {
    fn embed(&self, ids: Tensor<B, 1, Int>, _: Place<'_>) -> Tensor<B, 2> {
        self.shared.forward(ids)
    }

    fn embedding_trains(&self) -> bool {
        trains(&self.shared)
    }

    /// Blocks of the encoder change its tokens, those of the decoder the others.
    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let Some(at) = at.stack() else { unreachable!("its views are of stacks") };
        let (view, encoders) = (at.view, &self.encoder.block);
        match encoders.get(layer) {
            Some(block) => view.change(x, |own| {
                let own = block.forward(own, at, encoders[0].table(), pass);
                if layer + 1 == encoders.len() { self.encoder.final_layer_norm.forward(own) } else { own }
            }),
            None => {
                let decoders = &self.decoder.block;
                let block = &decoders[layer - encoders.len()];
                view.change(x.clone(), |own| block.forward(own, x, at, decoders[0].table(), pass))
            }
        }
    }

    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let x = self.decoder.final_layer_norm.forward(x);
        match self.scale {
            Some(scale) => x.mul_scalar(scale),
            None => x,
        }
    }

    fn table(&self) -> &Embedding<B> {
        &self.shared
    }
}

impl<B: LowRankBackend> EncoderBlock<B> {
    fn table(&self) -> Option<&Embedding<B>> {
        self.layer.0.SelfAttention.relative_attention_bias.as_ref()
    }

    fn forward(
        &self,
        x: Tensor<B, 2>,
        mut at: AtStack<'_, B>,
        table: Option<&Embedding<B>>,
        pass: Pass,
    ) -> Tensor<B, 2> {
        let (attention, feed_forward) = &self.layer;
        let x = attention.forward(x, &mut at, table, pass);
        feed_forward.forward(x, pass)
    }
}

impl<B: LowRankBackend> DecoderBlock<B> {
    fn table(&self) -> Option<&Embedding<B>> {
        self.layer.0.SelfAttention.relative_attention_bias.as_ref()
    }

    /// `own` are the decoder's tokens of `all`.
    fn forward(
        &self,
        own: Tensor<B, 2>,
        all: Tensor<B, 2>,
        mut at: AtStack<'_, B>,
        table: Option<&Embedding<B>>,
        pass: Pass,
    ) -> Tensor<B, 2> {
        let (attention, cross, feed_forward) = &self.layer;
        let x = attention.forward(own, &mut at, table, pass.over(Stack::Decoder));
        let x = cross.forward(x, all, &mut at, pass);
        feed_forward.forward(x, pass.over(Stack::Decoder))
    }
}

impl<B: LowRankBackend> SelfLayer<B> {
    fn forward(
        &self,
        x: Tensor<B, 2>,
        at: &mut AtStack<'_, B>,
        table: Option<&Embedding<B>>,
        pass: Pass,
    ) -> Tensor<B, 2> {
        let Attention { q, k, v, o, heads, .. } = &self.SelfAttention;
        let y = self.layer_norm.forward(x.clone());
        let qkv = [q, k, v].map(|product| product.forward(y.clone(), pass));
        x + o.forward(at.own(qkv, *heads, table), pass)
    }
}

impl<B: LowRankBackend> CrossLayer<B> {
    /// Queries are of the decoder, keys and values of the encoder's tokens of `all`.
    fn forward(&self, x: Tensor<B, 2>, all: Tensor<B, 2>, at: &mut AtStack<'_, B>, pass: Pass) -> Tensor<B, 2> {
        let Attention { q, k, v, o, heads, .. } = &self.EncDecAttention;
        let (view, own) = (at.view, pass.over(Stack::Decoder));
        let q = q.forward(self.layer_norm.forward(x.clone()), own);
        let read = || {
            let source = view.of(Stack::Encoder, all);
            [k, v].map(|product| product.forward(source.clone(), pass.over(Stack::Encoder)))
        };
        x + o.forward(at.source(q, *heads, read), own)
    }
}

impl<B: LowRankBackend> FeedForwardLayer<B> {
    fn forward(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        let y = self.layer_norm.forward(x.clone());
        x + match &self.DenseReluDense {
            FeedForward::Plain(Plain { wi, wo }) => wo.forward(activation::relu(wi.forward(y, pass)), pass),
            FeedForward::Gated(Gated { wi_0, wi_1, wo }) => {
                let gate = wi_0.forward(y.clone(), pass);
                wo.forward(Gate::Gelu.open(gate, wi_1.forward(y, pass)), pass)
            }
        }
    }
}
