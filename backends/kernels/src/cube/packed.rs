//! Packed weights inside kernels: one decoder for every kernel and every storage.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::Weight;
use crate::four_bit::NESTED_BLOCK;
use crate::{BlockScales, FourBit, FrozenWeight};

/// Elements that one integer of four-bit codes holds.
const PER_WORD: usize = 8;

/// How many neighbours kernels take at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Elements in one row that share an integer of codes and a scale.
    pub len: usize,
    /// Elements that are read, multiplied and written as one vector.
    pub vector: usize,
}

impl Run {
    /// Blocks are multiples of [`PER_WORD`]; rows need not be.
    pub fn new(cols: usize) -> Self {
        if cols.is_multiple_of(PER_WORD) { Self { len: PER_WORD, vector: 4 } } else { Self { len: 1, vector: 1 } }
    }
}

/// A packed weight as kernels read it. Which variant it is, is known when a kernel is compiled.
#[expect(dead_code, reason = "the macros make types of their own out of it")]
#[derive(CubeLaunch, CubeType)]
pub(crate) enum Packed {
    Bf16 { codes: Array<u32> },
    FourBit { codes: Array<u32>, book: Array<f32>, scales: Scales },
}

/// See [`BlockScales`].
#[expect(dead_code, reason = "the macros make types of their own out of it")]
#[derive(CubeLaunch, CubeType)]
pub(crate) enum Scales {
    F32 { values: Array<f32> },
    Nested { codes: Array<u32>, values: Array<f32>, map: Array<f32>, offset: Array<f32> },
}

impl<R: CubeRuntime> PackedArgs<R> {
    /// # Panics
    /// If the weight is dense.
    pub fn new(weight: &Weight<R>) -> Self {
        let array = |tensor: &CubeTensor<R>| tensor.clone().into_array_arg();
        match weight {
            FrozenWeight::Dense(_) => unreachable!("only packed weights get here"),
            FrozenWeight::Bf16 { codes, .. } => Self::Bf16 { codes: array(codes) },
            FrozenWeight::FourBit(FourBit { codes, scales, book, .. }) => {
                let scales = match scales {
                    BlockScales::F32(values) => ScalesArgs::F32 { values: array(values) },
                    BlockScales::Nested { codes, scales, map, offset } => ScalesArgs::Nested {
                        codes: array(codes),
                        values: array(scales),
                        map: array(map),
                        offset: array(offset),
                    },
                };
                Self::FourBit { codes: array(codes), book: array(book), scales }
            }
        }
    }
}

#[cube]
impl Packed {
    /// What the entries of element `index` and of its block are multiplied by.
    pub fn scale(&self, index: usize, #[comptime] block: usize) -> f32 {
        match self {
            Packed::Bf16 { .. } => 1.0,
            Packed::FourBit { scales, .. } => scales.at(index / block),
        }
    }

    /// Elements `index .. index + N` before scaling. They must not straddle an integer of four-bit codes, and `index`
    /// must be even where `N` is not 1.
    pub fn entries<N: Size>(&self, index: usize) -> Vector<f32, N> {
        match self {
            Packed::Bf16 { codes } => bf16_entries::<N>(codes, index),
            Packed::FourBit { codes, book, .. } => book_entries::<N>(codes, book, index),
        }
    }
}

#[cube]
impl Scales {
    fn at(&self, block: usize) -> f32 {
        match self {
            Scales::F32 { values } => values[block],
            Scales::Nested { codes, values, map, offset } => {
                let code = (codes[block / 4] >> (8 * (block % 4) as u32)) & 255;
                map[code as usize] * values[block / NESTED_BLOCK] + offset[0]
            }
        }
    }
}

#[cube]
fn bf16_entries<N: Size>(codes: &Array<u32>, index: usize) -> Vector<f32, N> {
    let mut entries = Vector::empty();
    #[unroll]
    for i in 0..N::value() {
        let half = (index % 2 + i % 2) as u32;
        let bits = (codes[index / 2 + i / 2] >> (16 * half)) << 16;
        entries[i] = f32::reinterpret(bits);
    }
    entries
}

#[cube]
fn book_entries<N: Size>(codes: &Array<u32>, book: &Array<f32>, index: usize) -> Vector<f32, N> {
    let word = codes[index / PER_WORD];
    let first = (index % PER_WORD) as u32;
    let mut entries = Vector::empty();
    #[unroll]
    for i in 0..N::value() {
        // The earlier element of a byte is in its high half.
        let shift = 4 * ((first + i as u32) ^ 1);
        entries[i] = book[((word >> shift) & 15) as usize];
    }
    entries
}

/// An operand as products in `F` take it.
#[cube]
pub(crate) fn rounded<F: Float, N: Size>(values: Vector<f32, N>) -> Vector<f32, N> {
    Vector::<f32, N>::cast_from(Vector::<F, N>::cast_from(values))
}
