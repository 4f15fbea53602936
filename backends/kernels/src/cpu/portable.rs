//! Kernels without instructions of their own.

use super::stored::{Blocks, Run};
use crate::{Compute, bf16};

pub(super) fn four_bit(blocks: &Blocks<'_>, start: usize, compute: Compute, out: &mut [f32]) {
    for Run { scale, range } in blocks.runs(start, out.len()) {
        let mut table = blocks.book().map(|value| value * scale);
        if compute == Compute::Bf16 {
            table = table.map(|value| bf16::widen(bf16::round(value)));
        }
        lookup(&table, blocks.codes, start + range.start, &mut out[range]);
    }
}

/// `table[index]` of the elements from `at` on.
#[inline]
pub(super) fn lookup<T: Copy>(table: &[T; 16], codes: &[i32], at: usize, out: &mut [T]) {
    for (i, value) in (at..).zip(out) {
        // The earlier of two indices is in the high half of its byte.
        let shift = 8 * (i % 8 / 2) + 4 * (1 - i % 2);
        *value = table[(codes[i / 8] as u32 >> shift & 15) as usize];
    }
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        (0..16).for_each(|i| sums[i] += a[i] * b[i]);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
