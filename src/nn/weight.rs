//! A weight matrix: f32 (frozen or training), or frozen and packed in integers.

use burn::module::{Module, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::four_bit::Quantised;
use lowrank_kernels::{
    FrozenWeight, LowRank, LowRankBackend, Side, bf16, frozen_low_rank, frozen_low_rank_unread, frozen_matmul,
    frozen_rows, head_loss, low_rank,
};

use super::four_bit::{Books, PackedFourBit};
use crate::recipe::{BaseCompute, BaseDtype, BaseStorage};

/// `[rows, cols]`; for a linear layer `[out, in]`.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each layer, and burn has no modules in boxes")]
pub enum Weight<B: Backend> {
    Dense(Param<Tensor<B, 2>>),
    Bf16(PackedBf16<B>),
    FourBit(PackedFourBit<B>),
}

/// Two bfloat16 values per integer; `table` decodes them where a backend cannot reinterpret bits.
#[derive(Module, Debug)]
pub struct PackedBf16<B: Backend> {
    pub codes: Param<Tensor<B, 1, Int>>,
    pub table: Param<Tensor<B, 1>>,
    pub rows: usize,
    pub cols: usize,
    #[module(skip)]
    pub compute: BaseCompute,
}

/// Makes frozen weights on one device; decoding tables are made once and shared.
#[derive(Clone, Debug)]
pub struct Storage<B: Backend> {
    pub device: B::Device,
    table: Option<Tensor<B, 1>>,
    books: Books<B>,
    compute: BaseCompute,
}

impl<B: Backend> Storage<B> {
    pub fn new(storage: impl Into<BaseStorage>, device: &B::Device) -> Self {
        let BaseStorage { dtype, compute, .. } = storage.into();
        let table = (dtype == BaseDtype::Bf16).then(|| Tensor::from_data(TensorData::from(&bf16::table()[..]), device));
        Self { device: device.clone(), table, books: Books::new(device), compute }
    }

    /// Frozen matrix from four-bit codes.
    pub fn four_bit(&self, quantised: &Quantised, shape: [usize; 2]) -> Weight<B> {
        Weight::FourBit(PackedFourBit::new(quantised, shape, self.compute, &self.books, &self.device))
    }

    /// Frozen matrix from row-major values.
    pub fn weight(&self, values: Vec<f32>, [rows, cols]: [usize; 2]) -> Weight<B> {
        match &self.table {
            None => Weight::Dense(frozen(Tensor::from_data(TensorData::new(values, [rows, cols]), &self.device))),
            Some(table) => {
                let codes = bf16::pack(&values);
                let codes = Param::initialized(ParamId::new(), integers(&codes, &self.device));
                let (table, compute) = (frozen(table.clone()), self.compute);
                Weight::Bf16(PackedBf16 { codes, table, rows, cols, compute })
            }
        }
    }

    /// Frozen vector; norms and biases stay f32 in every storage.
    pub fn vector(&self, values: Vec<f32>) -> Param<Tensor<B, 1>> {
        frozen(Tensor::from_data(TensorData::from(&values[..]), &self.device))
    }
}

pub(super) fn frozen<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Param<Tensor<B, D>> {
    Param::initialized(ParamId::new(), tensor).set_require_grad(false)
}

pub(super) fn integers<B: Backend>(values: &[i32], device: &B::Device) -> Tensor<B, 1, Int> {
    Tensor::from_data(TensorData::from(values), device)
}

impl<B: Backend> Weight<B> {
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Weight::Dense(weight) => weight.dims(),
            Weight::Bf16(packed) => [packed.rows, packed.cols],
            Weight::FourBit(packed) => [packed.rows, packed.cols],
        }
    }

    /// Whether the matrix itself is trained.
    pub fn trains(&self) -> bool {
        matches!(self, Weight::Dense(weight) if weight.is_require_grad())
    }

    pub fn device(&self) -> B::Device {
        match self {
            Weight::Dense(weight) => weight.device(),
            Weight::Bf16(packed) => packed.codes.device(),
            Weight::FourBit(packed) => packed.codes.device(),
        }
    }

    /// Bytes of the values as stored (shared decoding tables not counted).
    pub fn bytes(&self) -> u64 {
        match self {
            Weight::Dense(weight) => 4 * weight.shape().num_elements() as u64,
            Weight::Bf16(packed) => 4 * packed.codes.dims()[0] as u64,
            Weight::FourBit(packed) => packed.bytes(),
        }
    }

    /// The same storage under parameter identities of its own.
    pub fn shared(&self) -> Self {
        match self {
            Weight::Dense(weight) => Weight::Dense(frozen(weight.val().detach())),
            Weight::Bf16(packed) => Weight::Bf16(PackedBf16 {
                codes: Param::initialized(ParamId::new(), packed.codes.val()),
                table: frozen(packed.table.val()),
                ..*packed
            }),
            Weight::FourBit(packed) => Weight::FourBit(packed.shared()),
        }
    }

    fn frozen(&self) -> FrozenWeight<B> {
        match self {
            Weight::Dense(weight) => FrozenWeight::Dense(weight.val().into_primitive().tensor()),
            Weight::Bf16(packed) => FrozenWeight::Bf16 {
                codes: packed.codes.val().into_primitive(),
                table: packed.table.val().into_primitive().tensor(),
                rows: packed.rows,
                cols: packed.cols,
                compute: packed.compute.into(),
            },
            Weight::FourBit(packed) => FrozenWeight::FourBit(packed.frozen()),
        }
    }
}

impl<B: LowRankBackend> Weight<B> {
    /// `x [n, cols] · Wᵀ → [n, rows]`.
    pub fn matmul(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Weight::Dense(weight) if weight.is_require_grad() => x.matmul(weight.val().transpose()),
            _ => frozen_matmul(x, self.frozen(), Side::Forward),
        }
    }

    /// `x [n, cols] · Wᵀ` and a low-rank term of the same x, `[n, rows]`.
    pub fn matmul_with(&self, x: Tensor<B, 2>, term: LowRank<B>) -> Tensor<B, 2> {
        match self.trains() {
            true => self.matmul(x.clone()) + low_rank(x, term),
            false => frozen_low_rank(x, self.frozen(), term),
        }
    }

    /// The same for its gradients alone: the result may be anything.
    pub fn unread_with(&self, x: Tensor<B, 2>, term: LowRank<B>) -> Tensor<B, 2> {
        match self.trains() {
            true => self.matmul_with(x, term),
            false => frozen_low_rank_unread(x, self.frozen(), term),
        }
    }

    /// `x [n, rows] · W → [n, cols]`, of a frozen matrix.
    pub fn matmul_transposed(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        frozen_matmul(x, self.frozen(), Side::Backward)
    }

    /// Summed negative log-likelihood `[1]` of `targets [n]` where `x · Wᵀ` are logits, of a frozen matrix.
    pub fn loss(&self, x: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
        head_loss(x, self.frozen(), targets)
    }

    /// Rows `ids [n]` as `[n, cols]`.
    pub fn rows(&self, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        match self {
            Weight::Dense(weight) => weight.val().select(0, ids),
            _ => frozen_rows(self.frozen(), ids),
        }
    }

    /// The whole matrix as f32 (for a trainable copy).
    pub fn dense(&self) -> Tensor<B, 2> {
        match self {
            Weight::Dense(weight) => weight.val(),
            _ => {
                let ids = Tensor::arange(0..self.shape()[0] as i64, &self.device());
                frozen_rows(self.frozen(), ids)
            }
        }
    }

    /// Turns into an f32 matrix that trains.
    pub fn make_trainable(&mut self) {
        *self = Weight::Dense(Param::from_tensor(self.dense().detach()));
    }
}
