//! Factorisations of dense matrices on the host, computed in f64. All matrices are row-major.

use faer::{Mat, MatRef};

use crate::{Error, Result};

/// `W = u · diag(s) · vt`, thin: `k = min(rows, cols)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Svd {
    /// `[rows, k]`
    pub u: Vec<f64>,
    /// `[k]`, largest first.
    pub s: Vec<f64>,
    /// `[k, cols]`
    pub vt: Vec<f64>,
}

/// `W = q · r`, thin: `k = min(rows, cols)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Qr {
    /// `[rows, k]`, orthonormal columns.
    pub q: Vec<f64>,
    /// `[k, cols]`, upper triangular.
    pub r: Vec<f64>,
}

/// Singular value decomposition of `values [rows, cols]`.
///
/// # Errors
/// If the iteration does not converge, as with values that are not finite.
pub fn svd(values: &[f64], [rows, cols]: [usize; 2]) -> Result<Svd> {
    let svd = MatRef::from_row_major_slice(values, rows, cols).thin_svd();
    let svd = svd.map_err(|error| Error::Failed(format!("singular values of a {rows} × {cols} matrix: {error:?}")))?;
    let s = svd.S().column_vector();
    Ok(Svd { u: row_major(svd.U()), s: s.iter().copied().collect(), vt: row_major(svd.V().transpose()) })
}

/// The largest singular values and vectors, as many as `start [cols, k]` has columns: subspace iteration from that random
/// start, `iterations` times through W Wᵀ (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1). `k ≤ min(rows, cols)`.
///
/// # Errors
/// As for [`svd`].
pub fn randomized_svd(values: &[f64], [rows, cols]: [usize; 2], start: &[f64], iterations: usize) -> Result<Svd> {
    let k = start.len() / cols;
    let w = MatRef::from_row_major_slice(values, rows, cols);
    let basis = |m: Mat<f64>| m.qr().compute_thin_Q();
    let mut q = basis(w * MatRef::from_row_major_slice(start, cols, k));
    for _ in 0..iterations {
        let across = basis(w.transpose() * &q);
        q = basis(w * &across);
    }
    let small = svd(&row_major((q.transpose() * w).as_ref()), [k, cols])?;
    let u = row_major((&q * MatRef::from_row_major_slice(&small.u, k, k)).as_ref());
    Ok(Svd { u, ..small })
}

/// The `k ≤ min(rows, cols)` largest singular values and vectors, from the eigenvectors of the smaller of W Wᵀ and Wᵀ W. It takes half the
/// time of [`svd`]; a value σ is off by some 10⁻¹⁶ σ₁² / σ, so those far below the largest, σ₁, are lost.
///
/// # Errors
/// As for [`svd`].
pub fn leading_svd(values: &[f64], [rows, cols]: [usize; 2], k: usize) -> Result<Svd> {
    let w = MatRef::from_row_major_slice(values, rows, cols);
    let across = if rows <= cols { w } else { w.transpose() };
    let eigen = (across * across.transpose()).self_adjoint_eigen(faer::Side::Lower);
    let eigen =
        eigen.map_err(|error| Error::Failed(format!("eigenvalues under a {rows} × {cols} matrix: {error:?}")))?;
    let n = across.nrows();
    // The last eigenvalue is the largest.
    let short = Mat::from_fn(n, k, |i, j| eigen.U()[(i, n - 1 - j)]);
    let mut long = across.transpose() * &short;
    let s: Vec<f64> = (0..k).map(|j| long.col(j).norm_l2()).collect();
    for (j, s) in s.iter().enumerate().filter(|(_, s)| **s > 0.0) {
        long.col_mut(j).iter_mut().for_each(|v| *v /= s);
    }
    let [u, v] = if rows <= cols { [short, long] } else { [long, short] };
    Ok(Svd { u: row_major(u.as_ref()), s, vt: row_major(v.transpose()) })
}

/// QR decomposition of `values [rows, cols]`.
pub fn qr(values: &[f64], [rows, cols]: [usize; 2]) -> Qr {
    let qr = MatRef::from_row_major_slice(values, rows, cols).qr();
    Qr { q: row_major(qr.compute_thin_Q().as_ref()), r: row_major(qr.thin_R()) }
}

/// `a [rows, inner] · b [inner, cols]`.
pub fn matmul(a: &[f64], [rows, inner]: [usize; 2], b: &[f64], cols: usize) -> Vec<f64> {
    let product: Mat<f64> = MatRef::from_row_major_slice(a, rows, inner) * MatRef::from_row_major_slice(b, inner, cols);
    row_major(product.as_ref())
}

/// Products of rows or of columns with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Rows,
    Columns,
}

/// All inner products among the rows (or columns) of `m [rows, cols]`: `m · mᵀ` (or `mᵀ · m`).
pub fn gram(m: &[f64], [rows, cols]: [usize; 2], side: Side) -> Vec<f64> {
    let m = MatRef::from_row_major_slice(m, rows, cols);
    let product: Mat<f64> = if side == Side::Rows { m * m.transpose() } else { m.transpose() * m };
    row_major(product.as_ref())
}

/// Solves `m · x = b` for a symmetric positive definite `m [n, n]` and `b [n, cols]`.
///
/// # Errors
/// If `m` is not positive definite.
pub fn solve_positive(m: &[f64], n: usize, b: &[f64], cols: usize) -> Result<Vec<f64>> {
    use faer::linalg::solvers::Solve;
    let llt = MatRef::from_row_major_slice(m, n, n).llt(faer::Side::Lower);
    let llt = llt.map_err(|error| Error::Failed(format!("not positive definite: {error:?}")))?;
    Ok(row_major(llt.solve(MatRef::from_row_major_slice(b, n, cols)).as_ref()))
}

/// `m [rows, cols]` with columns first.
pub fn transposed<T: Copy>(m: &[T], cols: usize) -> Vec<T> {
    (0..cols).flat_map(|col| m.iter().skip(col).step_by(cols)).copied().collect()
}

/// In the precision that everything here has.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn row_major(matrix: MatRef<'_, f64>) -> Vec<f64> {
    (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(rows: usize, cols: usize) -> Vec<f64> {
        (0..rows * cols).map(|i| (i as f64 * 0.7).sin()).collect()
    }

    #[track_caller]
    fn same(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn factors_multiply_back_and_are_sorted() {
        for [rows, cols] in [[5, 3], [3, 5], [4, 4]] {
            let (w, k) = (example(rows, cols), rows.min(cols));
            let Svd { mut u, s, vt } = svd(&w, [rows, cols]).unwrap();
            assert!(s.is_sorted_by(|a, b| a >= b) && s.len() == k);
            u.iter_mut().enumerate().for_each(|(i, u)| *u *= s[i % k]);
            same(&matmul(&u, [rows, k], &vt, cols), &w);
            let Qr { q, r } = qr(&w, [rows, cols]);
            same(&matmul(&q, [rows, k], &r, cols), &w);
            assert!((1..k).all(|i| r[i * cols..i * cols + i].iter().all(|below| *below == 0.0)));
        }
    }

    #[test]
    fn power_iterations_find_the_largest_singular_values() {
        for [rows, cols] in [[9, 5], [5, 9]] {
            let full_rank = |n: usize| (0..n).map(|i| ((i * i) as f64 * 0.7).sin()).collect::<Vec<_>>();
            let (w, start) = (full_rank(rows * cols), full_rank(cols * 3));
            let (exact, found) =
                (svd(&w, [rows, cols]).unwrap(), randomized_svd(&w, [rows, cols], &start, 30).unwrap());
            assert_eq!((found.u.len(), found.s.len(), found.vt.len()), (rows * 3, 3, 3 * cols));
            assert!(found.s.iter().zip(&exact.s).all(|(a, b)| (a - b).abs() < 1e-9), "{:?} {:?}", found.s, exact.s);
            assert_eq!(randomized_svd(&w, [rows, cols], &start, 30).unwrap(), found);
        }
    }

    #[test]
    fn leading_singular_values_are_the_largest_of_all() {
        for [rows, cols] in [[40, 90], [90, 40], [40, 40]] {
            let w: Vec<f64> = (0..rows * cols).map(|i| ((i * i) as f64 * 0.7).sin()).collect();
            let (exact, found) = (svd(&w, [rows, cols]).unwrap(), leading_svd(&w, [rows, cols], 7).unwrap());
            assert_eq!((found.u.len(), found.s.len(), found.vt.len()), (rows * 7, 7, 7 * cols));
            assert!(found.s.iter().zip(&exact.s).all(|(a, b)| (a / b - 1.0).abs() < 1e-13), "{:?}", found.s);
            let product = |Svd { u, s, vt }: &Svd| {
                let scaled: Vec<f64> =
                    u.chunks_exact(s.len()).flat_map(|row| (0..7).map(|i| row[i] * s[i]).collect::<Vec<_>>()).collect();
                matmul(&scaled, [rows, 7], &vt[..7 * cols], cols)
            };
            same(&product(&found), &product(&exact));
        }
        let Svd { s, vt, .. } = leading_svd(&[0.0; 6], [2, 3], 2).unwrap();
        assert!(s == [0.0; 2] && vt == [0.0; 6]);
    }

    #[test]
    fn gram_matrices_are_products_with_the_transpose() {
        let m = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        same(&gram(&m, [2, 3], Side::Rows), &[14.0, 32.0, 32.0, 77.0]);
        same(&gram(&m, [2, 3], Side::Columns), &[17.0, 22.0, 27.0, 22.0, 29.0, 36.0, 27.0, 36.0, 45.0]);
    }

    #[test]
    fn solves_what_is_positive_definite_and_refuses_the_rest() {
        let m = [4.0, 1.0, 1.0, 3.0];
        same(&matmul(&m, [2, 2], &solve_positive(&m, 2, &[1.0, 2.0], 1).unwrap(), 1), &[1.0, 2.0]);
        assert!(solve_positive(&[1.0, 2.0, 2.0, 1.0], 2, &[1.0, 2.0], 1).is_err());
        assert!(svd(&[f64::NAN; 4], [2, 2]).is_err());
    }

    /// Threads must not share out the work as they please: sums in another order round differently.
    #[test]
    fn equal_matrices_have_equal_factors_beside_other_work() {
        let w = example(256, 96);
        let first = (svd(&w, [256, 96]).unwrap(), qr(&w, [256, 96]));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let again = || (0..20).all(|_| (svd(&w, [256, 96]).unwrap(), qr(&w, [256, 96])) == first);
                scope.spawn(move || assert!(again()));
            }
        });
    }
}
