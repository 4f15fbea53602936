//! Weights in four bits: NF4 and FP4 with one scale per block, as bitsandbytes 0.50 stores them (Dettmers et al. 2023,
//! arXiv 2305.14314, section 3).
//!
//! A matrix is taken row-major and cut into blocks of `block` elements, whatever its row length; the last block may be short.
//! Each block keeps the largest magnitude in it, and each element the index of the codebook entry nearest to
//! `element / scale`. Two indices share a byte, the earlier one in the high half.

mod book;
mod nested;

pub use book::{Code, dynamic_map};
pub use nested::{NESTED_BLOCK, Nested, nested_scales};

use rayon::prelude::*;

/// Block sizes that bitsandbytes accepts.
pub const BLOCKS: [usize; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

/// Scales below this count as this, so that a block of zeros stays zeros.
const LEAST_SCALE: f32 = 1e-38;

/// How a matrix is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub code: Code,
    /// Elements that share a scale; one of [`BLOCKS`].
    pub block: usize,
    pub scales: ScaleFormat,
}

impl Format {
    /// Bytes that `len` elements take where codes and nested scales are packed into 32-bit integers.
    pub fn bytes(self, len: usize) -> u64 {
        let blocks = len.div_ceil(self.block);
        let scales = match self.scales {
            ScaleFormat::F32 => blocks,
            ScaleFormat::Nested => blocks.div_ceil(4) + blocks.div_ceil(NESTED_BLOCK) + 1,
        };
        4 * (len.div_ceil(8) + scales) as u64
    }
}

/// How the scales of blocks are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleFormat {
    F32,
    /// Double quantisation: eight bits each, in blocks of [`NESTED_BLOCK`].
    Nested,
}

/// A quantised matrix on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantised {
    pub code: Code,
    pub block: usize,
    /// Elements.
    pub len: usize,
    /// `ceil(len / 2)` bytes.
    pub bytes: Vec<u8>,
    pub scales: Scales,
}

/// One scale per block.
#[derive(Clone, Debug, PartialEq)]
pub enum Scales {
    F32(Vec<f32>),
    Nested(Nested),
}

impl Quantised {
    /// Quantises finite row-major values.
    pub fn new(values: &[f32], format: Format) -> Self {
        let Format { code, block, scales } = format;
        let steps = code.steps();
        let parts: Vec<(f32, Vec<u8>)> =
            values.par_chunks(block).map(|chunk| quantise(chunk, chunk.len() == block, &steps)).collect();
        let mut indices = parts.iter().flat_map(|(_, indices)| indices.iter().copied());
        let mut bytes = Vec::with_capacity(values.len().div_ceil(2));
        while let Some(high) = indices.next() {
            bytes.push(high << 4 | indices.next().unwrap_or(code.zero()));
        }
        let absmax = parts.iter().map(|(scale, _)| *scale).collect();
        let scales = match scales {
            ScaleFormat::F32 => Scales::F32(absmax),
            ScaleFormat::Nested => Scales::Nested(Nested::new(&absmax)),
        };
        Self { code, block, len: values.len(), bytes, scales }
    }

    /// `codebook[index] · scale` of every element.
    pub fn dequantise(&self) -> Vec<f32> {
        let scales = self.scales();
        let book = self.code.book();
        let at = |i: usize| book[usize::from(self.bytes[i / 2] >> (4 * (1 - i % 2)) & 15)];
        let mut values: Vec<f32> = (0..self.len).into_par_iter().map(at).collect();
        values.par_chunks_mut(self.block).zip(scales).for_each(|(chunk, scale)| {
            chunk.iter_mut().for_each(|value| *value *= scale);
        });
        values
    }

    /// The scale of every block.
    pub fn scales(&self) -> Vec<f32> {
        match &self.scales {
            Scales::F32(scales) => scales.clone(),
            Scales::Nested(nested) => nested.dequantise(),
        }
    }

    pub fn format(&self) -> Format {
        let scales = match self.scales {
            Scales::F32(_) => ScaleFormat::F32,
            Scales::Nested(_) => ScaleFormat::Nested,
        };
        Format { code: self.code, block: self.block, scales }
    }
}

/// Scale and codebook indices of one block. A full block is multiplied by the reciprocal of its scale and a short one
/// divided by it, which differ in the last bit; so does bitsandbytes.
fn quantise(chunk: &[f32], full: bool, steps: &([f32; 15], [u8; 16])) -> (f32, Vec<u8>) {
    let (bounds, order) = steps;
    let largest = chunk.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let divisor = largest.max(LEAST_SCALE);
    let reciprocal = 1.0 / divisor;
    let index = |value: &f32| {
        let scaled = if full { value * reciprocal } else { value / divisor };
        // A value half way between two entries takes the lower one.
        order[bounds.iter().filter(|bound| **bound < scaled.clamp(-1.0, 1.0)).count()]
    };
    (if full { largest } else { divisor }, chunk.iter().map(index).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NF4: Format = Format { code: Code::Nf4, block: 64, scales: ScaleFormat::F32 };

    fn normal(n: usize) -> Vec<f32> {
        let uniform = |i: u64| crate::splitmix::next(i) as f64 / u64::MAX as f64;
        (0..n as u64).map(|i| ((0..12).map(|k| uniform(12 * i + k)).sum::<f64>() - 6.0) as f32).collect()
    }

    #[test]
    fn the_codes_of_a_small_block_by_hand() {
        let half_way = 0.039_790_15;
        let quantised = Quantised::new(&[0.0, 0.5, -0.5, 1.0, -1.0, 0.1, -0.1, half_way], NF4);
        assert_eq!(quantised.bytes, [0x7c, 0x2f, 0x08, 0x67]);
        assert_eq!(quantised.scales(), [1.0]);
    }

    #[test]
    fn an_element_is_off_by_half_a_gap_at_most_and_again_is_the_same() {
        for code in [Code::Nf4, Code::Fp4] {
            for (n, block) in [(0, 64), (1, 64), (63, 64), (64, 64), (1000, 128), (4097, 4096)] {
                let values = normal(n);
                let once = Quantised::new(&values, Format { code, block, ..NF4 });
                let back = once.dequantise();
                let gap = if code == Code::Nf4 { 0.1520 } else { 0.16668 };
                for (i, (value, back)) in values.iter().zip(&back).enumerate() {
                    assert!((value - back).abs() <= gap * once.scales()[i / block], "{code:?} {value} {back}");
                }
                assert_eq!(Quantised::new(&back, once.format()).dequantise(), back);
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for scales in [ScaleFormat::F32, ScaleFormat::Nested] {
            let quantised = Quantised::new(&[0.0; 100], Format { scales, ..NF4 });
            assert!(quantised.dequantise().iter().all(|value| value.abs() < 1e-37));
        }
    }

    #[test]
    fn rms_errors_of_normal_values_are_the_published_ones() {
        let values = normal(1 << 18);
        let error = |format| {
            let back = Quantised::new(&values, format).dequantise();
            let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
            (values.iter().zip(&back).map(square).sum::<f64>() / values.len() as f64).sqrt()
        };
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 2e-3, "{found} {expected}");
        close(error(NF4), 0.0918);
        close(error(Format { block: 1024, ..NF4 }), 0.1039);
        close(error(Format { code: Code::Fp4, ..NF4 }), 0.1217);
        let nested = error(Format { scales: ScaleFormat::Nested, ..NF4 });
        assert!(nested >= error(NF4) && nested < error(NF4) + 1e-3);
    }
}
