//! The widest vector instructions that this processor has and a path was written for.

use super::portable;
use super::stored::Blocks;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};
use crate::Compute;

#[derive(Clone, Copy, Debug)]
pub(super) enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Isa {
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(avx512) = Avx512::detect() {
                return Isa::Avx512(avx512);
            }
            if let Some(avx2) = Avx2::detect() {
                return Isa::Avx2(avx2);
            }
        }
        Isa::Portable
    }

    /// Elements `start..start + out.len()` of a four-bit matrix, rounded if the product is computed in bfloat16.
    pub fn four_bit(self, blocks: &Blocks<'_>, start: usize, compute: Compute, out: &mut [f32]) {
        match self {
            Isa::Portable => portable::four_bit(blocks, start, compute, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(avx2) => avx2.four_bit(blocks, start, compute, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(avx512) => avx512.four_bit(blocks, start, compute, out),
        }
    }

    /// The dot product of two slices of one length.
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        match self {
            Isa::Portable => portable::dot(a, b),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(avx2) => avx2.dot(a, b),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(avx512) => avx512.dot(a, b),
        }
    }

    /// Every path that runs here.
    #[cfg(test)]
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let wide = Avx2::detect().map(Isa::Avx2).into_iter().chain(Avx512::detect().map(Isa::Avx512));
        #[cfg(not(target_arch = "x86_64"))]
        let wide = [];
        [Isa::Portable].into_iter().chain(wide).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Packed, numbers, rounded};
    use super::*;
    use crate::four_bit::{BLOCKS, Code, Format, Quantised, ScaleFormat};

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Parts of `0..len` that begin and end anywhere.
    fn parts(len: usize, block: usize) -> impl Iterator<Item = (usize, usize)> {
        let starts = [0, 1, 2, 15, 33, 64, block - 1, block, block + 3];
        let sizes = [0, 1, 2, 31, 32, 65, 100, block, block + 1, len];
        let parts = starts.into_iter().flat_map(move |start| sizes.map(move |size| (start, size)));
        parts.filter(move |(start, _)| *start <= len).map(move |(start, size)| (start, size.min(len - start)))
    }

    #[test]
    fn every_path_decodes_four_bits_to_the_bit() {
        for (code, block) in Code::ALL.into_iter().flat_map(|code| BLOCKS.map(|block| (code, block))) {
            for scales in [ScaleFormat::F32, ScaleFormat::Nested] {
                let len = 2 * block + 77;
                let quantised = Quantised::new(&numbers(len, 2), Format { code, block, scales });
                let (packed, expected) = (Packed::new(&quantised), quantised.dequantise());
                let half = rounded(&expected);
                for (isa, (start, size)) in
                    Isa::available().into_iter().flat_map(|isa| parts(len, block).map(move |part| (isa, part)))
                {
                    let mut found = vec![f32::NAN; size];
                    isa.four_bit(&packed.blocks(), start, Compute::F32, &mut found);
                    assert_eq!(bits(&found), bits(&expected[start..start + size]), "{isa:?} {code:?} {block} {start}");
                    isa.four_bit(&packed.blocks(), start, Compute::Bf16, &mut found);
                    assert_eq!(bits(&found), bits(&half[start..start + size]), "{isa:?} {code:?} {block} {start}");
                }
            }
        }
    }

    #[test]
    fn every_path_takes_dot_products() {
        for (isa, n) in Isa::available().into_iter().flat_map(|isa| [0, 1, 15, 16, 100, 1000].map(|n| (isa, n))) {
            let (a, b) = (numbers(n, 4), numbers(n, 5));
            let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(isa.dot(&a, &b)) - exact).abs() < 1e-5, "{isa:?} {n}");
        }
    }
}
