//! A weight matrix: f32 (frozen or training), or frozen bfloat16 packed in integers.

use burn::module::{Module, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::{FrozenWeight, LowRankBackend, Side, bf16, frozen_matmul, frozen_rows, head_loss};

use crate::recipe::BaseDtype;

/// `[rows, cols]`; for a linear layer `[out, in]`.
#[derive(Module, Debug)]
pub enum Weight<B: Backend> {
    Dense(Param<Tensor<B, 2>>),
    Bf16(PackedBf16<B>),
}

/// Two bfloat16 values per integer; `table` decodes them where a backend cannot reinterpret bits.
#[derive(Module, Debug)]
pub struct PackedBf16<B: Backend> {
    pub codes: Param<Tensor<B, 1, Int>>,
    pub table: Param<Tensor<B, 1>>,
    pub rows: usize,
    pub cols: usize,
}

/// Makes frozen weights on one device; the decoding table is made once and shared.
#[derive(Clone, Debug)]
pub struct Storage<B: Backend> {
    pub device: B::Device,
    table: Option<Tensor<B, 1>>,
}

impl<B: Backend> Storage<B> {
    pub fn new(dtype: BaseDtype, device: &B::Device) -> Self {
        let table = (dtype == BaseDtype::Bf16).then(|| Tensor::from_data(TensorData::from(&bf16::table()[..]), device));
        Self { device: device.clone(), table }
    }

    /// Frozen matrix from row-major values.
    pub fn weight(&self, values: Vec<f32>, [rows, cols]: [usize; 2]) -> Weight<B> {
        match &self.table {
            None => Weight::Dense(frozen(Tensor::from_data(TensorData::new(values, [rows, cols]), &self.device))),
            Some(table) => {
                let codes = bf16::pack(&values);
                let codes = Tensor::from_data(TensorData::from(&codes[..]), &self.device);
                let codes = Param::initialized(ParamId::new(), codes);
                Weight::Bf16(PackedBf16 { codes, table: frozen(table.clone()), rows, cols })
            }
        }
    }

    /// Frozen vector; norms and biases stay f32 in every storage.
    pub fn vector(&self, values: Vec<f32>) -> Param<Tensor<B, 1>> {
        frozen(Tensor::from_data(TensorData::from(&values[..]), &self.device))
    }
}

fn frozen<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Param<Tensor<B, D>> {
    Param::initialized(ParamId::new(), tensor).set_require_grad(false)
}

impl<B: Backend> Weight<B> {
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Weight::Dense(weight) => weight.dims(),
            Weight::Bf16(packed) => [packed.rows, packed.cols],
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
        }
    }

    /// Bytes of the values as stored (the shared decoding table not counted).
    pub fn bytes(&self) -> u64 {
        let [rows, cols] = self.shape();
        match self {
            Weight::Dense(_) => 4 * (rows * cols) as u64,
            Weight::Bf16(_) => 4 * (rows * cols).div_ceil(2) as u64,
        }
    }

    /// The same storage under parameter identities of its own.
    pub fn shared(&self) -> Self {
        match self {
            Weight::Dense(weight) => Weight::Dense(frozen(weight.val().detach())),
            Weight::Bf16(packed) => Weight::Bf16(PackedBf16 {
                codes: Param::initialized(ParamId::new(), packed.codes.val()),
                table: frozen(packed.table.val()),
                rows: packed.rows,
                cols: packed.cols,
            }),
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
            },
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
            Weight::Bf16(_) => frozen_rows(self.frozen(), ids),
        }
    }

    /// The whole matrix as f32 (for a trainable copy).
    pub fn dense(&self) -> Tensor<B, 2> {
        match self {
            Weight::Dense(weight) => weight.val(),
            Weight::Bf16(packed) => {
                let ids = Tensor::arange(0..packed.rows as i64, &packed.codes.device());
                frozen_rows(self.frozen(), ids)
            }
        }
    }

    /// Turns into an f32 matrix that trains.
    pub fn make_trainable(&mut self) {
        *self = Weight::Dense(Param::from_tensor(self.dense().detach()));
    }
}
