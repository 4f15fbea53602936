//! Operands in bfloat16 as the matrix units want them: tiles of 16 lines of 64 bytes, padded with zeros.
//!
//! A tile of the left operand `[m, k]` has 16 of its rows, 32 columns each. A tile of the right operand `[k, n]` has 32 of its
//! rows and 16 columns: each line has the next two rows, column by column.

use std::ops::Range;

use rayon::prelude::*;

use super::avx512::Avx512;
use super::avx512_bf16::Avx512Bf16;
use super::{Stored, Weight};
use crate::{Side, bf16};

/// Lines of a tile.
pub(super) const LINES: usize = 16;

/// Pairs of bfloat16 values.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u32; 16]);

/// Rows or columns of a result tile.
pub(super) const EDGE: usize = 16;

/// Elements of the inner dimension in a tile.
pub(super) const DEPTH: usize = 32;

pub(super) const ZEROS: Line = Line([0; 16]);

/// As halves of pairs, the earlier one first.
fn halves(lines: &mut [Line]) -> &mut [u16] {
    // SAFETY: a line is 32 halves, any bits are a half, and nothing needs less alignment.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), 32 * lines.len()) }
}

/// Columns `inner` of `x [m, k]`, one tile of rows after the other.
pub(super) fn left(unit: Avx512Bf16, x: &[f32], k: usize, inner: Range<usize>, lines: &mut Vec<Line>) {
    let steps = inner.len().div_ceil(DEPTH);
    lines.resize((x.len() / k).div_ceil(EDGE) * steps * LINES, ZEROS);
    let rows = x.par_chunks(EDGE * k);
    lines.par_chunks_exact_mut(steps * LINES).zip(rows).for_each(|(tiles, rows)| {
        for line in 0..LINES {
            let mut parts = rows.chunks_exact(k).nth(line).map_or(&[][..], |row| &row[inner.clone()]).chunks(DEPTH);
            for tile in tiles.chunks_exact_mut(LINES) {
                unit.round(parts.next().unwrap_or(&[]), &mut tile[line]);
            }
        }
    });
}

/// Rows `inner` and `columns` of the right operand: of `Wᵀ` or of `W`, one tile of columns after the other.
pub(super) fn right(
    isa: Avx512,
    weight: &Weight<'_>,
    side: Side,
    inner: Range<usize>,
    columns: Range<usize>,
    lines: &mut Vec<Line>,
) {
    lines.resize(columns.len().div_ceil(EDGE) * inner.len().div_ceil(DEPTH) * LINES, ZEROS);
    match side {
        Side::Forward => transposed(isa, weight, inner, columns, lines),
        Side::Backward => interleaved(isa, weight, inner, columns, lines),
    }
}

/// Columns of `Wᵀ`, which are rows of `W`.
fn transposed(isa: Avx512, weight: &Weight<'_>, inner: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
    let (cols, steps) = (weight.shape[1], inner.len().div_ceil(DEPTH));
    let mut decoded = vec![ZEROS; LINES * steps];
    let mut next = columns.clone();
    for tiles in lines.chunks_exact_mut(steps * LINES) {
        for row in decoded.chunks_exact_mut(steps) {
            match next.next() {
                Some(at) => weight.decode_bf16(isa, at * cols + inner.start, &mut halves(row)[..inner.len()]),
                None => row.fill(ZEROS),
            }
        }
        for (step, tile) in tiles.as_chunks_mut::<LINES>().0.iter_mut().enumerate() {
            let rows = std::array::from_fn(|row| &decoded[row * steps + step].0);
            isa.transpose(rows, &mut tile.each_mut().map(|line| &mut line.0));
        }
    }
}

/// Columns of `W`, two rows at a time.
fn interleaved(isa: Avx512, weight: &Weight<'_>, inner: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
    let (cols, steps, width) = (weight.shape[1], inner.len().div_ceil(DEPTH), columns.len());
    let mut decoded = [vec![ZEROS; width.div_ceil(DEPTH)], vec![ZEROS; width.div_ceil(DEPTH)]];
    for line in 0..steps * LINES {
        for (row, decoded) in (inner.start + 2 * line..).zip(&mut decoded) {
            match row < inner.end {
                true => weight.decode_bf16(isa, row * cols + columns.start, &mut halves(decoded)[..width]),
                false => decoded.fill(ZEROS),
            }
        }
        let [first, second] = decoded.each_mut().map(|decoded| halves(decoded).as_chunks::<EDGE>().0);
        let lines = lines[line..].iter_mut().step_by(steps * LINES);
        for ((line, first), second) in lines.zip(first).zip(second) {
            line.0 = std::array::from_fn(|i| u32::from(first[i]) | u32::from(second[i]) << 16);
        }
    }
}

impl Weight<'_> {
    /// Elements `start..start + out.len()`.
    fn decode_bf16(&self, isa: Avx512, start: usize, out: &mut [u16]) {
        let start = self.skip + start;
        match &self.stored {
            Stored::Dense(values) => {
                out.iter_mut().zip(&values[start..]).for_each(|(o, value)| *o = bf16::round(*value))
            }
            Stored::Bf16(codes) => out.copy_from_slice(&bytemuck::cast_slice(codes)[start..start + out.len()]),
            Stored::FourBit(blocks) => isa.four_bit_bf16(blocks, start, out),
        }
    }
}
