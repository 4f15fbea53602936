//! Products of many tokens in bfloat16: columns of the matrix are decoded and packed, each task's by itself, and multiplied
//! by the unit that the processor has for it.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::amx::Amx;
use super::avx512_bf16::{self, Avx512Bf16};
use super::pack::{self, EDGE, LINES, Line};
use super::strips::{Strip, over_strips};
use super::{Plus, Weight};
use crate::Side;

/// Columns of the result per task; as in [`super::tiles`].
const WIDTH: usize = 96;

/// Elements of the inner dimension that are packed at a time: what tasks share of x then stays in a second-level cache.
const DEEP: usize = 2048;

/// Tokens up to which packing the matrix costs more than it saves.
pub(super) const FEW: usize = 2;

/// What multiplies pairs of bfloat16 values and sums in f32.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Avx512Bf16(Avx512Bf16),
    Amx(Amx),
}

/// Four tiles of a result, by tile row and tile column.
#[repr(C, align(64))]
pub(super) struct Sums(pub [[[[f32; EDGE]; EDGE]; 2]; 2]);

impl Unit {
    /// The fastest that is there and faster than f32.
    pub fn best() -> Option<Self> {
        match Amx::detect() {
            Some(amx) => Some(Unit::Amx(amx)),
            // Intel's cores with these pairs take half to two thirds as many products a second in them as in f32 (measured on
            // two generations); their tiles are what is fast, where the system lets us have them.
            None if avx512_bf16::slower_than_f32() => None,
            None => Avx512Bf16::detect().map(Unit::Avx512Bf16),
        }
    }

    fn vectors(self) -> Avx512Bf16 {
        match self {
            Unit::Avx512Bf16(vectors) => vectors,
            Unit::Amx(amx) => amx.vectors(),
        }
    }

    /// Every unit that is there.
    #[cfg(test)]
    pub fn available() -> Vec<Self> {
        Avx512Bf16::detect().map(Unit::Avx512Bf16).into_iter().chain(Amx::detect().map(Unit::Amx)).collect()
    }
}

/// `x [m, in] · Wᵀ → [m, out]` or `g [m, out] · W → [m, in]`, both operands rounded.
pub(super) fn product(unit: Unit, x: &[f32], m: usize, weight: &Weight<'_>, side: Side, plus: Plus<'_>) -> Vec<f32> {
    thread_local! {
        static LEFT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
        static RIGHT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    }
    let [k, n] = weight.inner_and_outer(side);
    let vectors = unit.vectors();
    let add = |left: &[Line], inner: Range<usize>, strip: &mut Strip<'_>| {
        let mut right = RIGHT.take();
        pack::right(vectors.avx512(), weight, side, inner.clone(), strip.columns(), &mut right);
        let tile = inner.len().div_ceil(pack::DEPTH) * LINES;
        let operands = Operands { left, right: &right, tile, first: inner.start == 0 };
        match unit {
            Unit::Avx512Bf16(vectors) => {
                operands.multiply(strip, |left, right, sums| vectors.multiply(left, right, sums))
            }
            Unit::Amx(amx) => {
                let tiles = amx.configure();
                operands.multiply(strip, |left, right, sums| tiles.multiply(left, right, sums));
            }
        }
        RIGHT.set(right);
        if let Some(plus) = plus.filter(|_| inner.end == k) {
            // SAFETY: the tiles of sums cover the strip.
            unsafe { strip.add(plus) }
        }
    };
    let mut left = LEFT.take();
    let mut y = Box::new_uninit_slice(m * n);
    for start in (0..k).step_by(DEEP) {
        let inner = start..k.min(start + DEEP);
        pack::left(vectors, x, k, inner.clone(), &mut left);
        over_strips(&mut y, n, WIDTH, |mut strip| add(&left, inner.clone(), &mut strip));
    }
    LEFT.set(left);
    // SAFETY: the tiles of sums cover each strip.
    unsafe { y.assume_init() }.into_vec()
}

struct Operands<'a> {
    left: &'a [Line],
    right: &'a [Line],
    /// Lines of a tile of rows or columns over the inner dimension.
    tile: usize,
    /// Whether nothing has been written before.
    first: bool,
}

impl Operands<'_> {
    /// Writes sums over two tiles of rows and two of columns into `strip`, or adds them to what is there.
    fn multiply(&self, strip: &mut Strip<'_>, unit: impl Fn([&[Line]; 2], [&[Line]; 2], &mut Sums)) {
        let mut sums = Sums([[[[0.0; EDGE]; EDGE]; 2]; 2]);
        for (i, left) in self.left.chunks(2 * self.tile).enumerate() {
            for (j, right) in self.right.chunks(2 * self.tile).enumerate() {
                unit(self.pair(left), self.pair(right), &mut sums);
                for (tile_row, sums) in (2 * i..).zip(&sums.0) {
                    for (row, line) in (EDGE * tile_row..strip.rows()).zip(0..EDGE) {
                        let (whole, part) = strip.row(row)[2 * j * EDGE..].as_chunks_mut::<EDGE>();
                        for (y, tile) in whole.iter_mut().zip(sums) {
                            self.put(&tile[line], y);
                        }
                        if let Some(tile) = sums.get(whole.len()) {
                            self.put(&tile[line][..part.len()], part);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn put(&self, sums: &[f32], y: &mut [MaybeUninit<f32>]) {
        if self.first {
            y.write_copy_of_slice(sums);
        } else {
            // SAFETY: the first has written all of the strip.
            unsafe { y.assume_init_mut() }.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
        }
    }

    /// Two tiles; the first again where there is no second, and its sums are dropped.
    fn pair<'a>(&self, lines: &'a [Line]) -> [&'a [Line]; 2] {
        let (first, second) = lines.split_at(self.tile);
        [first, if second.is_empty() { first } else { second }]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SHAPES, assert_product, for_each_weight, numbers, rounded};
    use super::*;
    use crate::Compute;

    #[test]
    fn every_unit_multiplies_both_sides_of_every_storage() {
        // The last two sum over more than one piece of the inner dimension.
        let shapes = SHAPES.as_slice().iter().chain(&[[3, 5000], [5000, 3]]);
        for (unit, shape) in shapes.flat_map(|shape| Unit::available().into_iter().map(move |unit| (unit, *shape))) {
            for (m, side) in [1, 16, 33].into_iter().flat_map(|m| [(m, Side::Forward), (m, Side::Backward)]) {
                for_each_weight(shape, |weight, values| {
                    if weight.compute == Compute::F32 {
                        return;
                    }
                    let x = numbers(m * weight.inner_and_outer(side)[0], 8);
                    let y = product(unit, &x, m, weight, side, None);
                    assert_product(&y, &rounded(&x), values, shape, side);
                    assert_eq!(y, product(unit, &x, m, weight, side, None));
                });
            }
        }
    }

    #[test]
    fn a_number_that_is_none_stays_in_its_row() {
        for unit in Unit::available() {
            let (shape, m) = ([20, 40], 18);
            for_each_weight(shape, |weight, _| {
                let mut x = numbers(m * shape[1], 9);
                (x[5 * shape[1] + 3], x[7 * shape[1]]) = (f32::NAN, f32::INFINITY);
                let y = product(unit, &x, m, weight, Side::Forward, None);
                for (i, row) in y.chunks_exact(shape[0]).enumerate() {
                    let finite = row.iter().all(|value| value.is_finite());
                    let none = row.iter().all(|value| !value.is_finite());
                    assert!(if i == 5 || i == 7 { none } else { finite }, "{unit:?} row {i}");
                }
            });
        }
    }
}
