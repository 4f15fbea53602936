//! Backends made with CubeCL (wgpu, CUDA): products with packed weights that never hold a whole dense matrix.
//!
//! All but one way decode weights as they multiply: [`matvec`] reads every weight once for a few rows of `x`, [`tiled`] takes any
//! number of them, forward and backward.
//!
//! The exception is many rows in half precision: tensor cores then save more than writing decoded weights to memory and
//! reading them again costs, so [`slices`] decodes a part of `W` at a time and leaves the product to burn. In f32 they have only
//! TF32 to offer, which would round the operands.

mod matvec;
mod packed;
mod slices;
mod sources;
mod tiled;

pub use sources::sources;

use burn::tensor::DType;
use burn::tensor::ops::{Device, FloatTensor, FloatTensorOps, IntTensor};
use burn_cubecl::element::BoolElement;
use burn_cubecl::kernel::cast;
use burn_cubecl::{CubeBackend, CubeRuntime, FloatElement, IntElement};
use cubecl::features::TypeUsage;

use crate::frozen::Form;
use crate::{Compute, FrozenWeight, LowRankBackend, Side};

/// A frozen weight of any [`CubeBackend`] on `R`: the element types say nothing about its tensors.
type Weight<R> = FrozenWeight<CubeBackend<R, f32, i32, u8>>;

impl<R: CubeRuntime, F: FloatElement, I: IntElement, BT: BoolElement> LowRankBackend for CubeBackend<R, F, I, BT> {
    fn computes_in(compute: Compute, device: &Device<Self>) -> bool {
        let usage = R::client(device).properties().type_usage(dtype(compute).into());
        usage.is_superset(TypeUsage::Conversion | TypeUsage::Arithmetic | TypeUsage::Buffer)
    }

    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        let (form, floats, ints) = weight.take_apart();
        let Some(packing) = form.packing() else {
            return form.assemble::<Self>(floats, ints).plain_product(x, side);
        };
        let weight: Weight<R> = form.assemble(floats, ints);
        let (m, float) = (x.meta.shape()[0], x.dtype);
        let y = match side {
            Side::Forward if m <= matvec::MOST_ROWS => matvec::product(x, &weight, packing),
            _ if m >= slices::FEWEST_ROWS && packing.compute != Compute::F32 => {
                slices::product(x, &weight, packing, side)
            }
            _ => tiled::product(x, &weight, packing, side),
        };
        cast(y, float)
    }

    fn frozen_rows(weight: FrozenWeight<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        let (form, floats, ints) = weight.take_apart();
        match form {
            Form::Dense | Form::Bf16(_) => form.assemble::<Self>(floats, ints).rows(ids),
            Form::FourBit(packing) | Form::Nested(packing) => {
                let weight: Weight<R> = form.assemble(floats, ints);
                Self::float_select(slices::dense(&weight, packing, &ids), 0, ids)
            }
        }
    }
}

fn dtype(compute: Compute) -> DType {
    match compute {
        Compute::F32 => DType::F32,
        Compute::Bf16 => DType::BF16,
        Compute::F16 => DType::F16,
    }
}
