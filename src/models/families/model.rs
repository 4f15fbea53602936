//! What a program does with a model, whatever its family and task.

use burn::module::Module;
use burn::tensor::backend::Backend as BurnBackend;
use burn::tensor::{Int, Tensor};
use lowrank_kernels::{LowRankBackend, cross_entropy};

use super::{Activation, Body, Head, join, named};
use crate::Result;
use crate::adapters::Adapter;
use crate::models::Site;
use crate::models::load::Reader;
use crate::nn::{At, Embedding, LayerCache, Layout, Linear, NewTokens, Pass, Weight};

/// The forward pass below the head, in the steps that recomputation and caching need apart.
pub trait Backbone<B: LowRankBackend> {
    /// What the first block gets for tokens `ids [n]` where they stand, `[n, hidden]`.
    fn embed(&self, ids: Tensor<B, 1, Int>, place: Place<'_>) -> Tensor<B, 2>;
    /// Whether anything that [`Self::embed`] uses trains.
    fn embedding_trains(&self) -> bool;
    /// Block number `layer`, `[n, hidden] → [n, hidden]`.
    fn block(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2>;
    /// The same for its gradients alone: the result may be anything of its shape.
    fn block_unread(&self, layer: usize, x: Tensor<B, 2>, at: At<'_, B>, pass: Pass) -> Tensor<B, 2> {
        self.block(layer, x, at, pass)
    }
    /// The norm between the last block and the head.
    fn norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2>;
    /// The table of token embeddings.
    fn table(&self) -> &Embedding<B>;
}

/// Where tokens stand in their text.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `[n]`
    pub position: &'a [i32],
    /// Which of two texts each is of, `[n]`; empty where all are of the first.
    pub token_type: &'a [i32],
}

/// A model on a device.
#[derive(Module, Debug)]
pub struct Model<B: BurnBackend> {
    pub(super) body: Body<B>,
    pub(super) head: Head<B>,
    /// Where the backbone is in the checkpoint's names.
    pub(super) root: String,
    /// Whether tokens are predicted with the embedding table.
    pub(super) tied: bool,
}

impl<B: LowRankBackend> Model<B> {
    pub(in crate::models) fn read(reader: &mut Reader<'_, B>) -> Result<Self> {
        let root = reader.config.head().root.to_string();
        let (body, tied) = (Body::read(reader, &root)?, reader.config.has_tied_head());
        Ok(Self { body, head: Head::read(reader)?, root, tied })
    }

    fn backbone(&self) -> &dyn Backbone<B> {
        self.body.backbone()
    }

    /// See [`Backbone::embed`].
    pub fn embed(&self, ids: Tensor<B, 1, Int>, place: Place<'_>) -> Tensor<B, 2> {
        self.backbone().embed(ids, place)
    }

    /// See [`Backbone::embedding_trains`].
    pub fn embedding_trains(&self) -> bool {
        self.backbone().embedding_trains()
    }

    /// Block number `layer`, `[n, hidden] → [n, hidden]`.
    pub fn block(&self, layer: usize, x: Tensor<B, 2>, layout: &Layout<B>, pass: Pass) -> Tensor<B, 2> {
        self.backbone().block(layer, x, layout.at(layer), pass)
    }

    /// See [`Backbone::block_unread`].
    pub fn block_unread(&self, layer: usize, x: Tensor<B, 2>, layout: &Layout<B>, pass: Pass) -> Tensor<B, 2> {
        self.backbone().block_unread(layer, x, layout.at(layer), pass)
    }

    /// Hidden states after the last block, before the final norm: `[n] → [n, hidden]`.
    pub fn blocks(&self, ids: Tensor<B, 1, Int>, layout: &Layout<B>, pass: Pass) -> Tensor<B, 2> {
        let x = self.embed(ids, layout.place());
        (0..layout.layers()).fold(x, |x, layer| self.block(layer, x, layout, pass))
    }

    /// The same for new tokens of one row, reading and extending a cache of one entry per layer.
    pub fn cached_blocks(
        &self,
        ids: Tensor<B, 1, Int>,
        new: &NewTokens<B>,
        cache: &mut [Option<LayerCache<B>>],
    ) -> Tensor<B, 2> {
        let (x, backbone) = (self.embed(ids, new.place()), self.backbone());
        let caches = cache.iter_mut().enumerate();
        caches.fold(x, |x, (layer, cache)| backbone.block(layer, x, new.at(layer, cache), Pass::EVAL))
    }

    /// Final norm and head: `[n, hidden] → [n, outputs]`; the normed states where there is no head.
    pub fn head(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        self.outputs(self.backbone().norm(x), pass)
    }

    fn outputs(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        match self.is_tied() {
            true => self.backbone().table().weight.matmul(x),
            false => self.head.forward(x, pass),
        }
    }

    /// Whether the embedding table is the head.
    fn is_tied(&self) -> bool {
        self.tied && self.head.layers.is_empty()
    }

    /// Summed negative log-likelihood `[1]` of classes `targets [n]`, from `x [n, hidden]` as [`Self::head`] takes it.
    pub fn loss(&self, x: Tensor<B, 2>, targets: Tensor<B, 1, Int>, pass: Pass) -> Tensor<B, 1> {
        let x = self.backbone().norm(x);
        match self.frozen_head() {
            Some(weight) => weight.loss(x, targets),
            None => cross_entropy(self.outputs(x, pass), targets),
        }
    }

    /// The output matrix, where nothing of the head trains and nothing is added to its product.
    fn frozen_head(&self) -> Option<&Weight<B>> {
        let weight = match (&self.head.layers[..], &self.head.forms[..]) {
            ([], _) if self.tied => &self.backbone().table().weight,
            ([Linear { weight, bias: None, adapter: None }], [(_, Activation::None)]) => weight,
            _ => return None,
        };
        (!weight.trains()).then_some(weight)
    }

    /// Every layer with its path, in forward order.
    pub fn sites(&mut self) -> Vec<(String, Site<'_, B>)> {
        let mut found = Vec::new();
        self.body.collect_sites(&self.root, &mut found);
        let layers = self.head.layers.iter_mut().zip(&self.head.forms);
        found.extend(layers.map(|(layer, (path, _))| (path.clone(), Site::Linear(layer))));
        found
    }

    /// The checkpoint's name of a parameter from the names of the fields that lead to it.
    pub fn path(&self, fields: &str) -> String {
        if let Some(rest) = fields.strip_prefix("body.") {
            let names: Vec<_> = rest.split('.').map(named).collect();
            return join(&self.root, &names.join("."));
        }
        let in_head = fields.strip_prefix("head.layers.").and_then(|rest| rest.split_once('.'));
        let named = in_head.and_then(|(i, field)| Some((self.head.forms.get(i.parse::<usize>().ok()?)?, field)));
        named.map_or_else(|| fields.to_string(), |((path, _), field)| join(path, field))
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
    pub fn untie_head(&mut self, path: &str) {
        if self.is_tied() {
            let weight = self.backbone().table().weight.shared();
            self.head.layers.push(Linear::new(weight, None));
            self.head.forms.push((path.into(), Activation::None));
        }
    }
}
