//! Products in f32 with AVX-512: eight rows of the left operand and 48 columns of the right one in registers at a time.
//!
//! The right operand is packed in panels of 48 columns, of which a first-level cache holds 192 rows while all rows of the left
//! one pass by; sums wait in scratch memory, because the rows of a wide result lie on more pages than the processor can remember.

use std::arch::x86_64::*;
use std::cell::Cell;

use super::avx512::{Avx512, load, store};
use super::isa::Isa;
use super::strips::Strip;
use super::{Side, Weight};

/// Rows of the left operand at a time: with three vectors of columns, 24 of the 32 registers hold sums.
const ROWS: usize = 8;

/// Elements of a vector.
const LANES: usize = 16;

/// Columns of a panel.
const COLUMNS: usize = 3 * LANES;

/// Rows of a panel that stay in the first-level cache: 36 KiB.
const DEPTH: usize = 192;

/// Rows of the left operand that stay in the second-level cache while the panels pass by; their sums are 24 KiB.
const BLOCK: usize = 128;

/// Rows of a matrix that are fetched ahead of the one that is packed: to the processor they lie anywhere.
const AHEAD: usize = 16;

/// One row of a panel or of sums.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([[f32; LANES]; 3]);

const ZEROS: Line = Line([[0.0; LANES]; 3]);

/// Memory that tasks of one thread use again.
#[derive(Default)]
struct Scratch {
    panels: Vec<Line>,
    sums: Vec<Line>,
    decoded: Vec<f32>,
}

/// Row-major `[rows, k]`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    k: usize,
}

impl Rows<'_> {
    fn some(self, start: usize, rows: usize) -> Self {
        Self { values: &self.values[start * self.k..][..rows * self.k], ..self }
    }
}

impl Avx512 {
    /// Fills `strip` with its columns of `x · Wᵀ` or `x · W`.
    pub fn fill(self, strip: &mut Strip<'_>, x: &[f32], weight: &Weight<'_>, side: Side) {
        thread_local!(static SCRATCH: Cell<Scratch> = Cell::default());
        let mut scratch = SCRATCH.take();
        let Scratch { panels, sums, decoded } = &mut scratch;
        let [k, _] = weight.inner_and_outer(side);
        assert_eq!(x.len(), strip.rows() * k);
        let x = Rows { values: x, k };
        let (width, height) = (strip.columns().len(), x.k.next_multiple_of(LANES));
        panels.resize(width.div_ceil(COLUMNS) * height, ZEROS);
        match side {
            Side::Forward => self.pack_rows(weight, strip, height, panels, decoded),
            Side::Backward => self.pack_columns(weight, strip, height, panels, decoded),
        }
        for row in (0..strip.rows()).step_by(BLOCK) {
            let rows = BLOCK.min(strip.rows() - row);
            sums.resize(rows.next_multiple_of(ROWS), ZEROS);
            for (panel, column) in panels.chunks_exact(height).zip((0..).step_by(COLUMNS)) {
                self.multiply(x.some(row, rows), &panel[..x.k], sums);
                for (row, sums) in (row..row + rows).zip(&*sums) {
                    let y = &mut strip.row(row)[column..width.min(column + COLUMNS)];
                    y.write_copy_of_slice(&sums.0.as_flattened()[..y.len()]);
                }
            }
        }
        SCRATCH.set(scratch);
    }

    /// Columns of `Wᵀ`, which are rows of `W`. What lies beside them in a panel is anything, and sums over it are dropped.
    fn pack_rows(
        self,
        weight: &Weight<'_>,
        strip: &Strip<'_>,
        height: usize,
        panels: &mut [Line],
        decoded: &mut Vec<f32>,
    ) {
        let (columns, k) = (strip.columns(), weight.shape[1]);
        decoded.clear();
        decoded.resize(LANES * height, 0.0);
        for group in 0..columns.len().div_ceil(LANES) {
            let first = columns.start + group * LANES;
            let whole = first + LANES <= columns.end && k == height;
            let values = match weight.as_is().filter(|_| whole) {
                Some(values) => &values[first * k..],
                None => {
                    for (row, decoded) in (first..columns.end).zip(decoded.chunks_exact_mut(height)) {
                        weight.decode(Isa::Avx512(self), row * k, &mut decoded[..k]);
                    }
                    &*decoded
                }
            };
            let (panel, vector) = (group / 3, group % 3);
            let lines = panels[panel * height..][..height].as_chunks_mut::<LANES>().0;
            for (step, lines) in lines.iter_mut().enumerate() {
                let rows = std::array::from_fn(|row| {
                    let part = &values[row * height + step * LANES..];
                    bytemuck::cast_ref(part.first_chunk::<LANES>().expect("a height of whole vectors"))
                });
                self.transpose(rows, &mut lines.each_mut().map(|line| bytemuck::cast_mut(&mut line.0[vector])));
            }
        }
    }

    /// Columns of `W`.
    fn pack_columns(
        self,
        weight: &Weight<'_>,
        strip: &Strip<'_>,
        height: usize,
        panels: &mut [Line],
        decoded: &mut Vec<f32>,
    ) {
        let (columns, [k, cols]) = (strip.columns(), weight.shape);
        decoded.resize(columns.len(), 0.0);
        for line in 0..k {
            let at = line * cols + columns.start;
            let ahead = (line + AHEAD) * cols + columns.start;
            weight.bytes(ahead..ahead + columns.len()).chunks(64).for_each(|line| self.prefetch(line));
            let row = match weight.as_is() {
                Some(values) => &values[at..at + columns.len()],
                None => {
                    weight.decode(Isa::Avx512(self), at, decoded);
                    &*decoded
                }
            };
            let (parts, rest) = row.as_chunks::<COLUMNS>();
            let mut panels = panels.chunks_exact_mut(height);
            // The parts first: the panels must not be asked for one more than there are parts.
            for (part, panel) in parts.iter().zip(panels.by_ref()) {
                panel[line] = Line(bytemuck::cast(*part));
            }
            if let Some(panel) = panels.next() {
                panel[line].0.as_flattened_mut()[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// `sums = x · panel`; there are sums for whole tiles of rows.
    fn multiply(self, x: Rows<'_>, panel: &[Line], sums: &mut [Line]) {
        for (depth, panel) in panel.chunks(DEPTH).enumerate() {
            let from = depth * DEPTH;
            let tiles = sums.as_chunks_mut::<ROWS>().0.iter_mut();
            for (x_rows, sums) in x.values.chunks(ROWS * x.k).zip(tiles) {
                if depth == 0 {
                    sums.fill(ZEROS);
                }
                if x_rows.len() == ROWS * x.k {
                    // SAFETY: `self` exists only where the features were detected; x has the rows and the columns.
                    unsafe { multiply(&x_rows[from..], x.k, panel, sums) }
                } else {
                    let mut padded = [0.0; ROWS * DEPTH];
                    for (padded, x) in padded.chunks_exact_mut(DEPTH).zip(x_rows.chunks_exact(x.k)) {
                        padded[..panel.len()].copy_from_slice(&x[from..][..panel.len()]);
                    }
                    // SAFETY: as above.
                    unsafe { multiply(&padded, DEPTH, panel, sums) }
                }
            }
        }
    }
}

/// `sums += x · panel`
///
/// # Safety
/// From the beginning of `x` on there must be `ROWS` rows, `stride` apart, of as many elements as the panel has rows.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn multiply(x: &[f32], stride: usize, panel: &[Line], sums: &mut [Line; ROWS]) {
    debug_assert!((ROWS - 1) * stride + panel.len() <= x.len());
    let mut held = [[_mm512_setzero_ps(); 3]; ROWS];
    for (held, Line(sums)) in held.iter_mut().zip(&*sums) {
        *held = [load(&sums[0]), load(&sums[1]), load(&sums[2])];
    }
    for (k, Line(line)) in panel.iter().enumerate() {
        let b = [load(&line[0]), load(&line[1]), load(&line[2])];
        for (row, held) in held.iter_mut().enumerate() {
            // SAFETY: the caller vouches for x.
            let a = _mm512_set1_ps(unsafe { *x.get_unchecked(row * stride + k) });
            held[0] = _mm512_fmadd_ps(a, b[0], held[0]);
            held[1] = _mm512_fmadd_ps(a, b[1], held[1]);
            held[2] = _mm512_fmadd_ps(a, b[2], held[2]);
        }
    }
    for (held, Line(sums)) in held.into_iter().zip(sums) {
        store(held[0], &mut sums[0]);
        store(held[1], &mut sums[1]);
        store(held[2], &mut sums[2]);
    }
}
