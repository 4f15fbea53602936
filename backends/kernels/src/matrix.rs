//! Small matrix products on one thread, on strided views.

use std::ops::Range;

use gemm::{Parallelism, gemm};

/// What becomes of what was there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accum {
    Replace,
    Add,
}

/// A view of a row-major matrix or of its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Element `[i, j]` is `values[i · row_stride + j · col_stride]`.
    pub fn strided(values: &'a [f32], [rows, cols]: [usize; 2], [row_stride, col_stride]: [usize; 2]) -> Self {
        let last = rows.saturating_sub(1) * row_stride + cols.saturating_sub(1) * col_stride;
        assert!(rows * cols == 0 || last < values.len(), "a matrix of [{rows}, {cols}]");
        Self { values, rows, cols, row_stride, col_stride }
    }

    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), rows * cols, "a matrix of [{rows}, {cols}]");
        Self { values, rows, cols, row_stride: cols, col_stride: 1 }
    }

    pub fn shape(self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Some of the rows.
    pub fn some_rows(self, rows: Range<usize>) -> Self {
        assert!(rows.start < rows.end && rows.end <= self.rows);
        Self { values: &self.values[rows.start * self.row_stride..], rows: rows.len(), ..self }
    }

    /// Some of the columns.
    pub fn some_columns(self, columns: Range<usize>) -> Self {
        self.t().some_rows(columns).t()
    }

    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// What our own kernels read.
#[cfg(target_arch = "x86_64")]
impl<'a> Matrix<'a> {
    pub fn at(self, row: usize, col: usize) -> f32 {
        debug_assert!(row < self.rows && col < self.cols);
        self.values[row * self.row_stride + col * self.col_stride]
    }

    /// Its elements row by row.
    pub fn to_rows(self) -> std::borrow::Cow<'a, [f32]> {
        match self.col_stride == 1 && self.row_stride == self.cols {
            true => self.values[..self.rows * self.cols].into(),
            false => (0..self.rows * self.cols).map(|i| self.at(i / self.cols, i % self.cols)).collect(),
        }
    }
}

/// `alpha · a · b` in the place of a row-major `y` or added to it, on the calling thread.
pub(crate) fn multiply(y: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, alpha: f32, accum: Accum) {
    assert!(
        a.cols == b.rows && y.len() == a.rows * b.cols,
        "product of [{}, {}] and [{}, {}]",
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    // SAFETY: the assertion gives y its rows.
    unsafe { multiply_into(y.as_mut_ptr(), b.cols, a, b, alpha, accum) }
}

/// The same for a `y` whose rows begin `stride` elements apart; one that is replaced is not read.
///
/// # Safety
/// `y` must point to `a.rows` such rows of `b.cols` elements each that nobody else uses, and `a` must have as many columns as `b` has rows.
pub(crate) unsafe fn multiply_into(y: *mut f32, stride: usize, a: Matrix<'_>, b: Matrix<'_>, alpha: f32, accum: Accum) {
    let beta = if accum == Accum::Add { 1.0 } else { 0.0 };
    // SAFETY: the caller vouches for y; the constructors of `Matrix` bound every index that sizes and strides can form.
    unsafe {
        gemm(
            a.rows,
            b.cols,
            a.cols,
            y,
            1,
            stride as isize,
            accum == Accum::Add,
            a.values.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            beta,
            alpha,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_and_accumulates() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, -1.0, 0.5, 2.0, 0.0, 1.0];
        let mut y = [1.0; 4];
        // [2, 3] · [2, 3]ᵀ
        multiply(&mut y, Matrix::new(&a, 2, 3), Matrix::new(&b, 2, 3).t(), 2.0, Accum::Add);
        assert_eq!(y, [1.0 + 1.0, 1.0 + 10.0, 1.0 + 4.0, 1.0 + 28.0]);
    }
}
