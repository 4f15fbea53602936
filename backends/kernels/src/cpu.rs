//! CPU kernels on slices, shared by the CPU backends.

use std::cell::RefCell;

use gemm::{Parallelism, gemm};

use crate::cpu_four_bit::Blocks;
use crate::{Side, bf16};

/// Rows of a packed weight that are decoded at a time: 128 rows of 2048 columns are 1 MiB.
const TILE: usize = 128;

/// `W [out, in]` as it lies in memory.
pub(crate) enum Stored<'a> {
    #[cfg_attr(not(feature = "ndarray"), allow(dead_code))]
    Dense(&'a [f32]),
    Bf16(&'a [i32]),
    FourBit(Blocks<'a>),
}

/// `x [m, in] · Wᵀ` or `g [m, out] · W`; packed weights are decoded tile by tile.
pub(crate) fn linear(x: &[f32], m: usize, weight: Stored<'_>, [out, cols]: [usize; 2], side: Side) -> Vec<f32> {
    let width = if side == Side::Forward { out } else { cols };
    let mut y = vec![0.0; m * width];
    if let Stored::Dense(weight) = weight {
        tile(&mut y, x, m, weight, [0, out], [out, cols], side);
        return y;
    }
    thread_local!(static TILE_VALUES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
    TILE_VALUES.with_borrow_mut(|values| {
        for start in (0..out).step_by(TILE) {
            let end = out.min(start + TILE);
            values.resize((end - start) * cols, 0.0);
            weight.decode(start * cols, values);
            tile(&mut y, x, m, values, [start, end], [out, cols], side);
        }
    });
    y
}

impl Stored<'_> {
    /// Elements `start..start + values.len()`.
    fn decode(&self, start: usize, values: &mut [f32]) {
        match self {
            Stored::Dense(weight) => values.copy_from_slice(&weight[start..start + values.len()]),
            Stored::Bf16(codes) => bf16::unpack(codes, start, values),
            Stored::FourBit(blocks) => blocks.decode(start, values),
        }
    }
}

/// The part of the product that rows `start..end` of `W` contribute.
fn tile(y: &mut [f32], x: &[f32], m: usize, w: &[f32], [start, end]: [usize; 2], [out, cols]: [usize; 2], side: Side) {
    let rows = end - start;
    // SAFETY: every pointer and stride below stays inside its slice: y is [m, out] or [m, cols],
    // x is [m, cols] or [m, out], w is [rows, cols], and start + rows <= out.
    unsafe {
        match side {
            Side::Forward => gemm(
                m,
                rows,
                cols,
                y.as_mut_ptr().add(start),
                1,
                out as isize,
                false,
                x.as_ptr(),
                1,
                cols as isize,
                w.as_ptr(),
                cols as isize,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                Parallelism::Rayon(0),
            ),
            Side::Backward => gemm(
                m,
                cols,
                rows,
                y.as_mut_ptr(),
                1,
                cols as isize,
                start > 0,
                x.as_ptr().add(start),
                1,
                out as isize,
                w.as_ptr(),
                1,
                cols as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::Rayon(0),
            ),
        }
    }
}
