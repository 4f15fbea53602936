//! Columns times factors on the CPU: rows in parallel, each read from memory once. Sums are in one order whatever the threads do.

use rayon::prelude::*;

use crate::cpu_norm::{ROWS, rows, total};

/// `x [n, cols]` with its columns multiplied by `c [cols]`.
pub(crate) fn forward(x: &[f32], c: &[f32]) -> Vec<f32> {
    rows(x, c.len(), |_, y| y.iter_mut().zip(c).for_each(|(y, c)| *y *= c))
}

/// Gradients to x and c.
pub(crate) fn gradients(x: &[f32], c: &[f32], grad: &[f32]) -> [Vec<f32>; 2] {
    let mut dx = Box::new_uninit_slice(x.len());
    let block = ROWS * c.len();
    let blocks = dx.par_chunks_mut(block).zip(x.par_chunks(block)).zip(grad.par_chunks(block));
    let sums: Vec<Vec<f32>> = blocks
        .map(|((dx, x), grad)| {
            let mut sum = vec![0.0; c.len()];
            let rows = dx.write_copy_of_slice(grad).chunks_exact_mut(c.len());
            for (dx, x) in rows.zip(x.chunks_exact(c.len())) {
                for (((dx, x), c), sum) in dx.iter_mut().zip(x).zip(c).zip(&mut sum) {
                    *sum += *dx * x;
                    *dx *= c;
                }
            }
            sum
        })
        .collect();
    // SAFETY: the blocks are all of it, and each was written.
    [unsafe { dx.assume_init() }.into_vec(), total(&sums, c.len())]
}
