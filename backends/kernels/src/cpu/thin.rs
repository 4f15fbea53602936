//! Products with the factors of low-rank terms: either a side of the result or what is summed over is a rank.

use rayon::prelude::*;

use super::strips::{Strip, by_strips};
use crate::matrix::{Accum, Matrix, multiply, multiply_into};

/// Rows or columns of the result per task.
const SHARE: usize = 64;

/// Multiplications that are not worth waking another thread for.
const SMALL: usize = 1 << 16;

/// `a [m, k] · b [k, n] → [m, n]`, the longer side of the result shared out. No view is copied.
pub(crate) fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let ([m, k], [inner, n]) = (a.shape(), b.shape());
    assert_eq!(k, inner, "product of [{m}, {k}] and [{inner}, {n}]");
    if m * n * k <= SMALL {
        let mut y = vec![0.0; m * n];
        multiply(&mut y, a, b, 1.0, Accum::Replace);
        return y;
    }
    if m < n {
        let write = |mut strip: Strip<'_>| {
            let b = b.some_columns(strip.columns());
            // SAFETY: the strip has m rows of as many elements as b has columns, and a and b have k in common.
            unsafe { multiply_into(strip.as_mut_ptr(), strip.stride(), a, b, 1.0, Accum::Replace) }
        };
        // SAFETY: the products fill their strips and do not read them.
        return unsafe { by_strips(m, n, SHARE, write) };
    }
    let mut y = vec![0.0; m * n];
    y.par_chunks_mut(SHARE * n).enumerate().for_each(|(i, y)| {
        let rows = i * SHARE..i * SHARE + y.len() / n;
        multiply(y, a.some_rows(rows), b, 1.0, Accum::Replace);
    });
    y
}

#[cfg(test)]
mod tests {
    use super::super::testing::numbers;
    use super::*;

    #[test]
    fn any_shape_and_view_is_the_plain_product() {
        for [m, k, n] in [[1, 1, 1], [200, 96, 8], [200, 8, 96], [8, 200, 150], [130, 8, 130], [70, 300, 5]] {
            let (a, b) = (numbers(m * k, 3), numbers(k * n, 4));
            let plain: Vec<f32> =
                (0..m * n).map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum()).collect();
            let transposed = |x: &[f32], [rows, cols]: [usize; 2]| -> Vec<f32> {
                (0..x.len()).map(|i| x[i % rows * cols + i / rows]).collect()
            };
            let (at, bt) = (transposed(&a, [m, k]), transposed(&b, [k, n]));
            for a in [Matrix::new(&a, m, k), Matrix::new(&at, k, m).t()] {
                for b in [Matrix::new(&b, k, n), Matrix::new(&bt, n, k).t()] {
                    let y = product(a, b);
                    let worst = y.iter().zip(&plain).map(|(y, p)| (y - p).abs()).fold(0.0, f32::max);
                    assert!(worst < 1e-4, "{m} {k} {n}: {worst}");
                }
            }
        }
    }
}
