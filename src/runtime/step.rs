//! Forward and backward of one batch.

use std::time::Instant;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor};
use lowrank_kernels::TrainBackend;

use super::goal::loss;
use super::learner::to_host;
use super::{Micro, MicroResult};
use crate::Result;
use crate::data::Batch;
use crate::models::Model;
use crate::nn::params::{GradMap, Register};
use crate::nn::{Layout, Pass};

/// One graph over the whole model.
pub(super) fn plain<B: TrainBackend>(
    model: &Model<B>,
    ids: Tensor<B, 1, Int>,
    layout: &Layout<B>,
    batch: &Batch,
    micro: &Micro,
    register: &Register,
    grads: &mut GradMap<B::InnerBackend>,
) -> Result<MicroResult> {
    let start = Instant::now();
    let pass = Pass { dropout: micro.dropout, ..Pass::EVAL };
    let hidden = model.blocks(ids, layout, pass);
    let Some(loss) = loss(model, hidden, batch, pass) else { return Ok(MicroResult::default()) };
    let value = f64::from(to_host(loss.clone().inner())?[0]);
    let forward_ms = ms(start);
    if value.is_finite() {
        let backward = loss.mul_scalar(micro.weight).backward();
        register.collect_grads(model, &backward, grads);
    }
    Ok(MicroResult { loss: value, forward_ms, backward_ms: ms(start) - forward_ms })
}

/// Gradient checkpointing: only the inputs of blocks are kept; going back, each block runs again with a
/// graph of its own.
pub(super) fn recomputed<B: TrainBackend>(
    model: &Model<B>,
    ids: Tensor<B, 1, Int>,
    layout: &Layout<B>,
    batch: &Batch,
    micro: &Micro,
    register: &Register,
    grads: &mut GradMap<B::InnerBackend>,
) -> Result<MicroResult> {
    let start = Instant::now();
    let pass = Pass { dropout: micro.dropout, ..Pass::EVAL };
    let embedded = model.embed(ids, layout.place());
    let mut inputs = vec![embedded.clone().inner()];
    let (frozen, below) = (model.valid(), layout.inner());
    for layer in 0..layout.layers() {
        inputs.push(frozen.block(layer, inputs[inputs.len() - 1].clone(), &below, pass));
    }
    let mut x = leaf(inputs.pop().expect("starts with the embedding"));
    let Some(loss) = loss(model, x.clone(), batch, pass) else { return Ok(MicroResult::default()) };
    let value = f64::from(to_host(loss.clone().inner())?[0]);
    let forward_ms = ms(start);
    if value.is_finite() {
        let mut backward = loss.mul_scalar(micro.weight).backward();
        register.collect_grads(model, &backward, grads);
        for layer in (0..layout.layers()).rev() {
            let grad = x.grad(&backward).expect("the head depends on every block");
            x = leaf(inputs.pop().expect("one input per block"));
            let y = model.block_unread(layer, x.clone(), layout, pass);
            backward = (y * Tensor::from_inner(grad)).sum().backward();
            register.collect_grads(model, &backward, grads);
        }
        if model.embedding_trains() {
            let grad = x.grad(&backward).expect("every block depends on the embedding");
            let backward = (embedded * Tensor::from_inner(grad)).sum().backward();
            register.collect_grads(model, &backward, grads);
        }
    }
    Ok(MicroResult { loss: value, forward_ms, backward_ms: ms(start) - forward_ms })
}

fn leaf<B: AutodiffBackend>(x: Tensor<B::InnerBackend, 2>) -> Tensor<B, 2> {
    Tensor::from_inner(x).require_grad()
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
