//! What a program does with a model, whatever its family.

use burn::tensor::{Int, Tensor};
use lowrank_kernels::{LowRankBackend, cross_entropy};

use super::Model;
use crate::adapters::Adapter;
use crate::models::Site;
use crate::nn::{At, Embedding, LayerCache, Layout, Linear, NewTokens, Pass, Weight};

/// The forward pass of a causal language model, in the steps that recomputation and caching need apart.
pub trait Decoder<B: LowRankBackend> {
    /// What the first block gets for tokens `ids [n]` at `position [n]`, `[n, hidden]`.
    fn embed(&self, ids: Tensor<B, 1, Int>, position: &[i32]) -> Tensor<B, 2>;
    /// Whether anything that [`Self::embed`] uses trains.
    fn embedding_trains(&self) -> bool;
    /// Block number `layer`, `[n, hidden] → [n, hidden]`.
    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2>;
    /// The norm between the last block and the head.
    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2>;
    /// The output head, absent where it is the embedding table itself, and that table.
    fn head(&self) -> (&Option<Linear<B>>, &Embedding<B>);
    fn head_mut(&mut self) -> (&mut Option<Linear<B>>, &mut Embedding<B>);
}

impl<B: LowRankBackend> Model<B> {
    /// See [`Decoder::embed`].
    pub fn embed(&self, ids: Tensor<B, 1, Int>, position: &[i32]) -> Tensor<B, 2> {
        self.decoder().embed(ids, position)
    }

    /// See [`Decoder::embedding_trains`].
    pub fn embedding_trains(&self) -> bool {
        self.decoder().embedding_trains()
    }

    /// Block number `layer`, `[n, hidden] → [n, hidden]`.
    pub fn block(&self, layer: usize, x: Tensor<B, 2>, layout: &Layout<B>, pass: Pass) -> Tensor<B, 2> {
        self.decoder().block(layer, x, layout.at(layer), pass)
    }

    /// Hidden states after the last block, before the final norm: `[n] → [n, hidden]`.
    pub fn blocks(&self, ids: Tensor<B, 1, Int>, layout: &Layout<B>, pass: Pass) -> Tensor<B, 2> {
        let x = self.embed(ids, &layout.position);
        (0..layout.layers()).fold(x, |x, layer| self.block(layer, x, layout, pass))
    }

    /// The same for new tokens of one row, reading and extending a cache of one entry per layer.
    pub fn cached_blocks(
        &self,
        ids: Tensor<B, 1, Int>,
        new: &NewTokens<B>,
        cache: &mut [Option<LayerCache<B>>],
    ) -> Tensor<B, 2> {
        let (x, decoder) = (self.embed(ids, &new.position), self.decoder());
        let caches = cache.iter_mut().enumerate();
        caches.fold(x, |x, (layer, cache)| decoder.block(layer, x, new.at(layer, cache), Pass::EVAL))
    }

    /// Final norm and output head: `[n, hidden] → [n, vocab]`.
    pub fn head(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        self.logits(self.decoder().norm(x), pass)
    }

    fn logits(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        match self.decoder().head() {
            (Some(head), _) => head.forward(x, pass),
            (None, embedding) => embedding.weight.matmul(x),
        }
    }

    /// Summed negative log-likelihood `[1]` of `targets [n]`, from `x [n, hidden]` as [`Self::head`] takes it.
    pub fn loss(&self, x: Tensor<B, 2>, targets: Tensor<B, 1, Int>, pass: Pass) -> Tensor<B, 1> {
        let x = self.decoder().norm(x);
        match self.frozen_head() {
            Some(weight) => weight.loss(x, targets),
            None => cross_entropy(self.logits(x, pass), targets),
        }
    }

    /// The output matrix, where nothing of the head trains and nothing is added to its product.
    fn frozen_head(&self) -> Option<&Weight<B>> {
        let weight = match self.decoder().head() {
            (Some(Linear { weight, bias: None, adapter: None }), _) => weight,
            (Some(_), _) => return None,
            (None, embedding) => &embedding.weight,
        };
        (!weight.trains()).then_some(weight)
    }

    /// Every layer with its path, in forward order.
    pub fn sites(&mut self) -> Vec<(String, Site<'_, B>)> {
        let mut found = Vec::new();
        self.collect_sites(&mut found);
        found
    }

    /// Bytes of all weights as stored, a tied head counted once.
    pub fn bytes(&mut self) -> u64 {
        self.sites().iter().map(|(_, site)| site.bytes()).sum()
    }

    /// Every adapter, in forward order.
    pub fn adapters(&mut self) -> impl Iterator<Item = &mut Adapter<B>> {
        self.sites().into_iter().filter_map(|(_, site)| site.into_adapter())
    }

    /// Gives a tied head a layer of its own that shares the embedding's storage, so that it can be adapted.
    pub fn untie_head(&mut self) {
        if let (head @ None, embedding) = self.decoder_mut().head_mut() {
            *head = Some(Linear::new(embedding.weight.shared(), None));
        }
    }
}
