//! Products of many tokens in f32: tiles of the matrix are decoded and multiplied by `gemm`, each task on columns of its own.

use std::cell::Cell;

use gemm::{Parallelism, gemm};

use super::Weight;
use super::isa::Isa;
use super::strips::{Strip, for_each_strip};
use crate::Side;

/// Columns of the result per task: few enough to share the widths of small models out evenly, and enough that packing `x`
/// anew for each task is cheap.
const WIDTH: usize = 96;

/// `x [m, in] · Wᵀ → [m, out]` or `g [m, out] · W → [m, in]`.
pub(super) fn product(isa: Isa, x: &[f32], m: usize, weight: &Weight<'_>, side: Side) -> Vec<f32> {
    thread_local!(static DECODED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) });
    let [k, n] = weight.inner_and_outer(side);
    let mut y = vec![0.0; m * n];
    for_each_strip(&mut y, n, WIDTH, |mut strip| {
        let mut decoded = DECODED.take();
        let tile = tile(isa, weight, side, &strip, &mut decoded);
        multiply(&mut strip, x, k, tile);
        DECODED.set(decoded);
    });
    y
}

/// Values of a matrix `[k, columns]`, and how far apart they are along either size.
struct Tile<'a> {
    values: &'a [f32],
    down: usize,
    across: usize,
}

/// What the columns of `strip` are multiplied from.
fn tile<'a>(isa: Isa, weight: &'a Weight<'_>, side: Side, strip: &Strip<'_>, buffer: &'a mut Vec<f32>) -> Tile<'a> {
    let (columns, cols) = (strip.columns(), weight.shape[1]);
    match (weight.as_is(), side) {
        (Some(values), Side::Forward) => Tile { values: &values[columns.start * cols..], down: 1, across: cols },
        (Some(values), Side::Backward) => Tile { values: &values[columns.start..], down: cols, across: 1 },
        (None, Side::Forward) => {
            buffer.resize(columns.len() * cols, 0.0);
            weight.decode(isa, columns.start * cols, buffer);
            Tile { values: buffer, down: 1, across: cols }
        }
        (None, Side::Backward) => {
            buffer.resize(columns.len() * weight.shape[0], 0.0);
            for (row, values) in buffer.chunks_exact_mut(columns.len()).enumerate() {
                weight.decode(isa, row * cols + columns.start, values);
            }
            Tile { values: buffer, down: columns.len(), across: 1 }
        }
    }
}

/// `strip = x [m, k] · tile`, on the calling thread.
fn multiply(strip: &mut Strip<'_>, x: &[f32], k: usize, tile: Tile<'_>) {
    let (m, n, stride) = (strip.rows(), strip.columns().len(), strip.stride());
    assert!(x.len() == m * k && tile.values.len() > (k - 1) * tile.down + (n - 1) * tile.across);
    // SAFETY: the assertion bounds the indices of x and of the tile; the strip has m rows of n elements.
    unsafe {
        gemm(
            m,
            n,
            k,
            strip.as_mut_ptr(),
            1,
            stride as isize,
            false,
            x.as_ptr(),
            1,
            k as isize,
            tile.values.as_ptr(),
            tile.across as isize,
            tile.down as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SHAPES, assert_product, for_each_weight, numbers};
    use super::*;

    #[test]
    fn both_sides_of_every_storage() {
        for (shape, side) in SHAPES.into_iter().flat_map(|shape| [(shape, Side::Forward), (shape, Side::Backward)]) {
            for m in [1, 5, 40] {
                for_each_weight(shape, |weight, values| {
                    let [k, _] = weight.inner_and_outer(side);
                    let x = weight.operand(&numbers(m * k, 7)).into_owned();
                    let y = product(Isa::best(), &x, m, weight, side);
                    assert_product(&y, &x, values, shape, side);
                    assert_eq!(y, product(Isa::best(), &x, m, weight, side));
                });
            }
        }
    }
}
