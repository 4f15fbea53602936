//! burn-flex: its own matmul is already `gemm`, so only packed weights need a kernel.

use std::sync::Arc;

use burn::tensor::TensorData;
use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn_flex::{Flex, FlexTensor};

use crate::cpu::{self, Stored};
use crate::cpu_four_bit::{Blocks, Scales};
use crate::{
    BlockScales, FourBit, FrozenWeight, FusedAttention, Heads, LowRankBackend, Positions, Qkv, Side, cpu_attention,
};

impl LowRankBackend for Flex {
    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        match weight {
            FrozenWeight::Dense(weight) if side == Side::Forward => {
                Self::float_matmul(x, Self::float_transpose(weight))
            }
            FrozenWeight::Dense(weight) => Self::float_matmul(x, weight),
            FrozenWeight::Bf16 { codes, rows, cols, .. } => {
                let codes = codes.to_contiguous();
                multiply(x, Stored::Bf16(codes.storage::<i32>()), [rows, cols], side)
            }
            FrozenWeight::FourBit(FourBit { codes, scales, book, block, rows, cols, .. }) => {
                // Made in one piece and never written, so their storage is theirs alone and in order.
                let scales = match &scales {
                    BlockScales::F32(scales) => Scales::F32(scales.storage::<f32>()),
                    BlockScales::Nested { codes, scales, map, offset } => Scales::Nested {
                        codes: codes.storage::<i32>(),
                        scales: scales.storage::<f32>(),
                        map: map.storage::<f32>(),
                        offset: offset.storage::<f32>()[0],
                    },
                };
                let (codes, book) = (codes.storage::<i32>(), book.storage::<f32>());
                multiply(x, Stored::FourBit(Blocks { codes, scales, book, block }), [rows, cols], side)
            }
        }
    }

    fn fused_attention() -> Option<FusedAttention<Self>> {
        Some(FusedAttention { forward: attention, backward: attention_backward })
    }
}

fn multiply(x: FlexTensor, weight: Stored<'_>, [rows, cols]: [usize; 2], side: Side) -> FlexTensor {
    let x = x.to_contiguous();
    let m = x.layout().shape()[0];
    let y = cpu::linear(x.storage::<f32>(), m, weight, [rows, cols], side);
    let width = if side == Side::Forward { rows } else { cols };
    FlexTensor::from_data(TensorData::new(y, [m, width]))
}

fn attention(qkv: Qkv<Flex>, heads: Heads, at: &Arc<Positions>) -> FlexTensor {
    let qkv = qkv.map(|x| x.to_contiguous());
    let y = cpu_attention::forward(qkv.each_ref().map(|x| x.storage::<f32>()), heads, at);
    rows(y, at)
}

fn attention_backward(qkv: Qkv<Flex>, grad: FlexTensor, heads: Heads, at: &Arc<Positions>) -> Qkv<Flex> {
    let (qkv, grad) = (qkv.map(|x| x.to_contiguous()), grad.to_contiguous());
    let slices = qkv.each_ref().map(|x| x.storage::<f32>());
    cpu_attention::backward(slices, grad.storage::<f32>(), heads, at).map(|part| rows(part, at))
}

fn rows(values: Vec<f32>, at: &Positions) -> FlexTensor {
    let n = at.batch * at.len;
    let width = values.len() / n;
    FlexTensor::from_data(TensorData::new(values, [n, width]))
}
