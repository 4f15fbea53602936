//! A token embedding with a frozen table and room for an adapter.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use lowrank_kernels::LowRankBackend;

use super::Weight;
use crate::adapters::Adapter;

#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    /// `[vocab, hidden]`
    pub weight: Weight<B>,
    pub adapter: Option<Adapter<B>>,
}

impl<B: LowRankBackend> Embedding<B> {
    /// `[n] → [n, hidden]`.
    pub fn forward(&self, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        match &self.adapter {
            Some(adapter) => adapter.embed(ids, self),
            None => self.base(ids),
        }
    }

    /// The frozen table alone.
    pub fn base(&self, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.weight.rows(ids)
    }
}
