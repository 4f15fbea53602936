//! Frozen matrices as they lie in memory.

use std::ops::Range;

use super::Weight;
use super::isa::Isa;
use crate::four_bit::NESTED_BLOCK;
use crate::{Compute, bf16};

/// The values of a matrix, row-major.
#[derive(Clone, Copy)]
pub(crate) enum Stored<'a> {
    Dense(&'a [f32]),
    Bf16(&'a [i32]),
    FourBit(Blocks<'a>),
}

/// A four-bit matrix; see [`crate::FourBit`].
#[derive(Clone, Copy)]
pub(crate) struct Blocks<'a> {
    pub codes: &'a [i32],
    pub scales: Scales<'a>,
    pub book: &'a [f32],
    pub block: usize,
}

/// See [`crate::BlockScales`].
#[derive(Clone, Copy)]
pub(crate) enum Scales<'a> {
    F32(&'a [f32]),
    Nested { codes: &'a [i32], scales: &'a [f32], map: &'a [f32], offset: f32 },
}

/// Neighbouring elements of one block.
pub(super) struct Run {
    pub scale: f32,
    /// Where the elements lie in what is being decoded.
    pub range: Range<usize>,
}

impl Scales<'_> {
    #[inline]
    fn of(&self, block: usize) -> f32 {
        match self {
            Scales::F32(scales) => scales[block],
            Scales::Nested { codes, scales, map, offset } => {
                let code = codes[block / 4] as u32 >> (8 * (block % 4)) & 255;
                map[code as usize] * scales[block / NESTED_BLOCK] + offset
            }
        }
    }
}

impl Blocks<'_> {
    pub(super) fn book(&self) -> &[f32; 16] {
        self.book.try_into().expect("a codebook has 16 values")
    }

    /// The runs of elements `start..start + len`.
    #[inline]
    pub(super) fn runs(&self, start: usize, len: usize) -> Runs<'_> {
        Runs { blocks: self, start, len, done: 0, block: start / self.block }
    }
}

pub(super) struct Runs<'a> {
    blocks: &'a Blocks<'a>,
    start: usize,
    len: usize,
    done: usize,
    block: usize,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        if self.done == self.len {
            return None;
        }
        let end = self.len.min((self.block + 1) * self.blocks.block - self.start);
        let run = Run { scale: self.blocks.scales.of(self.block), range: self.done..end };
        (self.done, self.block) = (end, self.block + 1);
        Some(run)
    }
}

impl Weight<'_> {
    /// Elements `start..start + out.len()` in the numbers that the product is computed in.
    pub(super) fn decode(&self, isa: Isa, start: usize, out: &mut [f32]) {
        let start = self.skip + start;
        match &self.stored {
            Stored::Dense(values) => {
                out.copy_from_slice(&values[start..start + out.len()]);
                if self.compute == Compute::Bf16 {
                    out.iter_mut().for_each(|value| *value = bf16::widen(bf16::round(*value)));
                }
            }
            // As fast as with wider instructions (measured): memory is the limit.
            Stored::Bf16(codes) => bf16::unpack(codes, start, out),
            Stored::FourBit(blocks) => isa.four_bit(blocks, start, self.compute, out),
        }
    }

    /// Asks for elements `range`, as far as there are any, to be brought nearer.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn prefetch(&self, range: Range<usize>) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let (bytes, bits): (&[u8], usize) = match &self.stored {
            Stored::Dense(values) => (bytemuck::cast_slice(values), 32),
            Stored::Bf16(codes) => (bytemuck::cast_slice(codes), 16),
            Stored::FourBit(blocks) => (bytemuck::cast_slice(blocks.codes), 4),
        };
        let [start, end] = [range.start, range.end].map(|at| bytes.len().min((self.skip + at) * bits / 8));
        let bytes = &bytes[start..end];
        // Lines of the cache begin anywhere among the bytes: the last one may be one more.
        for byte in bytes.iter().step_by(64).chain(bytes.last()) {
            // SAFETY: nothing is read, and the address is that of a byte of the weight.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) }
        }
    }

    /// One row in these numbers.
    pub(crate) fn row(&self, row: usize) -> Vec<f32> {
        let cols = self.shape[1];
        let mut values = vec![0.0; cols];
        self.decode(Isa::best(), row * cols, &mut values);
        values
    }

    /// The whole matrix, where it lies in memory as it is multiplied.
    pub(super) fn as_is(&self) -> Option<&[f32]> {
        match self.stored {
            Stored::Dense(values) if self.compute == Compute::F32 => Some(&values[self.skip..]),
            _ => None,
        }
    }
}
