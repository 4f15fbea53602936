//! AVX2 with fused multiply-add.

use std::arch::x86_64::*;

use super::portable;
use super::stored::{Blocks, Run};
use crate::Compute;

/// Exists only where the processor has these instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    /// See [`super::isa::Isa::four_bit`].
    pub fn four_bit(self, blocks: &Blocks<'_>, start: usize, compute: Compute, out: &mut [f32]) {
        // SAFETY: `self` exists only where the features were detected.
        unsafe { four_bit(blocks, start, compute, out) }
    }

    /// See [`super::isa::Isa::dot`].
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        // SAFETY: as above.
        unsafe { dot(a, b) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn four_bit(blocks: &Blocks<'_>, start: usize, compute: Compute, out: &mut [f32]) {
    let (book, _) = blocks.book().as_chunks();
    let book = [load(&book[0]), load(&book[1])];
    for Run { scale, range } in blocks.runs(start, out.len()) {
        let mut table = book.map(|values| _mm256_mul_ps(values, _mm256_set1_ps(scale)));
        if compute == Compute::Bf16 {
            table = table.map(|values| round(values));
        }
        let mut values = [[0.0; 8]; 2];
        table.into_iter().zip(&mut values).for_each(|(table, values)| store(table, values));
        let values: &[f32; 16] = values.as_flattened().try_into().expect("twice eight");
        let (mut at, out) = (start + range.start, &mut out[range]);
        // A byte that begins in another run, whole bytes, and what is left over.
        let (head, out) = out.split_at_mut(out.len().min(at % 2));
        portable::lookup(values, blocks.codes, at, head);
        at += head.len();
        let (groups, tail) = out.as_chunks_mut::<16>();
        let bytes = &bytemuck::cast_slice::<i32, u8>(blocks.codes)[at / 2..];
        for (group, bytes) in groups.iter_mut().zip(bytes.as_chunks().0) {
            lookup(table, *bytes, group);
        }
        portable::lookup(values, blocks.codes, at + 16 * groups.len(), tail);
    }
}

/// Rounded to the nearest bfloat16, ties to even, as [`crate::bf16::round`] does it.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn round(values: __m256) -> __m256 {
    let bits = _mm256_castps_si256(values);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd));
    let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
    let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
    let chosen = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
    _mm256_and_ps(chosen, _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000u32 as i32)))
}

/// `table[index]` of 16 indices.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn lookup([low, high]: [__m256; 2], bytes: [u8; 8], out: &mut [f32; 16]) {
    let codes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)));
    let (even, odd) = (_mm256_srli_epi32::<4>(codes), codes);
    let [even, odd] = [even, odd].map(|index| {
        // The permutations look at the low three bits of each index, the choice between them at the fourth, moved to the sign.
        let (low, high) = (_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index));
        _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
    });
    let (a, b) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
    let (halves, _) = out.as_chunks_mut();
    store(_mm256_permute2f128_ps::<0x20>(a, b), &mut halves[0]);
    store(_mm256_permute2f128_ps::<0x31>(a, b), &mut halves[1]);
}

#[target_feature(enable = "avx2,fma")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let ((a, a_after), (b, b_after)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [_mm256_setzero_ps(); 4];
    for (a, b) in a.iter().zip(b) {
        (0..4).for_each(|i| sums[i] = _mm256_fmadd_ps(load(&a[i]), load(&b[i]), sums[i]));
    }
    for (a, b) in a_after.iter().zip(b_after) {
        sums[0] = _mm256_fmadd_ps(load(a), load(b), sums[0]);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let mut lanes = [0.0; 8];
    store(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])), &mut lanes);
    lanes.iter().sum::<f32>() + rest
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[f32; 8]) -> __m256 {
    // SAFETY: the array has the 32 bytes that are read.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(values: __m256, out: &mut [f32; 8]) {
    // SAFETY: the array has the 32 bytes that are written.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) }
}
