//! Columns of a right operand as the f32 kernel of AVX-512 wants them: [`COLUMNS`] after [`COLUMNS`], each panel with a line for
//! every element that is summed over.

use std::ops::Range;

use super::Weight;
use super::avx512::Avx512;
use super::avx512_f32::{COLUMNS, Line, PART};
use super::isa::Isa;
use crate::Side;
use crate::matrix::Matrix;

/// Most columns at a time.
pub(super) const MOST: usize = 4 * COLUMNS;

/// Rows that are asked for before they are decoded: what memory takes to bring one is what it takes to decode as many.
const AHEAD: usize = 12;

#[derive(Default)]
pub(super) struct Columns {
    lines: Vec<Line>,
    /// Lines of a panel.
    depth: usize,
    /// From one panel to the next.
    stride: usize,
}

impl Columns {
    pub fn panel(&self, panel: usize) -> &[Line] {
        &self.lines[panel * self.stride..][..self.depth]
    }

    /// Room for `columns`; what was there before is anything.
    fn resize(&mut self, depth: usize, columns: usize) {
        assert!(columns <= MOST);
        (self.depth, self.stride) = (depth, depth.next_multiple_of(PART));
        self.lines.resize(columns.div_ceil(COLUMNS) * self.stride, Line::ZEROS);
    }

    /// None of no matrix.
    pub fn clear(&mut self) {
        self.resize(0, 0);
    }

    pub fn of_matrix(&mut self, matrix: Matrix<'_>, columns: Range<usize>) {
        self.resize(matrix.shape()[0], columns.len());
        for (panel, first) in columns.clone().step_by(COLUMNS).enumerate() {
            for (row, line) in self.lines[panel * self.stride..][..self.depth].iter_mut().enumerate() {
                let values = (first..columns.end).map(|column| matrix.at(row, column));
                line.0.as_flattened_mut().iter_mut().zip(values).for_each(|(to, value)| *to = value);
            }
        }
    }

    /// Rows `inner` and `columns` of `Wᵀ` or of `W`.
    pub fn of_weight(
        &mut self,
        unit: Avx512,
        weight: &Weight<'_>,
        side: Side,
        inner: Range<usize>,
        columns: Range<usize>,
    ) {
        self.resize(inner.len(), columns.len());
        match side {
            Side::Forward => self.transposed(unit, weight, inner, columns),
            Side::Backward => self.in_order(unit, weight, inner, columns),
        }
    }

    /// Columns of `Wᵀ`, which are rows of `W`.
    fn transposed(&mut self, unit: Avx512, weight: &Weight<'_>, inner: Range<usize>, columns: Range<usize>) {
        /// Elements of a row that are decoded at a time: with [`PART`] rows, half of a first-level cache.
        const PIECE: usize = 256;
        let cols = weight.shape[1];
        // Behind the last row and the last element is anything.
        let mut rows = [[0.0; PIECE]; PART];
        let parts = columns.clone().step_by(PART).enumerate();
        for (part, start) in parts.flat_map(|part| inner.clone().step_by(PIECE).map(move |start| (part, start))) {
            let ((part, first), end) = (part, inner.end.min(start + PIECE));
            for (row, values) in (first..columns.end).zip(&mut rows) {
                weight.prefetch((row + PART) * cols + start..(row + PART) * cols + end);
                weight.decode(Isa::Avx512(unit), row * cols + start, &mut values[..end - start]);
            }
            let lines = &mut self.lines[part / 3 * self.stride + (start - inner.start)..];
            let steps = lines.as_chunks_mut::<PART>().0.iter_mut().take((end - start).div_ceil(PART));
            for (step, lines) in steps.enumerate() {
                let rows = std::array::from_fn(|row| bytemuck::cast_ref(&rows[row].as_chunks::<PART>().0[step]));
                unit.transpose(rows, &mut lines.each_mut().map(|line| bytemuck::cast_mut(&mut line.0[part % 3])));
            }
        }
    }

    /// Columns of `W`.
    fn in_order(&mut self, unit: Avx512, weight: &Weight<'_>, inner: Range<usize>, columns: Range<usize>) {
        // Behind the last column is anything.
        let mut values = [Line::ZEROS.0; MOST / COLUMNS];
        for (i, row) in inner.enumerate() {
            let start = row * weight.shape[1] + columns.start;
            let ahead = start + AHEAD * weight.shape[1];
            weight.prefetch(ahead..ahead + columns.len());
            let some = &mut values.as_flattened_mut().as_flattened_mut()[..columns.len()];
            weight.decode(Isa::Avx512(unit), start, some);
            for (line, values) in self.lines[i..].iter_mut().step_by(self.stride).zip(&values) {
                // Part by part, which needs no call to copy them.
                line.0.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
            }
        }
    }
}
