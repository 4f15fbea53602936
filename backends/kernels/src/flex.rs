//! burn-flex: its own matmul is already `gemm`, so only packed weights need a kernel.

use burn::tensor::TensorData;
use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn_flex::{Flex, FlexTensor};

use crate::cpu::{self, Stored};
use crate::{FrozenWeight, LowRankBackend, Side};

impl LowRankBackend for Flex {
    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        match weight {
            FrozenWeight::Dense(weight) if side == Side::Forward => {
                Self::float_matmul(x, Self::float_transpose(weight))
            }
            FrozenWeight::Dense(weight) => Self::float_matmul(x, weight),
            FrozenWeight::Bf16 { codes, rows, cols, .. } => {
                let (x, codes) = (x.to_contiguous(), codes.to_contiguous());
                let m = x.layout().shape()[0];
                let stored = Stored::Bf16(codes.storage::<i32>());
                let y = cpu::linear(x.storage::<f32>(), m, stored, [rows, cols], side);
                let width = if side == Side::Forward { rows } else { cols };
                FlexTensor::from_data(TensorData::new(y, [m, width]))
            }
        }
    }
}
