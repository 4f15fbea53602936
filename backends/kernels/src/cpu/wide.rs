//! Products of many tokens in f32 with AVX-512: each task decodes columns of the matrix and multiplies the rows of `x` with them,
//! from where these lie.
//!
//! Nothing is packed but the matrix, while it is decoded, and what comes on top of the product is added before it is written.

use std::cell::Cell;
use std::ops::Range;

use super::avx512::Avx512;
use super::avx512_f32::{COLUMNS, ROWS};
use super::columns::{Columns, MOST};
use super::strips::{Strip, by_strips};
use super::{Plus, Weight};
use crate::Side;

/// Elements of the inner dimension at a time; the same for every width, so that sums do not depend on it.
const DEEP: usize = 1536;

/// `x [m, in] · Wᵀ → [m, out]` or `g [m, out] · W → [m, in]`, and what comes on top.
pub(super) fn product(unit: Avx512, x: &[f32], m: usize, weight: &Weight<'_>, side: Side, plus: Plus<'_>) -> Vec<f32> {
    let [k, n] = weight.inner_and_outer(side);
    by_width(width(k, n), unit, x, m, weight, side, plus)
}

/// Columns per task: those with which no thread has more to do than need be, and of these as many as a second-level cache has
/// room for, decoded, while rows go by.
fn width(k: usize, n: usize) -> usize {
    const ROOM: usize = DEEP * MOST / 2;
    let threads = rayon::current_num_threads();
    let longest = |width: &usize| n.min(n.div_ceil(*width).div_ceil(threads) * width);
    let fit = [MOST, MOST / 2, COLUMNS].into_iter().filter(|width| width * k.min(DEEP) <= ROOM);
    fit.min_by_key(longest).expect("half of the most")
}

fn by_width(
    width: usize,
    unit: Avx512,
    x: &[f32],
    m: usize,
    weight: &Weight<'_>,
    side: Side,
    plus: Plus<'_>,
) -> Vec<f32> {
    thread_local!(static RIGHT: Cell<[Columns; 2]> = Cell::default());
    let [k, n] = weight.inner_and_outer(side);
    assert!(k > 0);
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
            // SAFETY: the first piece writes all of the strip.
            unsafe { put(unit, &products, start > 0, &mut strip) };
        }
        RIGHT.set([right, thin]);
    };
    // SAFETY: there is a first piece, which puts sums into all of the strip without reading it.
    unsafe { by_strips(m, n, width, write) }
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
            // SAFETY: the block is part of the strip, which has been written where the caller says so.
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
        // More elements than are summed at a time, and more columns than a task has.
        let shapes = SHAPES.as_slice().iter().chain(&[[200, 400], [3100, 20], [20, 3100]]);
        let cases = shapes.flat_map(|shape| [(*shape, Side::Forward), (*shape, Side::Backward)]);
        for ((shape, side), width) in cases.flat_map(|case| [MOST, MOST / 2, COLUMNS].map(|width| (case, width))) {
            for m in [1, 13] {
                for_each_weight(shape, |weight, values| {
                    let [k, n] = weight.inner_and_outer(side);
                    let x = weight.operand(&numbers(m * k, 7)).into_owned();
                    let product = |plus| by_width(width, unit, &x, m, weight, side, plus);
                    let y = product(None);
                    assert_product(&y, &x, values, shape, side);
                    assert_eq!(y, product(None));
                    assert_eq!(y, product(Some([Matrix::new(&[], m, 0), Matrix::new(&[], 0, n)])));
                    let (a, b) = (numbers(m * 3, 11), numbers(n * 3, 12));
                    let both = product(Some([Matrix::new(&a, m, 3), Matrix::new(&b, n, 3).t()]));
                    for (i, (both, y)) in both.iter().zip(&y).enumerate() {
                        // To the bit what two products give that are added.
                        let thin = (0..3).fold(0.0, |sum, j| f32::mul_add(a[i / n * 3 + j], b[i % n * 3 + j], sum));
                        assert_eq!(*both, y + thin, "{side:?} {shape:?} {width} element {i}");
                    }
                });
            }
        }
    }

    #[test]
    fn no_thread_has_more_columns_than_need_be() {
        let threads = rayon::current_num_threads();
        for (k, n) in [1, 768, 5000].into_iter().flat_map(|k| [1, 48, 64, 192, 288, 1000, 6144].map(|n| (k, n))) {
            let [most, least] = [width(k, n), COLUMNS].map(|width| n.div_ceil(width).div_ceil(threads) * width);
            assert!(most.min(n) <= least && width(k, n) * k.min(DEEP) * 4 <= 600 << 10, "{k} {n}: {}", width(k, n));
        }
    }
}
