//! A frozen weight matrix in the storage its backend keeps it in.

use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Int, Tensor, TensorPrimitive};

/// Which way a frozen `W [out, in]` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `x · Wᵀ`
    Forward,
    /// `g · W`
    Backward,
}

impl Side {
    pub fn flipped(self) -> Self {
        match self {
            Side::Forward => Side::Backward,
            Side::Backward => Side::Forward,
        }
    }
}

/// `W [rows, cols]`, never written.
#[derive(Debug)]
pub enum FrozenWeight<B: Backend> {
    Dense(FloatTensor<B>),
    /// Two bfloat16 values per 32-bit integer, row-major, the earlier one in the low half. `table [65536]` holds
    /// the f32 value of every code: the decoder of backends without integer-to-float reinterpretation.
    Bf16 {
        codes: IntTensor<B>,
        table: FloatTensor<B>,
        rows: usize,
        cols: usize,
    },
}

impl<B: Backend> Clone for FrozenWeight<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.clone()),
            Self::Bf16 { codes, table, rows, cols } => {
                Self::Bf16 { codes: codes.clone(), table: table.clone(), rows: *rows, cols: *cols }
            }
        }
    }
}

impl<B: Backend> FrozenWeight<B> {
    /// The whole matrix as f32: the plain body's way, which faster backends avoid.
    pub(crate) fn dense(self) -> FloatTensor<B> {
        match self {
            Self::Dense(weight) => weight,
            Self::Bf16 { codes, table, rows, cols } => {
                let values = decode(Tensor::<B, 1, Int>::from_primitive(codes), float(table));
                values.slice([0..rows * cols]).reshape([rows, cols]).into_primitive().tensor()
            }
        }
    }

    /// Rows `ids` as f32.
    pub(crate) fn rows(self, ids: IntTensor<B>) -> FloatTensor<B> {
        match self {
            Self::Dense(weight) => B::float_select(weight, 0, ids),
            Self::Bf16 { codes, table, rows, cols } if cols % 2 == 0 => {
                let codes = Tensor::<B, 1, Int>::from_primitive(codes).reshape([rows, cols / 2]);
                let picked = codes.select(0, Tensor::from_primitive(ids));
                let n = picked.dims()[0];
                decode(picked.reshape([n * cols / 2]), float(table)).reshape([n, cols]).into_primitive().tensor()
            }
            packed => B::float_select(packed.dense(), 0, ids),
        }
    }
}

fn float<B: Backend>(table: FloatTensor<B>) -> Tensor<B, 1> {
    Tensor::from_primitive(TensorPrimitive::Float(table))
}

/// `codes [n]` to f32 `[2 n]`.
fn decode<B: Backend>(codes: Tensor<B, 1, Int>, table: Tensor<B, 1>) -> Tensor<B, 1> {
    let n = codes.dims()[0];
    let low = codes.clone().bitwise_and_scalar(0xffff_i32.into_elem::<B>());
    let high =
        codes.bitwise_right_shift_scalar(16_i32.into_elem::<B>()).bitwise_and_scalar(0xffff_i32.into_elem::<B>());
    let index = Tensor::stack::<2>(vec![low, high], 1).reshape([2 * n]);
    table.select(0, index)
}

trait IntoElem {
    fn into_elem<B: Backend>(self) -> B::IntElem;
}

impl IntoElem for i32 {
    fn into_elem<B: Backend>(self) -> B::IntElem {
        burn::tensor::ElementConversion::elem(self)
    }
}
