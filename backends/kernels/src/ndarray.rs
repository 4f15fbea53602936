//! burn-ndarray: frozen matrices go through `gemm`, which is faster than its own matmul.

use std::sync::Arc;

use burn::tensor::ops::{Device, FloatTensor, FloatTensorOps};
use burn::tensor::{TensorData, TensorMetadata};
use burn_ndarray::{NdArray, NdArrayTensor, SharedArray};

use crate::cpu::{self, Blocks, Scales, Stored, Weight};
use crate::{
    BlockScales, Compute, FourBit, FrozenWeight, FusedAttention, Heads, LowRankBackend, Positions, Qkv, Side,
    cpu_attention,
};

type Cpu = NdArray<f32, i32>;

impl LowRankBackend for Cpu {
    fn computes_in(compute: Compute, _device: &Device<Self>) -> bool {
        cpu::computes_in(compute)
    }

    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        match weight {
            FrozenWeight::Dense(weight) => {
                let shape = [weight.shape()[0], weight.shape()[1]];
                let weight = floats(weight);
                let weight = weight.as_standard_layout();
                let stored = Stored::Dense(weight.as_slice().expect("standard layout is contiguous"));
                multiply(x, Weight { stored, compute: Compute::F32, shape }, side)
            }
            FrozenWeight::Bf16 { codes, rows, cols, compute, .. } => {
                let codes = integers(codes);
                multiply(x, Weight { stored: Stored::Bf16(slice(&codes)), compute, shape: [rows, cols] }, side)
            }
            FrozenWeight::FourBit(FourBit { codes, scales, book, block, rows, cols, compute }) => {
                let (codes, book) = (integers(codes), floats(book));
                let weight = |scales| {
                    let stored = Stored::FourBit(Blocks { codes: slice(&codes), scales, book: slice(&book), block });
                    Weight { stored, compute, shape: [rows, cols] }
                };
                match scales {
                    BlockScales::F32(scales) => {
                        let scales = floats(scales);
                        multiply(x, weight(Scales::F32(slice(&scales))), side)
                    }
                    BlockScales::Nested { codes, scales, map, offset } => {
                        let (codes, scales, map, offset) =
                            (integers(codes), floats(scales), floats(map), slice(&floats(offset))[0]);
                        let scales =
                            Scales::Nested { codes: slice(&codes), scales: slice(&scales), map: slice(&map), offset };
                        multiply(x, weight(scales), side)
                    }
                }
            }
        }
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
    let x = floats(x);
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

fn multiply(x: NdArrayTensor, weight: Weight<'_>, side: Side) -> NdArrayTensor {
    let m = x.shape()[0];
    let x = floats(x);
    let x = x.as_standard_layout();
    let y = cpu::linear(x.as_slice().expect("standard layout is contiguous"), m, &weight, side);
    let [_, width] = weight.inner_and_outer(side);
    Cpu::float_from_data(TensorData::new(y, [m, width]), &Default::default())
}

fn floats(x: NdArrayTensor) -> SharedArray<f32> {
    let NdArrayTensor::F32(x) = x else { unreachable!("lowrank computes in f32 on this backend") };
    x.into_shared()
}

fn integers(x: NdArrayTensor) -> SharedArray<i32> {
    let NdArrayTensor::I32(x) = x else { unreachable!("packed weights are i32") };
    x.into_shared()
}

/// Of a vector that was made in one piece and never written.
fn slice<T>(x: &SharedArray<T>) -> &[T] {
    x.as_slice().expect("a vector in one piece")
}
