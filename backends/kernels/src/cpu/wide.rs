//! Products of many tokens in f32 with AVX-512: each task decodes columns of the matrix and multiplies the rows of `x` with them,
//! from where these lie.
//!
//! Nothing is packed but the matrix, while it is decoded, and what comes on top of the product joins it in registers.

use std::cell::Cell;
use std::ops::Range;

use super::avx512::Avx512;
use super::avx512_f32::{COLUMNS, ROWS};
use super::columns::{Columns, MOST};
use super::strips::{Strip, by_strips};
use super::{Plus, Weight};
use crate::Side;

/// Elements of the inner dimension at a time: as many as a second-level cache has room for beside the columns of a task.
const DEEP: usize = 1536;

/// `x [m, in] · Wᵀ → [m, out]` or `g [m, out] · W → [m, in]`, and what comes on top.
pub(super) fn product(unit: Avx512, x: &[f32], m: usize, weight: &Weight<'_>, side: Side, plus: Plus<'_>) -> Vec<f32> {
    thread_local!(static RIGHT: Cell<[Columns; 2]> = Cell::default());
    let [k, n] = weight.inner_and_outer(side);
    let plus = plus.map(|[a, b]| (a.to_rows(), b));
    let write = |mut strip: Strip<'_>| {
        let [mut right, mut thin] = RIGHT.take();
        for start in (0..k).step_by(DEEP) {
            let inner = start..k.min(start + DEEP);
            right.of_weight(unit, weight, side, inner.clone(), strip.columns());
            let mut on_top = Rows { values: &[], width: 0, columns: 0..0 };
            thin.clear();
            if let Some((a, b)) = plus.as_ref().filter(|_| inner.end == k) {
                let width = b.shape()[0];
                on_top = Rows { values: a, width, columns: 0..width };
                thin.of_matrix(*b, strip.columns());
            }
            let products = [(Rows { values: x, width: k, columns: inner }, &right), (on_top, &thin)];
            // SAFETY: the first piece has written all of the strip.
            unsafe { put(unit, &products, start > 0, &mut strip) };
        }
        RIGHT.set([right, thin]);
    };
    // SAFETY: sums are put into all of the strip, by the first piece without reading it.
    unsafe { by_strips(m, n, width(n), write) }
}

/// Columns per task of a result of `n`: those with which no thread has more to do than need be, and of these the most.
fn width(n: usize) -> usize {
    let most = |width: &usize| n.div_ceil(*width).div_ceil(rayon::current_num_threads()) * width;
    [MOST, MOST / 2, COLUMNS].into_iter().min_by_key(most).expect("three")
}

/// Some columns of a left operand.
struct Rows<'a> {
    values: &'a [f32],
    width: usize,
    columns: Range<usize>,
}

impl<'a> Rows<'a> {
    /// Rows from `row` on. The last again where there are no more: its sums are not kept.
    fn some(&self, row: usize) -> [&'a [f32]; ROWS] {
        if self.columns.is_empty() {
            return [&[]; ROWS];
        }
        let last = self.values.len() / self.width - 1;
        std::array::from_fn(|i| &self.values[(row + i).min(last) * self.width..][self.columns.clone()])
    }
}

/// Writes the sum of both products into `strip`, and with `more` adds it to what is there.
///
/// # Safety
/// With `more` all of the strip must have been written.
unsafe fn put(unit: Avx512, products: &[(Rows<'_>, &Columns); 2], more: bool, strip: &mut Strip<'_>) {
    for row in (0..strip.rows()).step_by(ROWS) {
        let left = products.each_ref().map(|(left, _)| left.some(row));
        for (panel, start) in (0..strip.columns().len()).step_by(COLUMNS).enumerate() {
            let right = products.each_ref().map(|(_, right)| right.panel(panel));
            let end = strip.columns().len().min(start + COLUMNS);
            // SAFETY: the block is part of the strip.
            unsafe { unit.multiply(&left, &right, strip.block(row, start..end), more) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SHAPES, assert_product, for_each_weight, numbers};
    use super::*;
    use crate::matrix::Matrix;

    #[test]
    fn both_sides_of_every_storage() {
        let Some(unit) = Avx512::detect() else {
            println!("skipped: this processor has no AVX-512");
            return;
        };
        // More columns than a task has, and more elements than are summed at a time.
        let shapes = SHAPES.as_slice().iter().chain(&[[200, 400], [1600, 20], [20, 1600]]);
        for (shape, side) in shapes.flat_map(|shape| [(*shape, Side::Forward), (*shape, Side::Backward)]) {
            for m in [1, 5, 15, 40] {
                for_each_weight(shape, |weight, values| {
                    let [k, n] = weight.inner_and_outer(side);
                    let x = weight.operand(&numbers(m * k, 7)).into_owned();
                    let y = product(unit, &x, m, weight, side, None);
                    assert_product(&y, &x, values, shape, side);
                    assert_eq!(y, product(unit, &x, m, weight, side, None));
                    let nothing = [Matrix::new(&[], m, 0), Matrix::new(&[], 0, n)];
                    assert_eq!(y, product(unit, &x, m, weight, side, Some(nothing)));
                });
            }
        }
    }
}
