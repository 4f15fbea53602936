//! burn-ndarray: frozen matrices go through `gemm`, which is faster than its own matmul.

use std::sync::Arc;

use burn::tensor::ops::{Device, FloatTensor, FloatTensorOps, IntTensor};
use burn::tensor::{Shape, TensorData, TensorMetadata};
use burn_ndarray::{NdArray, NdArrayTensor, SharedArray};

use crate::cpu::{self, Blocks, Scales, Stored, Weight};
use crate::matrix::Matrix;
use crate::{BlockScales, Compute, FourBit, FrozenWeight, FusedAttention, Heads, LowRankBackend, Positions, Qkv, Side};
use crate::{cpu_attention, cpu_cross_entropy, cpu_head, cpu_norm, cpu_scale, cpu_swiglu};

type Cpu = NdArray<f32, i32>;

impl LowRankBackend for Cpu {
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
        let [a, b] = thin.map(in_order);
        multiply(x, weight, side, Some([view(&a), view(&b)]))
    }

    fn cross_entropy(logits: NdArrayTensor, targets: IntTensor<Self>) -> (NdArrayTensor, NdArrayTensor) {
        let shape = logits.shape();
        let mut grad = values(logits);
        let loss = cpu_cross_entropy::in_place(&mut grad, &ids(targets));
        (tensor(vec![loss], [1]), tensor(grad, shape))
    }

    fn head_loss(hidden: NdArrayTensor, weight: FrozenWeight<Self>, targets: IntTensor<Self>) -> NdArrayTensor {
        let (hidden, targets) = (values(hidden), ids(targets));
        let loss = with(weight, |weight| cpu_head::loss(&hidden, weight, &targets));
        tensor(vec![loss], [1])
    }

    fn head_loss_and_gradient(
        hidden: NdArrayTensor,
        weight: FrozenWeight<Self>,
        targets: IntTensor<Self>,
    ) -> (NdArrayTensor, NdArrayTensor) {
        let (shape, hidden, targets) = (hidden.shape(), values(hidden), ids(targets));
        let (loss, grad) = with(weight, |weight| cpu_head::loss_and_gradient(&hidden, weight, &targets));
        (tensor(vec![loss], [1]), tensor(grad, shape))
    }

    fn rms_norm(x: NdArrayTensor, weight: NdArrayTensor, eps: f64) -> NdArrayTensor {
        let shape = x.shape();
        tensor(cpu_norm::forward(&values(x), &values(weight), eps), shape)
    }

    fn rms_norm_input_gradient(
        x: NdArrayTensor,
        weight: NdArrayTensor,
        grad: NdArrayTensor,
        eps: f64,
    ) -> NdArrayTensor {
        let shape = x.shape();
        tensor(cpu_norm::input_gradient(&values(x), &values(weight), &values(grad), eps), shape)
    }

    fn rms_norm_weight_gradient(x: NdArrayTensor, grad: NdArrayTensor, eps: f64) -> NdArrayTensor {
        let cols = x.shape()[1];
        tensor(cpu_norm::weight_gradient(&values(x), &values(grad), cols, eps), [cols])
    }

    fn swiglu(gate: NdArrayTensor, up: NdArrayTensor) -> NdArrayTensor {
        let shape = gate.shape();
        tensor(cpu_swiglu::forward(&values(gate), &values(up)), shape)
    }

    fn swiglu_gradients(gate: NdArrayTensor, up: NdArrayTensor, grad: NdArrayTensor) -> [NdArrayTensor; 2] {
        let shape = gate.shape();
        cpu_swiglu::gradients(&values(gate), &values(up), &values(grad)).map(|part| tensor(part, shape.clone()))
    }

    fn scale_columns(x: NdArrayTensor, c: NdArrayTensor) -> NdArrayTensor {
        let shape = x.shape();
        tensor(cpu_scale::forward(&values(x), &values(c)), shape)
    }

    fn scale_columns_gradients(x: NdArrayTensor, c: NdArrayTensor, grad: NdArrayTensor) -> [NdArrayTensor; 2] {
        let shapes = [x.shape(), c.shape()];
        let [dx, dc] = cpu_scale::gradients(&values(x), &values(c), &values(grad));
        let [of_x, of_c] = shapes;
        [tensor(dx, of_x), tensor(dc, of_c)]
    }

    fn thin_matmul(a: NdArrayTensor, b: NdArrayTensor) -> NdArrayTensor {
        let shape = [a.shape()[0], b.shape()[1]];
        let [a, b] = [a, b].map(in_order);
        tensor(cpu::thin_product(view(&a), view(&b)), shape)
    }

    fn fused_attention() -> Option<FusedAttention<Self>> {
        Some(FusedAttention { forward: attention, backward: attention_backward })
    }
}

/// The same values in one piece of memory, rows or columns first.
fn in_order(x: NdArrayTensor) -> SharedArray<f32> {
    let x = floats(x);
    let forward = x.strides().iter().all(|stride| *stride >= 0);
    if forward && x.as_slice_memory_order().is_some() { x } else { x.as_standard_layout().into_shared() }
}

fn view(x: &SharedArray<f32>) -> Matrix<'_> {
    let (shape, strides) = (x.shape(), x.strides());
    let values = x.as_slice_memory_order().expect("put in order before");
    Matrix::strided(values, [shape[0], shape[1]], [strides[0] as usize, strides[1] as usize])
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

fn ids(targets: IntTensor<Cpu>) -> Vec<i32> {
    let NdArrayTensor::I32(targets) = targets else { unreachable!("targets are i32 on this backend") };
    targets.into_shared().iter().copied().collect()
}

fn rows(values: Vec<f32>, at: &Positions) -> NdArrayTensor {
    let n = at.batch * at.len;
    let width = values.len() / n;
    tensor(values, [n, width])
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> NdArrayTensor {
    Cpu::float_from_data(TensorData::new(values, shape), &Default::default())
}

fn multiply(x: NdArrayTensor, weight: FrozenWeight<Cpu>, side: Side, plus: Option<[Matrix<'_>; 2]>) -> NdArrayTensor {
    let m = x.shape()[0];
    let x = floats(x);
    let x = x.as_standard_layout();
    let x = x.as_slice().expect("standard layout is contiguous");
    with(weight, |weight| {
        let [_, width] = weight.inner_and_outer(side);
        tensor(cpu::linear(x, m, weight, side, plus), [m, width])
    })
}

fn with<R>(weight: FrozenWeight<Cpu>, then: impl Fn(&Weight<'_>) -> R) -> R {
    match weight {
        FrozenWeight::Dense(weight) => {
            let shape = [weight.shape()[0], weight.shape()[1]];
            let weight = floats(weight);
            let weight = weight.as_standard_layout();
            let stored = Stored::Dense(weight.as_slice().expect("standard layout is contiguous"));
            then(&Weight::new(stored, Compute::F32, shape))
        }
        FrozenWeight::Bf16 { codes, rows, cols, compute, .. } => {
            let codes = integers(codes);
            then(&Weight::new(Stored::Bf16(slice(&codes)), compute, [rows, cols]))
        }
        FrozenWeight::FourBit(FourBit { codes, scales, book, block, rows, cols, compute }) => {
            let (codes, book) = (integers(codes), floats(book));
            let weight = |scales| {
                let stored = Stored::FourBit(Blocks { codes: slice(&codes), scales, book: slice(&book), block });
                Weight::new(stored, compute, [rows, cols])
            };
            match scales {
                BlockScales::F32(scales) => {
                    let scales = floats(scales);
                    then(&weight(Scales::F32(slice(&scales))))
                }
                BlockScales::Nested { codes, scales, map, offset } => {
                    let (codes, scales, map, offset) =
                        (integers(codes), floats(scales), floats(map), slice(&floats(offset))[0]);
                    let scales =
                        Scales::Nested { codes: slice(&codes), scales: slice(&scales), map: slice(&map), offset };
                    then(&weight(scales))
                }
            }
        }
    }
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
