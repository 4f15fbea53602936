//! Either side's product for any number of rows of `x`: a cube makes a tile of `y`, and decodes the tiles of `W` that it needs
//! into shared memory.
//!
//! Sums stay in registers: with every four neighbours in the order of summation that a unit reads of four rows of `x` and of
//! four columns of `y`, it adds 64 products up.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::{cast, into_contiguous};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::packed::{Packed, PackedArgs, Run, rounded};
use super::{Weight, dtype};
use crate::Side;
use crate::frozen::Packing;

/// Rows and columns of `y` that a cube makes.
const TILE: usize = 64;

/// Terms of their sums that it takes at a time.
const DEPTH: usize = 16;

/// Rows and columns of `y` that a unit makes, and neighbours that are read as one.
const QUAD: usize = 4;

type Quad = Vector<f32, Const<QUAD>>;

/// Units that share the rows, or the columns, of a tile of `y`.
const SIDE: usize = TILE / QUAD;

/// Each brings one quad of `x` and one of `W` at a time.
pub(super) const UNITS: usize = SIDE * SIDE;

/// Quads from row to row where rows of a tile are sums' terms. The one too many spreads neighbouring rows over memory banks.
const PITCH: usize = DEPTH / QUAD + 1;

/// How many neighbours of `x` are read as one.
pub(super) fn vector(inner: usize) -> usize {
    if inner.is_multiple_of(QUAD) { QUAD } else { 1 }
}

/// `x [m, in] · Wᵀ` or `x [m, out] · W`, f32.
pub(super) fn product<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: &Weight<R>,
    packing: Packing,
    side: Side,
) -> CubeTensor<R> {
    let Packing { rows, cols, block, compute } = packing;
    let x = into_contiguous(cast(x, DType::F32));
    let (client, m, [inner, outer]) = (x.client.clone(), x.meta.shape()[0], packing.along(side));
    let y = empty_device_contiguous_dtype(client.clone(), x.device.clone(), [m, outer].into(), DType::F32);
    let dim = CubeDim::new_1d(UNITS as u32);
    // SAFETY: what lies outside of `x` and `W` is not read, and what lies outside of `y` is not written.
    unsafe {
        tiled::launch_unchecked::<R>(
            &client,
            calculate_cube_count_elemwise(&client, m.div_ceil(TILE) * outer.div_ceil(TILE) * UNITS, dim),
            dim,
            vector(inner),
            Run::new(cols).vector,
            x.into_array_arg(),
            PackedArgs::new(weight),
            y.clone().into_array_arg(),
            m as u32,
            rows as u32,
            cols as u32,
            side,
            block,
            dtype(compute).into(),
        );
    }
    y
}

/// `x [m, inner] · Wᵀ` or `x · W → y [m, outer]`, both operands rounded to `F`. `inner` is a multiple of `M`, `cols` one of `N`.
#[cube(launch_unchecked)]
pub(super) fn tiled<F: Float, M: Size, N: Size>(
    x: &Array<Vector<f32, M>>,
    weight: &Packed,
    y: &mut Array<f32>,
    m: u32,
    rows: u32,
    cols: u32,
    #[comptime] side: Side,
    #[comptime] block: usize,
    #[define(F)] _dtype: StorageType,
) {
    let (m, rows, cols) = (m as usize, rows as usize, cols as usize);
    let forward = comptime![side == Side::Forward];
    let inner = if comptime![forward] { cols } else { rows };
    let outer = if comptime![forward] { rows } else { cols };
    let across = outer.div_ceil(TILE);
    let top = CUBE_POS / across * TILE;
    let left = CUBE_POS % across * TILE;
    // The launch may round the number of cubes up.
    if top >= m {
        terminate!();
    }

    // What this unit brings, in a tile whose rows are sums' terms and in one whose columns are.
    let unit = UNIT_POS as usize;
    let (along_row, along_quad) = (unit / (DEPTH / QUAD), unit % (DEPTH / QUAD));
    let (across_row, across_quad) = (unit / SIDE, unit % SIDE);
    let along_slot = along_row * PITCH + along_quad;

    let mut x_tile = SharedMemory::<Quad>::new(TILE * PITCH);
    let mut w_tile = SharedMemory::<Quad>::new(TILE * PITCH);
    let mut sums = Array::<f32>::new(QUAD * QUAD);
    #[unroll]
    for i in 0..QUAD * QUAD {
        sums[i] = 0.0;
    }

    let mut k = 0;
    while k < inner {
        // Everyone has done with the tiles before.
        sync_cube();
        x_tile[along_slot] = x_quad::<F, M>(x, top + along_row, k + along_quad * QUAD, m, inner);
        if comptime![forward] {
            let (row, col) = (left + along_row, k + along_quad * QUAD);
            w_tile[along_slot] = w_quad::<F, N>(weight, row, col, rows, cols, block);
        } else {
            let (row, col) = (k + across_row, left + across_quad * QUAD);
            w_tile[unit] = w_quad::<F, N>(weight, row, col, rows, cols, block);
        }
        sync_cube();
        accumulate(&x_tile, &w_tile, &mut sums, side);
        k += DEPTH;
    }

    #[unroll]
    for i in 0..QUAD * QUAD {
        let row = top + unit / SIDE * QUAD + i / QUAD;
        let col = if comptime![forward] { unit % SIDE + i % QUAD * SIDE } else { unit % SIDE * QUAD + i % QUAD };
        if row < m && left + col < outer {
            y[row * outer + left + col] = sums[i];
        }
    }
}

/// Adds to this unit's sums what a pair of tiles contributes.
#[cube]
fn accumulate(
    x_tile: &SharedMemory<Quad>,
    w_tile: &SharedMemory<Quad>,
    sums: &mut Array<f32>,
    #[comptime] side: Side,
) {
    let unit = UNIT_POS as usize;
    let mut x = Array::<Quad>::new(QUAD);
    let mut w = Array::<Quad>::new(QUAD);
    for quad in 0..DEPTH / QUAD {
        #[unroll]
        for i in 0..QUAD {
            x[i] = x_tile[(unit / SIDE * QUAD + i) * PITCH + quad];
            w[i] = if comptime![side == Side::Forward] {
                w_tile[(unit % SIDE + i * SIDE) * PITCH + quad]
            } else {
                w_tile[(quad * QUAD + i) * SIDE + unit % SIDE]
            };
        }
        #[unroll]
        for i in 0..QUAD * QUAD {
            let (row, col) = comptime![(i / QUAD, i % QUAD)];
            #[unroll]
            for k in 0..QUAD {
                let w = if comptime![side == Side::Forward] { w[col][k] } else { w[k][col] };
                sums[i] += x[row][k] * w;
            }
        }
    }
}

/// Elements `col .. col + 4` of a row of `x [rows, cols]`; zero where there are none.
#[cube]
fn x_quad<F: Float, M: Size>(
    x: &Array<Vector<f32, M>>,
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
) -> Quad {
    let vector = M::value().comptime();
    let mut quad = Quad::new(0.0);
    #[unroll]
    for part in 0..comptime![QUAD / vector] {
        let at = col + part * vector;
        if row < rows && at < cols {
            let values = rounded::<F, M>(x[(row * cols + at) / vector]);
            #[unroll]
            for i in 0..vector {
                quad[part * vector + i] = values[i];
            }
        }
    }
    quad
}

/// The same of `W [rows, cols]`.
#[cube]
fn w_quad<F: Float, N: Size>(
    weight: &Packed,
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
    #[comptime] block: usize,
) -> Quad {
    let vector = N::value().comptime();
    let mut quad = Quad::new(0.0);
    #[unroll]
    for part in 0..comptime![QUAD / vector] {
        let at = col + part * vector;
        if row < rows && at < cols {
            let index = row * cols + at;
            let scale = Vector::<f32, N>::new(weight.scale(index, block));
            let values = rounded::<F, N>(weight.entries::<N>(index) * scale);
            #[unroll]
            for i in 0..vector {
                quad[part * vector + i] = values[i];
            }
        }
    }
    quad
}
