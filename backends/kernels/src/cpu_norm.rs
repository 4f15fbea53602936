//! The norm on the CPU: rows in parallel, each read from memory once. Sums are in one order whatever the threads do.

use rayon::prelude::*;

/// Rows that one task takes.
pub(crate) const ROWS: usize = 32;

/// `x [n, hidden]` to `[n, hidden]`, for a weight of `hidden` elements.
pub(crate) fn forward(x: &[f32], weight: &[f32], eps: f64) -> Vec<f32> {
    rows(x, weight.len(), |_, y| {
        let scale = scale(y, eps);
        y.iter_mut().zip(weight).for_each(|(y, w)| *y = *y * scale * w);
    })
}

/// Gradient to `x` from `grad [n, hidden]`.
pub(crate) fn input_gradient(x: &[f32], weight: &[f32], grad: &[f32], eps: f64) -> Vec<f32> {
    rows(grad, weight.len(), |row, dx| {
        let x = &x[row * weight.len()..][..weight.len()];
        let scale = scale(x, eps);
        dx.iter_mut().zip(weight).for_each(|(dx, w)| *dx *= w);
        let along = dot(dx, x) * scale * scale / x.len() as f32;
        dx.iter_mut().zip(x).for_each(|(dx, x)| *dx = scale * (*dx - along * x));
    })
}

/// Gradient to the weight: the sums of blocks of rows, added up in their order.
pub(crate) fn weight_gradient(x: &[f32], grad: &[f32], cols: usize, eps: f64) -> Vec<f32> {
    let blocks = x.par_chunks(ROWS * cols).zip(grad.par_chunks(ROWS * cols));
    let sums: Vec<Vec<f32>> = blocks
        .map(|(x, grad)| {
            let mut sum = vec![0.0; cols];
            for (x, grad) in x.chunks_exact(cols).zip(grad.chunks_exact(cols)) {
                let scale = scale(x, eps);
                sum.iter_mut().zip(x).zip(grad).for_each(|((sum, x), grad)| *sum += grad * x * scale);
            }
            sum
        })
        .collect();
    total(&sums, cols)
}

/// Sums of `cols` columns, added up in their order.
pub(crate) fn total(sums: &[Vec<f32>], cols: usize) -> Vec<f32> {
    let mut total = vec![0.0; cols];
    sums.iter().for_each(|sum| total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum));
    total
}

/// A copy of x of which `change` has seen every row and its number.
pub(crate) fn rows(x: &[f32], cols: usize, change: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut y = Box::new_uninit_slice(x.len());
    let blocks = y.par_chunks_mut(ROWS * cols).zip(x.par_chunks(ROWS * cols)).enumerate();
    blocks.for_each(|(block, (y, x))| {
        let rows = y.write_copy_of_slice(x).chunks_exact_mut(cols);
        (block * ROWS..).zip(rows).for_each(|(row, y)| change(row, y));
    });
    // SAFETY: the blocks are all of it, and each was written.
    unsafe { y.assume_init() }.into_vec()
}

/// 1 / sqrt(mean(x²) + ε)
fn scale(x: &[f32], eps: f64) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps as f32).sqrt()
}

/// In lanes that the compiler can make vectors of.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut lanes = [0.0; LANES];
    for (a, b) in a.zip(b) {
        lanes.iter_mut().zip(a).zip(b).for_each(|((lane, a), b)| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + rest
}
