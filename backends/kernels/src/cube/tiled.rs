//! Either side's product for any number of rows of `x`: a cube makes a tile of `y`, and decodes the tiles of `W` that it needs
//! into shared memory.
//!
//! Sums stay in registers: of every four terms, a unit reads eight rows of `x` and eight columns of `W` for 256 products.

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

/// Rows and columns of `y` that a unit makes.
const PATCH: usize = 8;

/// Units that share the rows, or the columns, of a tile of `y`.
const SIDE: usize = TILE / PATCH;

pub(super) const UNITS: usize = SIDE * SIDE;

/// Neighbours that are read as one.
const QUAD: usize = 4;

type Quad = Vector<f32, Const<QUAD>>;

/// Quads that a unit brings of a tile of `x`, and of one of `W`.
const SHARE: usize = TILE * DEPTH / QUAD / UNITS;

/// Quads from line to line of a tile. The one too many spreads neighbouring lines over memory banks.
const PITCH: usize = DEPTH / QUAD + 1;

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
            Run::new(inner).vector,
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

/// `x [m, inner] · Wᵀ` or `x · W → y [m, outer]`, both operands rounded to `F`. `inner` is a multiple of `V`, `cols` one of `N`.
#[cube(launch_unchecked)]
pub(super) fn tiled<F: Float, V: Size, N: Size>(
    x: &Array<Vector<f32, V>>,
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

    let unit = UNIT_POS as usize;
    let mut x_tile = SharedMemory::<Quad>::new(TILE * PITCH);
    let mut w_tile = SharedMemory::<Quad>::new(TILE * PITCH);
    let mut sums = Array::<f32>::new(PATCH * PATCH);
    #[unroll]
    for i in 0..PATCH * PATCH {
        sums[i] = 0.0;
    }

    let mut k = 0;
    while k < inner {
        // All units are done with the tiles before.
        sync_cube();
        #[unroll]
        for i in 0..SHARE {
            // A line is a row or a column of `y`. Lines follow each other and have their terms side by side; only `W` backward
            // has terms follow each other, and lines side by side.
            let slot = unit + i * UNITS;
            let (line, term) = (slot / (DEPTH / QUAD), slot % (DEPTH / QUAD) * QUAD);
            let place = line * PITCH + term / QUAD;
            x_tile[place] = quad::<F, V, Array<Vector<f32, V>>>(x, top + line, k + term, m, inner, block);
            if comptime![forward] {
                w_tile[place] = quad::<F, N, Packed>(weight, left + line, k + term, rows, cols, block);
            } else {
                let (term, line) = (slot / (TILE / QUAD), slot % (TILE / QUAD) * QUAD);
                w_tile[slot] = quad::<F, N, Packed>(weight, k + term, left + line, rows, cols, block);
            }
        }
        sync_cube();
        accumulate(&x_tile, &w_tile, &mut sums, side);
        k += DEPTH;
    }

    #[unroll]
    for i in 0..PATCH * PATCH {
        let (row, col) = comptime![(i / PATCH, i % PATCH)];
        let row = top + unit / SIDE + row * SIDE;
        let col = if comptime![forward] {
            left + unit % SIDE + col * SIDE
        } else {
            left + (unit % SIDE + col / QUAD * SIDE) * QUAD + col % QUAD
        };
        if row < m && col < outer {
            y[row * outer + col] = sums[i];
        }
    }
}

/// Adds to this unit's sums what a pair of tiles contributes.
#[cube]
fn accumulate(x_tile: &SharedMemory<Quad>, w_tile: &SharedMemory<Quad>, sums: &mut Array<f32>, #[comptime] side: Side) {
    let unit = UNIT_POS as usize;
    let mut w = Array::<Quad>::new(PATCH);
    for quad in 0..DEPTH / QUAD {
        #[unroll]
        for i in 0..PATCH {
            w[i] = if comptime![side == Side::Forward] {
                w_tile[(unit % SIDE + i * SIDE) * PITCH + quad]
            } else {
                w_tile[(quad * QUAD + i % QUAD) * (TILE / QUAD) + unit % SIDE + i / QUAD * SIDE]
            };
        }
        #[unroll]
        for row in 0..PATCH {
            let x = x_tile[(unit / SIDE + row * SIDE) * PITCH + quad];
            #[unroll]
            for col in 0..PATCH {
                #[unroll]
                for k in 0..QUAD {
                    let w = if comptime![side == Side::Forward] {
                        w[col][k]
                    } else {
                        w[comptime![col / QUAD * QUAD + k]][comptime![col % QUAD]]
                    };
                    sums[row * PATCH + col] += x[k] * w;
                }
            }
        }
    }
}

/// What tiles are cut out of.
#[cube]
trait Matrix<N: Size>: CubeType {
    /// Elements `index .. index + N`.
    fn elements(this: &Self, index: usize, #[comptime] block: usize) -> Vector<f32, N>;
}

#[cube]
impl<N: Size> Matrix<N> for Array<Vector<f32, N>> {
    fn elements(this: &Self, index: usize, #[comptime] _block: usize) -> Vector<f32, N> {
        this[index / N::value()]
    }
}

#[cube]
impl<N: Size> Matrix<N> for Packed {
    fn elements(this: &Self, index: usize, #[comptime] block: usize) -> Vector<f32, N> {
        this.entries::<N>(index) * Vector::new(this.scale(index, block))
    }
}

/// Elements `[row, col .. col + 4]` of a matrix `[rows, cols]`, rounded to `F`; zero where there are none.
#[cube]
fn quad<F: Float, N: Size, X: Matrix<N>>(
    matrix: &X,
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
            let values = rounded::<F, N>(X::elements(matrix, row * cols + at, block));
            #[unroll]
            for i in 0..vector {
                quad[part * vector + i] = values[i];
            }
        }
    }
    quad
}
