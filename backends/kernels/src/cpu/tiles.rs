//! Products of many tokens in f32 without AVX-512: tiles of the matrix are decoded and multiplied by `gemm`, each task on columns
//! of its own.

use std::cell::Cell;

use super::isa::Isa;
use super::strips::{Strip, by_strips};
use super::{Plus, Weight};
use crate::Side;
use crate::matrix::{Accum, Matrix, multiply_into};

/// Columns of the result per task: few enough to share the widths of small models out evenly, and enough that packing `x`
/// anew for each task is cheap.
const WIDTH: usize = 96;

/// `x [m, in] · Wᵀ → [m, out]` or `g [m, out] · W → [m, in]`.
pub(super) fn product(isa: Isa, x: &[f32], m: usize, weight: &Weight<'_>, side: Side, plus: Plus<'_>) -> Vec<f32> {
    let [k, n] = weight.inner_and_outer(side);
    let x = Matrix::new(x, m, k);
    let write = |mut strip: Strip<'_>| {
        fill(isa, &mut strip, x, weight, side);
        if let Some(plus) = plus {
            // SAFETY: the strip has just been filled.
            unsafe { strip.add(plus) }
        }
    };
    // SAFETY: strips are filled, and not read before that.
    unsafe { by_strips(m, n, width(weight, n), write) }
}

/// Columns per task of a result of `n`. Where weights are decoded first, twice as many where enough tasks are left: x is then
/// packed half as often. Weights that are read as they lie gain nothing (measured).
fn width(weight: &Weight<'_>, n: usize) -> usize {
    const MANY: usize = 16 * WIDTH;
    if weight.as_is().is_none() && n >= MANY { 2 * WIDTH } else { WIDTH }
}

/// Fills `strip` with its columns of the product.
fn fill(isa: Isa, strip: &mut Strip<'_>, x: Matrix<'_>, weight: &Weight<'_>, side: Side) {
    thread_local!(static DECODED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) });
    let mut decoded = DECODED.take();
    let tile = tile(isa, weight, side, strip, &mut decoded);
    assert_eq!(strip.rows(), x.shape()[0]);
    // SAFETY: the strip has the rows of x and the columns of the tile, and both operands have k in common.
    unsafe { multiply_into(strip.as_mut_ptr(), strip.stride(), x, tile, 1.0, Accum::Replace) }
    DECODED.set(decoded);
}

/// What the columns of `strip` are multiplied from, `[k, columns]`.
fn tile<'a>(isa: Isa, weight: &'a Weight<'_>, side: Side, strip: &Strip<'_>, buffer: &'a mut Vec<f32>) -> Matrix<'a> {
    let (columns, cols) = (strip.columns(), weight.shape[1]);
    let [k, _] = weight.inner_and_outer(side);
    let shape = [k, columns.len()];
    match (weight.as_is(), side) {
        (Some(values), Side::Forward) => Matrix::strided(&values[columns.start * cols..], shape, [1, cols]),
        (Some(values), Side::Backward) => Matrix::strided(&values[columns.start..], shape, [cols, 1]),
        (None, Side::Forward) => {
            buffer.resize(columns.len() * cols, 0.0);
            weight.decode(isa, columns.start * cols, buffer);
            Matrix::strided(buffer, shape, [1, cols])
        }
        (None, Side::Backward) => {
            buffer.resize(columns.len() * weight.shape[0], 0.0);
            for (row, values) in buffer.chunks_exact_mut(columns.len()).enumerate() {
                weight.decode(isa, row * cols + columns.start, values);
            }
            Matrix::strided(buffer, shape, [columns.len(), 1])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SHAPES, assert_product, for_each_weight, numbers};
    use super::*;

    #[test]
    fn both_sides_of_every_storage() {
        let shapes = SHAPES.as_slice().iter().chain(&[[200, 400]]);
        let sides = shapes.flat_map(|shape| [(*shape, Side::Forward), (*shape, Side::Backward)]);
        for ((shape, side), isa) in sides.flat_map(|case| Isa::available().into_iter().map(move |isa| (case, isa))) {
            for m in [1, 5, 15, 40] {
                for_each_weight(shape, |weight, values| {
                    let [k, _] = weight.inner_and_outer(side);
                    let x = weight.operand(&numbers(m * k, 7)).into_owned();
                    let y = product(isa, &x, m, weight, side, None);
                    assert_product(&y, &x, values, shape, side);
                    assert_eq!(y, product(isa, &x, m, weight, side, None));
                });
            }
        }
    }
}
