//! A transformer block with LoRA on its linear layers, in two forms that share their parameters.

use burn::tensor::{Tensor, activation};
use lowrank_kernels::{
    AttentionLayout, FrozenWeight, LowRank, Side, TrainBackend, frozen_matmul, low_rank, plain_frozen_matmul, rms_norm,
    swiglu,
};

use crate::fixtures::{EPS, HEADS, HIDDEN, INNER, RANK, positions, tensor};

/// alpha 16 at rank 8.
const SCALING: f64 = 2.0;

/// Makes a frozen `[out, in]`.
pub type Stored<A> = fn([usize; 2]) -> FrozenWeight<A>;

/// What the operations of a layer are made of.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// burn's own operations, which burn differentiates: what one would write without this crate.
    Plain,
    /// This crate's.
    Ours,
}

/// `y = W x + s B A x`
pub struct Lora<A: TrainBackend> {
    /// `[out, in]`
    weight: FrozenWeight<A>,
    /// A `[r, in]`
    down: Tensor<A, 2>,
    /// B `[out, r]`
    up: Tensor<A, 2>,
}

impl<A: TrainBackend> Lora<A> {
    pub fn new([out, cols]: [usize; 2], weight: Stored<A>) -> Self {
        let (down, up) = (tensor([RANK, cols], 0.04).require_grad(), tensor([out, RANK], 0.04).require_grad());
        Self { weight: weight([out, cols]), down, up }
    }

    pub fn forward(&self, x: Tensor<A, 2>, form: Form) -> Tensor<A, 2> {
        let (weight, down, up) = (self.weight.clone(), self.down.clone(), self.up.clone());
        match form {
            // Of a dense weight the first product is `x.matmul(weight.transpose())`, and of a packed one that after decoding.
            Form::Plain => {
                plain_frozen_matmul(x.clone(), weight, Side::Forward)
                    + x.matmul(down.transpose()).matmul(up.transpose()) * SCALING
            }
            Form::Ours => {
                frozen_matmul(x.clone(), weight, Side::Forward) + low_rank(x, LowRank::product(down, up, SCALING))
            }
        }
    }
}

pub struct Block<A: TrainBackend> {
    q: Lora<A>,
    k: Lora<A>,
    v: Lora<A>,
    o: Lora<A>,
    gate: Lora<A>,
    up: Lora<A>,
    down: Lora<A>,
    /// `[hidden]`, frozen; of both norms.
    norm: Tensor<A, 1>,
    plain: AttentionLayout<A>,
    ours: AttentionLayout<A>,
}

impl<A: TrainBackend> Block<A> {
    /// For `shape` `[batch, len]` tokens.
    pub fn new(shape: [usize; 2], weight: Stored<A>) -> Self {
        let lora = |out, cols| Lora::new([out, cols], weight);
        let (q, kv) = (HEADS.heads * HEADS.head_dim, HEADS.kv_heads * HEADS.head_dim);
        let device = Default::default();
        Self {
            q: lora(q, HIDDEN),
            k: lora(kv, HIDDEN),
            v: lora(kv, HIDDEN),
            o: lora(HIDDEN, q),
            gate: lora(INNER, HIDDEN),
            up: lora(INNER, HIDDEN),
            down: lora(HIDDEN, INNER),
            norm: tensor([HIDDEN], 1.0),
            plain: AttentionLayout::Device(positions(shape).tensors(&device), shape),
            ours: AttentionLayout::new(positions(shape), &device),
        }
    }

    /// `[batch × len, hidden]` to the same.
    pub fn forward(&self, x: Tensor<A, 2>, form: Form) -> Tensor<A, 2> {
        let normed = self.norm(x.clone(), form);
        let q = self.q.forward(normed.clone(), form);
        let k = self.k.forward(normed.clone(), form);
        let v = self.v.forward(normed, form);
        let layout = if let Form::Plain = form { &self.plain } else { &self.ours };
        let x = x + self.o.forward(layout.attention(q, k, v, HEADS), form);
        let normed = self.norm(x.clone(), form);
        let gate = self.gate.forward(normed.clone(), form);
        let up = self.up.forward(normed, form);
        let inner = match form {
            Form::Plain => activation::silu(gate) * up,
            Form::Ours => swiglu(gate, up),
        };
        x + self.down.forward(inner, form)
    }

    fn norm(&self, x: Tensor<A, 2>, form: Form) -> Tensor<A, 2> {
        match form {
            // As burn's `nn::RmsNorm` has it.
            Form::Plain => {
                let rms = (x.clone().square().mean_dim(1) + EPS).sqrt();
                (x / rms) * self.norm.clone().unsqueeze()
            }
            Form::Ours => rms_norm(x, self.norm.clone(), EPS),
        }
    }
}
