//! burn-ndarray: frozen matrices go through `gemm`, which is faster than its own matmul.

use std::sync::Arc;

use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn::tensor::{TensorData, TensorMetadata};
use burn_ndarray::{NdArray, NdArrayTensor};

use crate::cpu::{self, Stored};
use crate::{FrozenWeight, FusedAttention, Heads, LowRankBackend, Positions, Qkv, Side, cpu_attention};

type Cpu = NdArray<f32, i32>;

impl LowRankBackend for Cpu {
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

    fn fused_attention() -> Option<FusedAttention<Self>> {
        Some(FusedAttention { forward: attention, backward: attention_backward })
    }
}

fn attention(qkv: Qkv<Cpu>, heads: Heads, at: &Arc<Positions>) -> NdArrayTensor {
    let qkv = qkv.map(values);
    rows(cpu_attention::forward(qkv.each_ref().map(Vec::as_slice), heads, at), at)
}

fn attention_backward(qkv: Qkv<Cpu>, grad: NdArrayTensor, heads: Heads, at: &Arc<Positions>) -> Qkv<Cpu> {
    let qkv = qkv.map(values);
    cpu_attention::backward(qkv.each_ref().map(Vec::as_slice), &values(grad), heads, at).map(|part| rows(part, at))
}

fn values(x: NdArrayTensor) -> Vec<f32> {
    let NdArrayTensor::F32(x) = x else { unreachable!("lowrank computes in f32 on this backend") };
    let x = x.into_shared();
    match x.as_slice() {
        Some(values) => values.to_vec(),
        None => x.iter().copied().collect(),
    }
}

fn rows(values: Vec<f32>, at: &Positions) -> NdArrayTensor {
    let n = at.batch * at.len;
    let width = values.len() / n;
    Cpu::float_from_data(TensorData::new(values, [n, width]), &Default::default())
}

/// The product and its width.
fn multiply(x: &[f32], m: usize, weight: Stored<'_>, [rows, cols]: [usize; 2], side: Side) -> (Vec<f32>, usize) {
    (cpu::linear(x, m, weight, [rows, cols], side), if side == Side::Forward { rows } else { cols })
}
