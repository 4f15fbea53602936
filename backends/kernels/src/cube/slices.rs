//! Products with slices of `W` that are decoded one after the other into the same scratch memory; [`dense`] decodes all of it.
//!
//! Both sides cut the columns of `y`, so no sum crosses slices. Against [`super::tiled`] this writes the decoded weights and reads
//! them again, and gains burn's matrix product with its tensor cores and tuning.

use std::ops::Range;

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::cast;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, empty_device_dtype};
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::packed::{Packed, PackedArgs, Run};
use super::{Weight, dtype};
use crate::Side;
use crate::frozen::Packing;

/// Rows of `x` from which on this pays in half precision. An estimate: GPUs without their tensor cores do 50 to 100 operations
/// in the time of the 4 bytes that a decoded weight is written and read as, and each row takes 2.
pub(super) const FEWEST_ROWS: usize = 64;

/// Elements that are decoded at a time: 16 MiB in half precision, which the caches of large GPUs hold.
const SLICE: usize = 1 << 23;

/// Slices begin at multiples of this many columns of `y`, so that they are aligned in memory.
const STEP: usize = 256;

/// `x · Wᵀ` or `x · W`, f32.
pub(super) fn product<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: &Weight<R>,
    packing: Packing,
    side: Side,
) -> CubeTensor<R> {
    let x = cast(x, dtype(packing.compute));
    let Packing { rows, cols, .. } = packing;
    let [inner, outer] = packing.along(side);
    let step = (SLICE / inner / STEP * STEP).max(STEP).min(outer);
    let scratch = x.client.empty(step * inner * x.dtype.size());
    let y = empty_device_dtype(x.client.clone(), x.device.clone(), [x.meta.shape()[0], outer].into(), DType::F32);
    for start in (0..outer).step_by(step) {
        let part = start..outer.min(start + step);
        let into = columns(&y, part.clone());
        let area = if side == Side::Forward { [part, 0..cols] } else { [0..rows, part] };
        let shape = area.each_ref().map(Range::len).into();
        let mut slice = CubeTensor::new_contiguous(x.client.clone(), x.device.clone(), shape, scratch.clone(), x.dtype);
        decode(weight, packing, area, &slice);
        if side == Side::Forward {
            slice.meta.swap(0, 1);
        }
        matmul(x.clone(), slice, Some(into), MatmulStrategy::default(), DType::F32).expect("shapes that fit");
    }
    y
}

/// All of a packed `W`, f32.
pub(super) fn dense<R: CubeRuntime>(weight: &Weight<R>, packing: Packing, like: &CubeTensor<R>) -> CubeTensor<R> {
    let shape = [packing.rows, packing.cols].into();
    let out = empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, DType::F32);
    decode(weight, packing, [0..packing.rows, 0..packing.cols], &out);
    out
}

/// These columns of `y [m, n]`, in its memory.
fn columns<R: CubeRuntime>(y: &CubeTensor<R>, part: Range<usize>) -> CubeTensor<R> {
    let handle = y.handle.clone().offset_start((part.start * y.dtype.size()) as u64);
    let mut meta = (*y.meta).clone();
    meta.shape_mut()[1] = part.len();
    CubeTensor::new(y.client.clone(), handle, meta, y.device.clone(), y.dtype)
}

/// Writes these rows and columns of `W` to `out`.
fn decode<R: CubeRuntime>(weight: &Weight<R>, packing: Packing, [rows, cols]: [Range<usize>; 2], out: &CubeTensor<R>) {
    let vector = Run::new(packing.cols).vector;
    let units = rows.len() * cols.len() / vector;
    let dim = CubeDim::new(&out.client, units);
    // SAFETY: a unit past the end of `out` stops; the others read inside `W`, whose area `out` has the size of.
    unsafe {
        unpack::launch_unchecked::<R>(
            &out.client,
            calculate_cube_count_elemwise(&out.client, units, dim),
            dim,
            vector,
            PackedArgs::new(weight),
            out.clone().into_array_arg(),
            rows.start as u32,
            cols.start as u32,
            packing.cols as u32,
            cols.len() as u32,
            packing.block,
            out.dtype.into(),
        );
    }
}

/// Elements `[row + r, col + c]` of `weight [_, cols]` as `out [r, c]`, whose rows have `width` elements. Every unit writes a
/// vector; `cols`, `col` and `width` are multiples of its length.
#[cube(launch_unchecked)]
pub(super) fn unpack<F: Float, N: Size>(
    weight: &Packed,
    out: &mut Array<Vector<F, N>>,
    row: u32,
    col: u32,
    cols: u32,
    width: u32,
    #[comptime] block: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let at = ABSOLUTE_POS * N::value();
    let width = width as usize;
    let index = (row as usize + at / width) * cols as usize + col as usize + at % width;
    let scale = Vector::<f32, N>::new(weight.scale(index, block));
    out[ABSOLUTE_POS] = Vector::cast_from(weight.entries::<N>(index) * scale);
}
