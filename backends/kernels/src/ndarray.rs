//! burn-ndarray: frozen matrices go through `gemm`, which is faster than its own matmul.

use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn::tensor::{TensorData, TensorMetadata};
use burn_ndarray::{NdArray, NdArrayTensor};

use crate::cpu::{self, Stored};
use crate::{FrozenWeight, LowRankBackend, Side};

impl LowRankBackend for NdArray<f32, i32> {
    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        let m = x.shape()[0];
        let NdArrayTensor::F32(x) = x else { unreachable!("lowrank computes in f32 on this backend") };
        let x = x.into_shared();
        let x = x.as_standard_layout();
        let (y, width) = match weight {
            FrozenWeight::Dense(weight) => {
                let (rows, cols) = (weight.shape()[0], weight.shape()[1]);
                let NdArrayTensor::F32(weight) = weight else { unreachable!("dense weights are f32") };
                let weight = weight.into_shared();
                let weight = weight.as_standard_layout();
                let stored = Stored::Dense(weight.as_slice().expect("standard layout is contiguous"));
                multiply(x.as_slice().expect("standard layout is contiguous"), m, stored, [rows, cols], side)
            }
            FrozenWeight::Bf16 { codes, rows, cols, .. } => {
                let NdArrayTensor::I32(codes) = codes else { unreachable!("packed weights are i32") };
                let codes = codes.into_shared();
                let codes = codes.as_standard_layout();
                let stored = Stored::Bf16(codes.as_slice().expect("standard layout is contiguous"));
                multiply(x.as_slice().expect("standard layout is contiguous"), m, stored, [rows, cols], side)
            }
        };
        Self::float_from_data(TensorData::new(y, [m, width]), &Default::default())
    }
}

/// The product and its width.
fn multiply(x: &[f32], m: usize, weight: Stored<'_>, [rows, cols]: [usize; 2], side: Side) -> (Vec<f32>, usize) {
    (cpu::linear(x, m, weight, [rows, cols], side), if side == Side::Forward { rows } else { cols })
}
