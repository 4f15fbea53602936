//! Weights in every storage, and exact products to compare with.

use super::stored::{Blocks, Scales, Stored};
use super::{Side, Weight};
use crate::four_bit::{self, Code, Format, Quantised, ScaleFormat, dynamic_map};
use crate::{Compute, bf16, splitmix};

/// Numbers in [-1, 1).
pub(super) fn numbers(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64).map(|i| (splitmix::next(seed << 32 | i) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Four bytes per integer, the first lowest.
fn words(bytes: &[u8]) -> Vec<i32> {
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | i32::from(*byte));
    bytes.chunks(4).map(word).collect()
}

/// A quantised matrix as a backend keeps it.
pub(super) struct Packed {
    codes: Vec<i32>,
    nested: Vec<i32>,
    scales: Vec<f32>,
    /// Where scales are nested.
    offset: Option<f32>,
    map: Vec<f32>,
    book: [f32; 16],
    block: usize,
}

impl Packed {
    pub fn new(quantised: &Quantised) -> Self {
        let (nested, scales, offset) = match &quantised.scales {
            four_bit::Scales::F32(scales) => (Vec::new(), scales.clone(), None),
            four_bit::Scales::Nested(nested) => (words(&nested.codes), nested.scales.clone(), Some(nested.offset)),
        };
        let (codes, book) = (words(&quantised.bytes), quantised.code.book());
        Self { codes, nested, scales, offset, map: dynamic_map(), book, block: quantised.block }
    }

    pub fn blocks(&self) -> Blocks<'_> {
        let scales = match self.offset {
            None => Scales::F32(&self.scales),
            Some(offset) => Scales::Nested { codes: &self.nested, scales: &self.scales, map: &self.map, offset },
        };
        Blocks { codes: &self.codes, scales, book: &self.book, block: self.block }
    }
}

/// Calls `check` with a matrix of this shape in every storage and numbers, and with the values that are to be multiplied.
pub(super) fn for_each_weight(shape: [usize; 2], check: impl Fn(&Weight<'_>, &[f32])) {
    let values = numbers(shape[0] * shape[1], 1);
    let codes = bf16::pack(&values);
    let quantised = Quantised::new(&values, Format { code: Code::Nf4, block: 64, scales: ScaleFormat::Nested });
    let packed = Packed::new(&quantised);
    let rounded = rounded(&values);
    for compute in [Compute::F32, Compute::Bf16] {
        let stored = [
            (Stored::Dense(&values), &values),
            (Stored::Bf16(&codes), &rounded),
            (Stored::FourBit(packed.blocks()), &quantised.dequantise()),
        ];
        for (stored, values) in stored {
            let values = if compute == Compute::Bf16 { self::rounded(values) } else { values.clone() };
            check(&Weight::new(stored, compute, shape), &values);
        }
    }
}

/// To bfloat16 and back, by the crate that others use.
pub(super) fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect()
}

/// Holds a product to the error bound of summing `k` terms in f32, in any order.
pub(super) fn assert_product(y: &[f32], x: &[f32], w: &[f32], [out, cols]: [usize; 2], side: Side) {
    let (k, n) = if side == Side::Forward { (cols, out) } else { (out, cols) };
    assert_eq!(y.len(), x.len() / k * n);
    for (i, y) in y.iter().enumerate() {
        let at = |j: usize| if side == Side::Forward { i % n * cols + j } else { j * cols + i % n };
        let terms = (0..k).map(|j| f64::from(x[i / n * k + j]) * f64::from(w[at(j)]));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
        let bound = (k + 1) as f64 * f64::from(f32::EPSILON) / 2.0 * size;
        assert!((f64::from(*y) - sum).abs() <= bound, "{side:?} [{out}, {cols}] element {i}: {y} for {sum}, {bound:e}");
    }
}

/// Small, ragged, and with more than one task.
pub(super) const SHAPES: [[usize; 2]; 5] = [[1, 1], [7, 5], [16, 32], [65, 97], [200, 130]];
