//! Matrix products of plain slices, for work on weight files that needs no backend.

use gemm::{Parallelism, gemm};

/// Product of the row-major matrices `a` (`[m, k]`) and `b` (`[k, n]`), on all threads.
///
/// # Panics
/// If a slice does not have as many elements as its shape says, or the inner sizes differ.
pub fn matmul(a: &[f32], [m, k]: [usize; 2], b: &[f32], [inner, n]: [usize; 2]) -> Vec<f32> {
    assert!(a.len() == m * k && b.len() == inner * n && k == inner, "matmul of [{m}, {k}] and [{inner}, {n}]");
    let mut product = vec![0.0; m * n];
    let stride = |columns: usize| columns as isize;
    // SAFETY: the assertion above bounds every index that these sizes and strides can form.
    unsafe {
        gemm(
            m,
            n,
            k,
            product.as_mut_ptr(),
            1,
            stride(n),
            false,
            a.as_ptr(),
            1,
            stride(k),
            b.as_ptr(),
            1,
            stride(n),
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
    product
}

#[cfg(test)]
mod tests {
    use super::matmul;

    #[test]
    fn equals_the_triple_loop() {
        let (m, k, n) = (5, 7, 3);
        let a: Vec<f32> = (0..m * k).map(|i| (i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
        let expected: Vec<f32> =
            (0..m * n).map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum()).collect();
        assert_eq!(matmul(&a, [m, k], &b, [k, n]), expected);
    }

    #[test]
    fn an_empty_inner_size_gives_zeros() {
        assert_eq!(matmul(&[], [2, 0], &[], [0, 3]), vec![0.0; 6]);
        assert_eq!(matmul(&[], [0, 2], &[1.0; 4], [2, 2]), Vec::<f32>::new());
    }

    #[test]
    #[should_panic(expected = "matmul of [2, 2] and [3, 1]")]
    fn refuses_shapes_that_do_not_fit() {
        matmul(&[0.0; 4], [2, 2], &[0.0; 3], [3, 1]);
    }
}
