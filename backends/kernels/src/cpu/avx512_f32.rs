//! AVX-512 on f32: sums over eight rows and three registers of columns, all of which stay in registers.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::avx512::{Avx512, load};

/// Rows of a result that are summed at a time.
pub(super) const ROWS: usize = 8;

/// Columns of a result that are summed at a time.
pub(super) const COLUMNS: usize = 48;

/// A register's columns.
pub(super) const PART: usize = 16;

/// One row of [`COLUMNS`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [[f32; PART]; 3]);

impl Line {
    pub const ZEROS: Self = Self([[0.0; PART]; 3]);
}

/// Up to [`COLUMNS`] of some rows; none of a row that is not there.
pub(super) type Block<'a> = [&'a mut [MaybeUninit<f32>]; ROWS];

impl Avx512 {
    /// Writes into `y` the sum of both products of `rows`, which have an element for every line, and `lines`, and with `more`
    /// adds it to what is there.
    ///
    /// # Safety
    /// With `more` all of `y` must have been written.
    pub unsafe fn multiply(self, rows: &[[&[f32]; ROWS]; 2], lines: &[&[Line]; 2], y: Block<'_>, more: bool) {
        // SAFETY: `self` exists only where the features were detected; the caller vouches for y.
        unsafe {
            match y[0].len().div_ceil(PART) {
                1 => multiply::<1>(rows, lines, y, more),
                2 => multiply::<2>(rows, lines, y, more),
                _ => multiply::<3>(rows, lines, y, more),
            }
        }
    }
}

// Loops, because closures would not be inlined into instructions that their callers are not compiled for.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn multiply<const PARTS: usize>(rows: &[[&[f32]; ROWS]; 2], lines: &[&[Line]; 2], y: Block<'_>, more: bool) {
    let mut sums = [[_mm512_setzero_ps(); PARTS]; ROWS];
    let mut second = sums;
    // The second first, and each by itself, so that the result is that of two products which are added.
    for (rows, lines) in rows.iter().zip(lines).rev() {
        second = sums;
        sums = [[_mm512_setzero_ps(); PARTS]; ROWS];
        let mut some: [&[f32]; ROWS] = [&[]; ROWS];
        for (some, row) in some.iter_mut().zip(rows) {
            *some = &row[..lines.len()];
        }
        for (i, line) in lines.iter().enumerate() {
            let mut columns = [_mm512_setzero_ps(); PARTS];
            for (column, part) in columns.iter_mut().zip(&line.0) {
                *column = load(part);
            }
            for (sums, row) in sums.iter_mut().zip(some) {
                let x = _mm512_set1_ps(row[i]);
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_fmadd_ps(x, column, *sum);
                }
            }
        }
    }
    for (y, (sums, second)) in y.into_iter().zip(sums.into_iter().zip(second)) {
        for (y, (sum, second)) in y.chunks_mut(PART).zip(sums.into_iter().zip(second)) {
            // SAFETY: as many elements as y has are read, where the caller says that they are there, and written.
            unsafe {
                let (y, mask) = (y.as_mut_ptr().cast(), u16::MAX >> (PART - y.len()));
                let before = if more { _mm512_maskz_loadu_ps(mask, y) } else { _mm512_setzero_ps() };
                _mm512_mask_storeu_ps(y, mask, _mm512_add_ps(_mm512_add_ps(before, sum), second));
            }
        }
    }
}
