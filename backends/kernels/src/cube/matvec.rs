//! `x · Wᵀ` for a few rows of `x`: every weight is read once, decoded in registers and multiplied with all of them.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::{cast, into_contiguous};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::packed::{Packed, PackedArgs, Run, rounded};
use super::{Weight, dtype};
use crate::frozen::Packing;

/// Rows of `x` up to which every weight is read once; more of them no longer fit into registers.
pub(super) const MOST_ROWS: usize = 8;

/// Units that share a row of `W`.
pub(super) const UNITS: usize = 64;

/// Halvings from all units to one.
const STEPS: usize = UNITS.ilog2() as usize;

/// Rows of `W` that a cube multiplies with what it read of `x`.
const ROWS: usize = 4;

/// `x [m, in] · Wᵀ`, f32, for `m` up to [`MOST_ROWS`].
pub(super) fn product<R: CubeRuntime>(x: CubeTensor<R>, weight: &Weight<R>, packing: Packing) -> CubeTensor<R> {
    let Packing { rows, cols, block, compute } = packing;
    let x = into_contiguous(cast(x, DType::F32));
    let (client, m, run) = (x.client.clone(), x.meta.shape()[0], Run::new(cols));
    let y = empty_device_contiguous_dtype(client.clone(), x.device.clone(), [m, rows].into(), DType::F32);
    let dim = CubeDim::new_1d(UNITS as u32);
    // SAFETY: every unit reads inside `x` and `W`, and units beyond the last row do not write.
    unsafe {
        matvec::launch_unchecked::<R>(
            &client,
            calculate_cube_count_elemwise(&client, rows.div_ceil(ROWS) * UNITS, dim),
            dim,
            run.vector,
            x.into_array_arg(),
            PackedArgs::new(weight),
            y.clone().into_array_arg(),
            rows as u32,
            cols as u32,
            m,
            run.len,
            block,
            dtype(compute).into(),
        );
    }
    y
}

/// `x [m, cols] · Wᵀ → y [m, rows]`, both operands rounded to `F`. A unit takes `run` columns at a time, in parts of `N`;
/// `cols` is a multiple of `run`, and `run` divides every block.
#[cube(launch_unchecked)]
pub(super) fn matvec<F: Float, N: Size>(
    x: &Array<Vector<f32, N>>,
    weight: &Packed,
    y: &mut Array<f32>,
    rows: u32,
    cols: u32,
    #[comptime] m: usize,
    #[comptime] run: usize,
    #[comptime] block: usize,
    #[define(F)] _dtype: StorageType,
) {
    let (rows, cols) = (rows as usize, cols as usize);
    let vector = N::value().comptime();
    let parts = comptime![run / vector];
    let unit = UNIT_POS as usize;
    let first = CUBE_POS * ROWS;
    let mut sums = Array::<f32>::new(ROWS * m);
    #[unroll]
    for i in 0..ROWS * m {
        sums[i] = 0.0;
    }

    let mut col = unit * run;
    while col < cols {
        #[unroll]
        for r in 0..ROWS {
            // Units beyond the last row read that one again, and write nothing.
            let index = min(first + r, rows - 1) * cols + col;
            let scale = Vector::<f32, N>::new(weight.scale(index, block));
            #[unroll]
            for part in 0..parts {
                let at = part * vector;
                let w = rounded::<F, N>(weight.entries::<N>(index + at) * scale);
                #[unroll]
                for i in 0..m {
                    let product = w * rounded::<F, N>(x[(i * cols + col + at) / vector]);
                    #[unroll]
                    for k in 0..vector {
                        sums[r * m + i] += product[k];
                    }
                }
            }
        }
        col += UNITS * run;
    }
    reduce(&sums, y, rows, m);
}

/// Adds the units' sums up pairwise and writes them.
#[cube]
fn reduce(sums: &Array<f32>, y: &mut Array<f32>, rows: usize, #[comptime] m: usize) {
    let unit = UNIT_POS as usize;
    let mut shared = SharedMemory::<f32>::new(ROWS * m * UNITS);
    #[unroll]
    for i in 0..ROWS * m {
        shared[i * UNITS + unit] = sums[i];
    }
    #[unroll]
    for step in 0..STEPS {
        let half = comptime![UNITS >> (step + 1)];
        sync_cube();
        if unit < half {
            #[unroll]
            for i in 0..ROWS * m {
                shared[i * UNITS + unit] += shared[i * UNITS + unit + half];
            }
        }
    }
    sync_cube();
    let row = CUBE_POS * ROWS + unit / m;
    if unit < ROWS * m && row < rows {
        y[(unit % m) * rows + row] = shared[unit * UNITS];
    }
}
