//! AVX-512 with dot products of bfloat16 pairs.

use std::arch::x86_64::*;

use super::avx512::{Avx512, load, store};
use super::pack::{DEPTH, LINES, Line};
use super::panels::Sums;

/// Exists only where the processor has these instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    pub fn detect() -> Option<Self> {
        let avx512 = Avx512::detect()?;
        is_x86_feature_detected!("avx512bf16").then_some(Self(avx512))
    }

    pub fn avx512(self) -> Avx512 {
        self.0
    }

    /// Up to 32 values, followed by zeros.
    pub fn round(self, values: &[f32], line: &mut Line) {
        // SAFETY: `self` exists only where the features were detected.
        unsafe { round(values, line) }
    }

    /// Sums over two tiles of rows and two of columns, each over the whole inner dimension.
    pub fn multiply(self, left: [&[Line]; 2], right: [&[Line]; 2], sums: &mut Sums) {
        // SAFETY: as above.
        unsafe { multiply(left, right, sums) }
    }
}

/// Whether this is a processor that multiplies faster in f32.
pub(super) fn slower_than_f32() -> bool {
    let id = __cpuid(0);
    [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn round(values: &[f32], line: &mut Line) {
    let mut padded = [0.0; DEPTH];
    let values = values.as_array::<DEPTH>().unwrap_or_else(|| {
        padded[..values.len()].copy_from_slice(values);
        &padded
    });
    let (halves, _) = values.as_chunks::<16>();
    let pairs = _mm512_cvtne2ps_pbh(load(&halves[1]), load(&halves[0]));
    // SAFETY: both are 64 bytes, any of which are a line.
    line.0 = unsafe { std::mem::transmute::<__m512bh, [u32; 16]>(pairs) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn multiply(left: [&[Line]; 2], right: [&[Line]; 2], sums: &mut Sums) {
    const ROWS: usize = 8;
    let right = right[0].iter().zip(right[1]);
    for (left, sums) in left.iter().zip(&mut sums.0) {
        for first in (0..LINES).step_by(ROWS) {
            let mut totals = [[_mm512_setzero_ps(); 2]; ROWS];
            for (line, (a, b)) in right.clone().enumerate() {
                let rows: &[Line; ROWS] = left[line / LINES * LINES + first..].first_chunk().expect("a whole tile");
                let columns = [pairs(a), pairs(b)];
                for (totals, row) in totals.iter_mut().zip(rows) {
                    // SAFETY: both are 64 bytes, any of which are pairs.
                    let x = unsafe {
                        std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(row.0[line % LINES] as i32))
                    };
                    (0..2).for_each(|i| totals[i] = _mm512_dpbf16_ps(totals[i], x, columns[i]));
                }
            }
            for (row, totals) in (first..).zip(totals) {
                (0..2).for_each(|i| store(totals[i], &mut sums[i][row]));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pairs(line: &Line) -> __m512bh {
    // SAFETY: both are 64 bytes, any of which are pairs.
    unsafe { std::mem::transmute::<[u32; 16], __m512bh>(line.0) }
}
