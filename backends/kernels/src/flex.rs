//! burn-flex: kernels on its slices.

use std::sync::Arc;

use burn::tensor::TensorData;
use burn::tensor::ops::{Device, FloatTensor, IntTensor};
use burn_flex::{Flex, FlexTensor};

use crate::cpu::{self, Blocks, Scales, Stored, Weight};
use crate::matrix::Matrix;
use crate::{BlockScales, Compute, FourBit, FrozenWeight, FusedAttention, Heads, LowRankBackend, Positions, Qkv, Side};
use crate::{cpu_attention, cpu_cross_entropy, cpu_head, cpu_norm, cpu_scale, cpu_swiglu};

impl LowRankBackend for Flex {
    fn computes_in(compute: Compute, _device: &Device<Self>) -> bool {
        cpu::computes_in(compute)
    }

    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        multiply(x, weight, side, None)
    }

    fn frozen_matmul_plus(
        x: FloatTensor<Self>,
        weight: FrozenWeight<Self>,
        side: Side,
        thin: [FloatTensor<Self>; 2],
    ) -> FloatTensor<Self> {
        let [a, b] = thin.each_ref().map(in_order);
        multiply(x, weight, side, Some([view(&a), view(&b)]))
    }

    fn cross_entropy(logits: FlexTensor, targets: IntTensor<Self>) -> (FlexTensor, FlexTensor) {
        let mut grad = logits.into_data();
        let values = grad.as_mut_slice::<f32>().expect("lowrank computes in f32 on this backend");
        let loss = cpu_cross_entropy::in_place(values, targets.to_contiguous().storage::<i32>());
        (FlexTensor::from_data(TensorData::from([loss])), FlexTensor::from_data(grad))
    }

    fn head_loss(hidden: FlexTensor, weight: FrozenWeight<Self>, targets: IntTensor<Self>) -> FlexTensor {
        let [hidden, targets] = [hidden, targets].map(|x| x.to_contiguous());
        let loss = with(weight, |weight| cpu_head::loss(hidden.storage(), weight, targets.storage()));
        FlexTensor::from_data(TensorData::from([loss]))
    }

    fn head_loss_and_gradient(
        hidden: FlexTensor,
        weight: FrozenWeight<Self>,
        targets: IntTensor<Self>,
    ) -> (FlexTensor, FlexTensor) {
        let [hidden, targets] = [hidden, targets].map(|x| x.to_contiguous());
        let both = |weight: &Weight<'_>| cpu_head::loss_and_gradient(hidden.storage(), weight, targets.storage());
        let (loss, grad) = with(weight, both);
        (FlexTensor::from_data(TensorData::from([loss])), like(&hidden, grad))
    }

    fn rms_norm(x: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
        let [x, weight] = [x, weight].map(|x| x.to_contiguous());
        like(&x, cpu_norm::forward(x.storage(), weight.storage(), eps))
    }

    fn rms_norm_input_gradient(x: FlexTensor, weight: FlexTensor, grad: FlexTensor, eps: f64) -> FlexTensor {
        let [x, weight, grad] = [x, weight, grad].map(|x| x.to_contiguous());
        like(&x, cpu_norm::input_gradient(x.storage(), weight.storage(), grad.storage(), eps))
    }

    fn rms_norm_weight_gradient(x: FlexTensor, grad: FlexTensor, eps: f64) -> FlexTensor {
        let [x, grad] = [x, grad].map(|x| x.to_contiguous());
        let cols = x.layout().shape()[1];
        FlexTensor::from_data(TensorData::new(
            cpu_norm::weight_gradient(x.storage(), grad.storage(), cols, eps),
            [cols],
        ))
    }

    fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let [gate, up] = [gate, up].map(|x| x.to_contiguous());
        like(&gate, cpu_swiglu::forward(gate.storage(), up.storage()))
    }

    fn swiglu_gradients(gate: FlexTensor, up: FlexTensor, grad: FlexTensor) -> [FlexTensor; 2] {
        let [gate, up, grad] = [gate, up, grad].map(|x| x.to_contiguous());
        cpu_swiglu::gradients(gate.storage(), up.storage(), grad.storage()).map(|part| like(&gate, part))
    }

    fn scale_columns(x: FlexTensor, c: FlexTensor) -> FlexTensor {
        let [x, c] = [x, c].map(|x| x.to_contiguous());
        like(&x, cpu_scale::forward(x.storage(), c.storage()))
    }

    fn scale_columns_gradients(x: FlexTensor, c: FlexTensor, grad: FlexTensor) -> [FlexTensor; 2] {
        let [x, c, grad] = [x, c, grad].map(|x| x.to_contiguous());
        let [dx, dc] = cpu_scale::gradients(x.storage(), c.storage(), grad.storage());
        [like(&x, dx), like(&c, dc)]
    }

    fn thin_matmul(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let ([a, b], shape) = ([&a, &b].map(in_order), [a.layout().shape()[0], b.layout().shape()[1]]);
        FlexTensor::from_data(TensorData::new(cpu::thin_product(view(&a), view(&b)), shape))
    }

    fn fused_attention() -> Option<FusedAttention<Self>> {
        Some(FusedAttention { forward: attention, backward: attention_backward })
    }
}

fn multiply(x: FlexTensor, weight: FrozenWeight<Flex>, side: Side, plus: Option<[Matrix<'_>; 2]>) -> FlexTensor {
    let x = x.to_contiguous();
    let m = x.layout().shape()[0];
    with(weight, |weight| {
        let [_, width] = weight.inner_and_outer(side);
        let y = cpu::linear(x.storage::<f32>(), m, weight, side, plus);
        FlexTensor::from_data(TensorData::new(y, [m, width]))
    })
}

fn with<R>(weight: FrozenWeight<Flex>, then: impl Fn(&Weight<'_>) -> R) -> R {
    match weight {
        FrozenWeight::Dense(weight) => {
            let shape = [weight.layout().shape()[0], weight.layout().shape()[1]];
            let weight = weight.to_contiguous();
            let stored = Stored::Dense(weight.storage::<f32>());
            then(&Weight::new(stored, Compute::F32, shape))
        }
        FrozenWeight::Bf16 { codes, rows, cols, compute, .. } => {
            let codes = codes.to_contiguous();
            let stored = Stored::Bf16(codes.storage::<i32>());
            then(&Weight::new(stored, compute, [rows, cols]))
        }
        FrozenWeight::FourBit(FourBit { codes, scales, book, block, rows, cols, compute }) => {
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
            let stored = Stored::FourBit(Blocks { codes, scales, book, block });
            then(&Weight::new(stored, compute, [rows, cols]))
        }
    }
}

/// The tensor itself, unless it is read backwards.
fn in_order(x: &FlexTensor) -> FlexTensor {
    if x.layout().strides().iter().all(|stride| *stride >= 0) { x.clone() } else { x.to_contiguous() }
}

fn view(x: &FlexTensor) -> Matrix<'_> {
    let (layout, strides) = (x.layout(), x.layout().strides());
    let shape = [layout.shape()[0], layout.shape()[1]];
    Matrix::strided(&x.storage()[layout.start_offset()..], shape, [strides[0] as usize, strides[1] as usize])
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

/// A tensor of the shape of `x`.
fn like(x: &FlexTensor, values: Vec<f32>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, x.layout().shape().clone()))
}

fn rows(values: Vec<f32>, at: &Positions) -> FlexTensor {
    let n = at.batch * at.len;
    let width = values.len() / n;
    FlexTensor::from_data(TensorData::new(values, [n, width]))
}
