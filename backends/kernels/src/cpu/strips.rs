//! One matrix, written by many tasks, each in columns of its own.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::share::stay_awake;
use crate::matrix::{Accum, Matrix, multiply_into};

/// Some columns of a row-major matrix, in the hands of one task.
pub(super) struct Strip<'a> {
    first: *mut f32,
    rows: usize,
    stride: usize,
    columns: Range<usize>,
    matrix: PhantomData<&'a mut [f32]>,
}

/// A matrix `[rows, columns]` of which `write` makes `width` columns at a time, in parallel.
///
/// # Safety
/// `write` must write every element of its strip, and read none before.
pub(super) unsafe fn by_strips(
    rows: usize,
    columns: usize,
    width: usize,
    write: impl Fn(Strip<'_>) + Sync,
) -> Vec<f32> {
    let mut matrix: Vec<f32> = Vec::with_capacity(rows * columns);
    over_strips(&mut matrix.spare_capacity_mut()[..rows * columns], columns, width, write);
    // SAFETY: there is room for them, and the strips, which are all of it, have been written.
    unsafe { matrix.set_len(rows * columns) };
    matrix
}

/// `work` on `width` columns of a matrix at a time, in parallel.
pub(super) fn over_strips(
    matrix: &mut [MaybeUninit<f32>],
    columns: usize,
    width: usize,
    work: impl Fn(Strip<'_>) + Sync,
) {
    struct Shared(*mut f32);
    // SAFETY: the tasks below form references to elements of disjoint columns only.
    unsafe impl Sync for Shared {}
    let rows = matrix.len() / columns;
    let shared = &Shared(matrix.as_mut_ptr().cast());
    let task = |i| {
        let range = i * width..columns.min((i + 1) * width);
        // SAFETY: the first row has an element at `range.start`.
        let first = unsafe { shared.0.add(range.start) };
        work(Strip { first, rows, stride: columns, columns: range, matrix: PhantomData });
    };
    match columns.div_ceil(width) {
        // Not worth waking another thread.
        1 => task(0),
        tasks => {
            stay_awake(tasks);
            (0..tasks).into_par_iter().for_each(task)
        }
    }
}

impl Strip<'_> {
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The first element; the others lie at `row · stride + column` from it.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.first
    }

    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Adds the strip's columns of `a · b`.
    ///
    /// # Safety
    /// The strip must have been written.
    pub unsafe fn add(&mut self, [a, b]: [Matrix<'_>; 2]) {
        let b = b.some_columns(self.columns());
        assert_eq!((a.shape(), b.shape()[0]), ([self.rows, a.shape()[1]], a.shape()[1]));
        // SAFETY: a has the rows of the strip, b its columns, and they have the inner size in common.
        unsafe { multiply_into(self.first, self.stride, a, b, 1.0, Accum::Add) }
    }

    /// `columns` of the strip in `N` rows from `row` on; of rows that are not there, none.
    #[cfg(target_arch = "x86_64")]
    pub fn block<const N: usize>(&mut self, row: usize, columns: Range<usize>) -> [&mut [MaybeUninit<f32>]; N] {
        assert!(columns.start <= columns.end && columns.end <= self.columns.len());
        std::array::from_fn(|i| match row + i < self.rows {
            // SAFETY: the row is there, nobody else has its columns, and each is taken once.
            true => unsafe {
                let first = self.first.add((row + i) * self.stride + columns.start);
                std::slice::from_raw_parts_mut(first.cast(), columns.len())
            },
            false => &mut [],
        })
    }

    #[cfg(target_arch = "x86_64")]
    pub fn row(&mut self, row: usize) -> &mut [MaybeUninit<f32>] {
        assert!(row < self.rows);
        let [row] = self.block(row, 0..self.columns.len());
        row
    }
}
