//! AVX-512.

use std::arch::x86_64::*;

use super::portable;
use super::stored::{Blocks, Run};
use crate::Compute;

/// Exists only where the processor has these instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")).then_some(Self(()))
    }

    /// See [`super::isa::Isa::four_bit`].
    pub fn four_bit(self, blocks: &Blocks<'_>, start: usize, compute: Compute, out: &mut [f32]) {
        // SAFETY: `self` exists only where the features were detected.
        unsafe { four_bit(blocks, start, compute, out) }
    }

    /// Elements `start..start + out.len()` of a four-bit matrix as bfloat16.
    pub fn four_bit_bf16(self, blocks: &Blocks<'_>, start: usize, out: &mut [u16]) {
        // SAFETY: as above.
        unsafe { four_bit_bf16(blocks, start, out) }
    }

    /// See [`super::isa::Isa::dot`].
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        // SAFETY: as above.
        unsafe { dot(a, b) }
    }

    /// The transpose of 16 rows of 16 integers.
    pub fn transpose(self, rows: [&[u32; 16]; 16], out: &mut [&mut [u32; 16]; 16]) {
        // SAFETY: as above.
        unsafe { transpose(rows, out) }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn four_bit(blocks: &Blocks<'_>, start: usize, compute: Compute, out: &mut [f32]) {
    let book = load(blocks.book());
    for Run { scale, range } in blocks.runs(start, out.len()) {
        let mut table = _mm512_mul_ps(book, _mm512_set1_ps(scale));
        if compute == Compute::Bf16 {
            table = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(round(table)));
        }
        let mut values = [0.0; 16];
        store(table, &mut values);
        let at = start + range.start;
        decode(&values, blocks.codes, at, &mut out[range], |bytes, group| lookup(table, bytes, group));
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn four_bit_bf16(blocks: &Blocks<'_>, start: usize, out: &mut [u16]) {
    let book = load(blocks.book());
    for Run { scale, range } in blocks.runs(start, out.len()) {
        let half = _mm512_cvtepi32_epi16(round(_mm512_mul_ps(book, _mm512_set1_ps(scale))));
        // Twice, so that the fifth bit of an index does not matter.
        let table = _mm512_broadcast_i64x4(half);
        let mut values = [0; 32];
        store_halves(table, &mut values);
        let at = start + range.start;
        let values = values.first_chunk().expect("32 are more than 16");
        decode(values, blocks.codes, at, &mut out[range], |bytes, group| lookup_halves(table, bytes, group));
    }
}

/// Elements of one block from `at` on: one whose byte began before, groups of 32, and what is left over.
#[inline]
fn decode<T: Copy>(table: &[T; 16], codes: &[i32], at: usize, out: &mut [T], lookup: impl Fn(&[u8; 16], &mut [T; 32])) {
    let (head, out) = out.split_at_mut(out.len().min(at % 2));
    portable::lookup(table, codes, at, head);
    let at = at + head.len();
    let (groups, tail) = out.as_chunks_mut();
    let bytes = &bytemuck::cast_slice::<i32, u8>(codes)[at / 2..];
    for (group, bytes) in groups.iter_mut().zip(bytes.as_chunks().0) {
        lookup(bytes, group);
    }
    portable::lookup(table, codes, at + 32 * groups.len(), tail);
}

/// The nearest bfloat16 codes, ties to even, as [`crate::bf16::round`] finds them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn round(values: __m512) -> __m512i {
    let bits = _mm512_castps_si512(values);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), odd));
    let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    _mm512_srli_epi32::<16>(_mm512_mask_mov_epi32(rounded, nan, quiet))
}

/// `table[index]` of 32 indices.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn lookup(table: __m512, bytes: &[u8; 16], out: &mut [f32; 32]) {
    const FIRST: [i32; 16] = [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23];
    let codes = _mm512_cvtepu8_epi32(load_bytes(bytes));
    // The permutation looks at the low four bits of each index alone.
    let even = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(codes), table);
    let odd = _mm512_permutexvar_ps(codes, table);
    let first = load_integers(&FIRST);
    let (halves, _) = out.as_chunks_mut::<16>();
    store(_mm512_permutex2var_ps(even, first, odd), &mut halves[0]);
    store(_mm512_permutex2var_ps(even, _mm512_add_epi32(first, _mm512_set1_epi32(8)), odd), &mut halves[1]);
}

/// The same of 16-bit values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn lookup_halves(table: __m512i, bytes: &[u8; 16], out: &mut [u16; 32]) {
    let codes = _mm512_cvtepu8_epi32(load_bytes(bytes));
    let indices = _mm512_or_si512(_mm512_srli_epi32::<4>(codes), _mm512_slli_epi32::<16>(codes));
    store_halves(_mm512_permutexvar_epi16(indices, table), out);
}

#[target_feature(enable = "avx512f,avx512bw")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let ((a, a_after), (b, b_after)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [_mm512_setzero_ps(); 4];
    for (a, b) in a.iter().zip(b) {
        (0..4).for_each(|i| sums[i] = _mm512_fmadd_ps(load(&a[i]), load(&b[i]), sums[i]));
    }
    for (a, b) in a_after.iter().zip(b_after) {
        sums[0] = _mm512_fmadd_ps(load(a), load(b), sums[0]);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
    _mm512_reduce_add_ps(sum) + rest
}

#[target_feature(enable = "avx512f,avx512bw")]
fn transpose(rows: [&[u32; 16]; 16], out: &mut [&mut [u32; 16]; 16]) {
    let mut pairs = [_mm512_setzero_si512(); 16];
    let mut r = pairs;
    // A loop, because the closure of an array's `map` would not be inlined into instructions that `map` is not compiled for.
    for (r, row) in r.iter_mut().zip(rows) {
        *r = load_integers(bytemuck::cast_ref(row));
    }
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    // quads[4 i + j] holds in its part l what rows 4 i.. have in column 4 l + j.
    let mut quads = pairs;
    for (i, p) in pairs.as_chunks::<4>().0.iter().enumerate() {
        quads[4 * i] = _mm512_unpacklo_epi64(p[0], p[2]);
        quads[4 * i + 1] = _mm512_unpackhi_epi64(p[0], p[2]);
        quads[4 * i + 2] = _mm512_unpacklo_epi64(p[1], p[3]);
        quads[4 * i + 3] = _mm512_unpackhi_epi64(p[1], p[3]);
    }
    for j in 0..4 {
        let (a, b, c, d) = (quads[j], quads[4 + j], quads[8 + j], quads[12 + j]);
        let (even, even_after) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
        let (odd, odd_after) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
        store_integers(_mm512_shuffle_i32x4::<0x88>(even, even_after), out[j]);
        store_integers(_mm512_shuffle_i32x4::<0x88>(odd, odd_after), out[4 + j]);
        store_integers(_mm512_shuffle_i32x4::<0xdd>(even, even_after), out[8 + j]);
        store_integers(_mm512_shuffle_i32x4::<0xdd>(odd, odd_after), out[12 + j]);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(values: &[f32; 16]) -> __m512 {
    // SAFETY: the array has the 64 bytes that are read.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_integers(values: &[i32; 16]) -> __m512i {
    // SAFETY: as above.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_bytes(values: &[u8; 16]) -> __m128i {
    // SAFETY: the array has the 16 bytes that are read.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(values: __m512, out: &mut [f32; 16]) {
    // SAFETY: the array has the 64 bytes that are written.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_integers(values: __m512i, out: &mut [u32; 16]) {
    // SAFETY: as above.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), values) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_halves(values: __m512i, out: &mut [u16; 32]) {
    // SAFETY: as above.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), values) }
}
