//! The gated feed-forward layer.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::LowRankBackend;

use super::{Gate, Linear, Pass};

/// `down(act(gate(x)) ⊙ up(x))` (Shazeer 2020).
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    pub gate_proj: Linear<B>,
    pub up_proj: Linear<B>,
    pub down_proj: Linear<B>,
    #[module(skip)]
    pub gate: Gate,
}

impl<B: LowRankBackend> Mlp<B> {
    /// `[n, hidden] → [n, hidden]`.
    pub fn forward(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        let gate = self.gate_proj.forward(x.clone(), pass.read());
        self.down_proj.forward(self.gate.open(gate, self.up_proj.forward(x, pass.read())), pass)
    }
}

/// The same with gate and up in one product, the gate first.
#[derive(Module, Debug)]
pub struct FusedMlp<B: Backend> {
    pub gate_up_proj: Linear<B>,
    pub down_proj: Linear<B>,
    #[module(skip)]
    pub gate: Gate,
}

impl<B: LowRankBackend> FusedMlp<B> {
    /// `[n, hidden] → [n, hidden]`.
    pub fn forward(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        let both = self.gate_up_proj.forward(x, pass.read());
        let inner = both.dims()[1] / 2;
        let y = self.gate.open(both.clone().narrow(1, 0, inner), both.narrow(1, inner, inner));
        self.down_proj.forward(y, pass)
    }
}
