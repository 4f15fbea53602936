//! A frozen weight matrix in the storage its backend keeps it in.

use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{ElementConversion, Int, Tensor, TensorMetadata, TensorPrimitive};

use crate::four_bit::NESTED_BLOCK;

/// Which way a frozen `W [out, in]` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `x · Wᵀ`
    Forward,
    /// `g · W`
    Backward,
}

impl Side {
    pub fn flipped(self) -> Self {
        match self {
            Side::Forward => Side::Backward,
            Side::Backward => Side::Forward,
        }
    }
}

/// In which numbers the product with a packed weight is computed. Sums are f32 throughout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compute {
    #[default]
    F32,
    /// Both operands rounded to bfloat16.
    Bf16,
    /// Both operands rounded to IEEE half precision.
    F16,
}

impl Compute {
    pub fn name(self) -> &'static str {
        match self {
            Compute::F32 => "f32",
            Compute::Bf16 => "bf16",
            Compute::F16 => "f16",
        }
    }
}

/// `W [rows, cols]`, never written.
#[derive(Debug)]
pub enum FrozenWeight<B: Backend> {
    Dense(FloatTensor<B>),
    /// Two bfloat16 values per 32-bit integer, row-major, the earlier one in the low half. `table [65536]` holds
    /// the f32 value of every code: the decoder of backends without integer-to-float reinterpretation.
    Bf16 {
        codes: IntTensor<B>,
        table: FloatTensor<B>,
        rows: usize,
        cols: usize,
        compute: Compute,
    },
    FourBit(FourBit<B>),
}

/// `W [rows, cols]` as [`crate::four_bit`] has it, on a device.
#[derive(Debug)]
pub struct FourBit<B: Backend> {
    /// Eight indices per 32-bit integer: the bytes of [`crate::four_bit::Quantised`], four at a time, the first lowest.
    pub codes: IntTensor<B>,
    pub scales: BlockScales<B>,
    /// `[16]`
    pub book: FloatTensor<B>,
    /// Elements per scale.
    pub block: usize,
    pub rows: usize,
    pub cols: usize,
    pub compute: Compute,
}

/// One scale per block.
#[derive(Debug)]
pub enum BlockScales<B: Backend> {
    /// `[blocks]`
    F32(FloatTensor<B>),
    /// `map[code] · scale[i / 256] + offset`
    Nested {
        /// Four codes per 32-bit integer, the first lowest.
        codes: IntTensor<B>,
        /// `[blocks / 256]`
        scales: FloatTensor<B>,
        /// `[256]`
        map: FloatTensor<B>,
        /// `[1]`
        offset: FloatTensor<B>,
    },
}

impl<B: Backend> Clone for FrozenWeight<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.clone()),
            Self::Bf16 { codes, table, rows, cols, compute } => {
                Self::Bf16 { codes: codes.clone(), table: table.clone(), rows: *rows, cols: *cols, compute: *compute }
            }
            Self::FourBit(packed) => Self::FourBit(packed.clone()),
        }
    }
}

impl<B: Backend> Clone for FourBit<B> {
    fn clone(&self) -> Self {
        let (codes, scales, book) = (self.codes.clone(), self.scales.clone(), self.book.clone());
        Self { codes, scales, book, ..*self }
    }
}

impl<B: Backend> Clone for BlockScales<B> {
    fn clone(&self) -> Self {
        match self {
            Self::F32(scales) => Self::F32(scales.clone()),
            Self::Nested { codes, scales, map, offset } => {
                Self::Nested { codes: codes.clone(), scales: scales.clone(), map: map.clone(), offset: offset.clone() }
            }
        }
    }
}

/// Sizes of a packed matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    pub rows: usize,
    pub cols: usize,
    /// Elements per scale; 1 where there are no scales.
    pub block: usize,
    pub compute: Compute,
}

impl Packing {
    /// What a product sums over, and the columns of its result.
    #[cfg(feature = "cube")]
    pub fn along(self, side: Side) -> [usize; 2] {
        if side == Side::Forward { [self.cols, self.rows] } else { [self.rows, self.cols] }
    }
}

/// A weight without its tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Dense,
    Bf16(Packing),
    FourBit(Packing),
    /// Four bits with nested scales.
    Nested(Packing),
}

impl Form {
    /// None of a dense matrix.
    #[cfg(feature = "cube")]
    pub fn packing(self) -> Option<Packing> {
        match self {
            Self::Dense => None,
            Self::Bf16(packing) | Self::FourBit(packing) | Self::Nested(packing) => Some(packing),
        }
    }

    /// The weight of these tensors, in the order of [`FrozenWeight::take_apart`].
    ///
    /// # Panics
    /// If there are too few.
    pub fn assemble<B: Backend>(
        self,
        floats: impl IntoIterator<Item = FloatTensor<B>>,
        ints: impl IntoIterator<Item = IntTensor<B>>,
    ) -> FrozenWeight<B> {
        let (mut floats, mut ints) = (floats.into_iter(), ints.into_iter());
        let mut float = || floats.next().expect("as many as were taken apart");
        let mut int = || ints.next().expect("as many as were taken apart");
        match self {
            Self::Dense => FrozenWeight::Dense(float()),
            Self::Bf16(Packing { rows, cols, compute, .. }) => {
                FrozenWeight::Bf16 { codes: int(), table: float(), rows, cols, compute }
            }
            Self::FourBit(Packing { rows, cols, block, compute }) => {
                let (codes, book, scales) = (int(), float(), BlockScales::F32(float()));
                FrozenWeight::FourBit(FourBit { codes, scales, book, block, rows, cols, compute })
            }
            Self::Nested(Packing { rows, cols, block, compute }) => {
                let (codes, book) = (int(), float());
                let scales = BlockScales::Nested { codes: int(), scales: float(), map: float(), offset: float() };
                FrozenWeight::FourBit(FourBit { codes, scales, book, block, rows, cols, compute })
            }
        }
    }
}

impl<B: Backend> FrozenWeight<B> {
    /// What the weight is, and its tensors.
    pub(crate) fn take_apart(self) -> (Form, Vec<FloatTensor<B>>, Vec<IntTensor<B>>) {
        match self {
            Self::Dense(weight) => (Form::Dense, vec![weight], vec![]),
            Self::Bf16 { codes, table, rows, cols, compute } => {
                (Form::Bf16(Packing { rows, cols, block: 1, compute }), vec![table], vec![codes])
            }
            Self::FourBit(FourBit { codes, scales, book, block, rows, cols, compute }) => {
                let packing = Packing { rows, cols, block, compute };
                match scales {
                    BlockScales::F32(scales) => (Form::FourBit(packing), vec![book, scales], vec![codes]),
                    BlockScales::Nested { codes: inner, scales, map, offset } => {
                        (Form::Nested(packing), vec![book, scales, map, offset], vec![codes, inner])
                    }
                }
            }
        }
    }

    pub(crate) fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.shape().dims(),
            Self::Bf16 { rows, cols, .. } | Self::FourBit(FourBit { rows, cols, .. }) => [*rows, *cols],
        }
    }

    /// `x · Wᵀ` or `x · W` by way of the whole matrix.
    pub(crate) fn plain_product(self, x: FloatTensor<B>, side: Side) -> FloatTensor<B> {
        let weight = self.dense();
        B::float_matmul(x, if side == Side::Forward { B::float_transpose(weight) } else { weight })
    }

    /// The whole matrix as f32: the plain body's way, which faster backends avoid.
    pub(crate) fn dense(self) -> FloatTensor<B> {
        match self {
            Self::Dense(weight) => weight,
            Self::Bf16 { codes, table, rows, cols, .. } => {
                let values = decode_bf16(Tensor::<B, 1, Int>::from_primitive(codes), float(table));
                values.narrow(0, 0, rows * cols).reshape([rows, cols]).into_primitive().tensor()
            }
            Self::FourBit(packed) => packed.dense(),
        }
    }

    /// Rows `ids` as f32.
    pub(crate) fn rows(self, ids: IntTensor<B>) -> FloatTensor<B> {
        match self {
            Self::Dense(weight) => B::float_select(weight, 0, ids),
            Self::Bf16 { codes, table, rows, cols, .. } if cols.is_multiple_of(2) => {
                let codes = Tensor::<B, 1, Int>::from_primitive(codes).reshape([rows, cols / 2]);
                let picked = codes.select(0, Tensor::from_primitive(ids));
                let n = picked.dims()[0];
                decode_bf16(picked.reshape([n * cols / 2]), float(table)).reshape([n, cols]).into_primitive().tensor()
            }
            packed => B::float_select(packed.dense(), 0, ids),
        }
    }
}

impl<B: Backend> FourBit<B> {
    /// The whole matrix as f32.
    fn dense(self) -> FloatTensor<B> {
        let len = self.rows * self.cols;
        let indices = unpack(Tensor::<B, 1, Int>::from_primitive(self.codes), &[4, 0, 12, 8, 20, 16, 28, 24], 15);
        let values = float(self.book).select(0, indices.narrow(0, 0, len));
        let scales = self.scales.f32(len.div_ceil(self.block));
        let blocks = scales.dims()[0];
        let each = scales.unsqueeze_dim::<2>(1).repeat_dim(1, self.block).reshape([blocks * self.block]);
        (values * each.narrow(0, 0, len)).reshape([self.rows, self.cols]).into_primitive().tensor()
    }
}

impl<B: Backend> BlockScales<B> {
    /// The scale of each of `blocks`.
    fn f32(self, blocks: usize) -> Tensor<B, 1> {
        match self {
            Self::F32(scales) => float(scales),
            Self::Nested { codes, scales, map, offset } => {
                let codes = unpack(Tensor::<B, 1, Int>::from_primitive(codes), &[0, 8, 16, 24], 255);
                let values = float(map).select(0, codes.narrow(0, 0, blocks));
                let scales = float(scales);
                let outer = scales.dims()[0];
                let each = scales.unsqueeze_dim::<2>(1).repeat_dim(1, NESTED_BLOCK).reshape([outer * NESTED_BLOCK]);
                values * each.narrow(0, 0, blocks) + float(offset)
            }
        }
    }
}

fn float<B: Backend>(table: FloatTensor<B>) -> Tensor<B, 1> {
    Tensor::from_primitive(TensorPrimitive::Float(table))
}

/// `codes [n]` to f32 `[2 n]`.
fn decode_bf16<B: Backend>(codes: Tensor<B, 1, Int>, table: Tensor<B, 1>) -> Tensor<B, 1> {
    table.select(0, unpack(codes, &[0, 16], 0xffff))
}

/// `(integer >> shift) & mask` for each shift: `[n]` to `[n · shifts]`.
fn unpack<B: Backend>(codes: Tensor<B, 1, Int>, shifts: &[i32], mask: i32) -> Tensor<B, 1, Int> {
    let n = codes.dims()[0];
    let part = |shift: &i32| {
        let shifted = if *shift == 0 { codes.clone() } else { codes.clone().bitwise_right_shift_scalar(shift.elem()) };
        shifted.bitwise_and_scalar(mask.elem())
    };
    Tensor::stack::<2>(shifts.iter().map(part).collect(), 1).reshape([n * shifts.len()])
}

#[cfg(all(test, any(feature = "flex", feature = "ndarray")))]
mod tests {
    use super::*;
    use crate::four_bit::{Code, Format, Quantised, ScaleFormat, Scales, dynamic_map};
    use crate::{LowRankBackend, bf16, frozen_matmul, plain_frozen_matmul, splitmix};

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        (0..n as u64).map(|i| (splitmix::next(seed << 32 | i) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn floats<B: Backend>(values: &[f32]) -> FloatTensor<B> {
        Tensor::<B, 1>::from_floats(values, &Default::default()).into_primitive().tensor()
    }

    fn integers<B: Backend>(values: &[i32]) -> IntTensor<B> {
        Tensor::<B, 1, Int>::from_ints(values, &Default::default()).into_primitive()
    }

    fn words<B: Backend>(bytes: &[u8]) -> IntTensor<B> {
        let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | i32::from(*byte));
        integers::<B>(&bytes.chunks(4).map(word).collect::<Vec<_>>())
    }

    fn four_bit<B: Backend>(values: &[f32], scales: ScaleFormat, [rows, cols]: [usize; 2]) -> FourBit<B> {
        let quantised = Quantised::new(values, Format { code: Code::Nf4, block: 64, scales });
        let scales = match &quantised.scales {
            Scales::F32(scales) => BlockScales::F32(floats::<B>(scales)),
            Scales::Nested(nested) => BlockScales::Nested {
                codes: words::<B>(&nested.codes),
                scales: floats::<B>(&nested.scales),
                map: floats::<B>(&dynamic_map()),
                offset: floats::<B>(&[nested.offset]),
            },
        };
        let (codes, book) = (words::<B>(&quantised.bytes), floats::<B>(&Code::Nf4.book()));
        FourBit { codes, scales, book, block: 64, rows, cols, compute: Compute::F32 }
    }

    /// The backend's own product against the plain one, in every storage; bfloat16 within its rounding of both operands.
    fn own_and_plain_products_agree<B: LowRankBackend>() {
        let shape @ [rows, cols] = [70, 130];
        let values = numbers(rows * cols, 1);
        let dense = Tensor::<B, 1>::from_floats(&values[..], &Default::default()).reshape([rows, cols]);
        let (codes, table) = (integers::<B>(&bf16::pack(&values)), floats::<B>(&bf16::table()));
        let weights = [
            FrozenWeight::Dense(dense.into_primitive().tensor()),
            FrozenWeight::Bf16 { codes, table, rows, cols, compute: Compute::F32 },
            FrozenWeight::FourBit(four_bit::<B>(&values, ScaleFormat::F32, shape)),
            FrozenWeight::FourBit(four_bit::<B>(&values, ScaleFormat::Nested, shape)),
        ];
        for (weight, side) in weights.iter().flat_map(|weight| [(weight, Side::Forward), (weight, Side::Backward)]) {
            for (m, compute) in [1, 40].into_iter().flat_map(|m| [(m, Compute::F32), (m, Compute::Bf16)]) {
                let k = if side == Side::Forward { cols } else { rows };
                let x = Tensor::<B, 1>::from_floats(&numbers(m * k, 2)[..], &Default::default()).reshape([m, k]);
                let plain = plain_frozen_matmul(x.clone(), weight.clone(), side);
                let mut weight = weight.clone();
                match &mut weight {
                    FrozenWeight::Dense(_) => {}
                    FrozenWeight::Bf16 { compute: asked, .. } => *asked = compute,
                    FrozenWeight::FourBit(packed) => packed.compute = compute,
                }
                let worst = (frozen_matmul(x, weight, side) - plain).abs().max().into_scalar().elem::<f32>();
                let bound = if compute == Compute::F32 { 1e-4 } else { 0.1 };
                assert!(worst < bound, "{side:?} {m} {compute:?} {worst}");
            }
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn flex() {
        own_and_plain_products_agree::<burn_flex::Flex>();
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn ndarray() {
        own_and_plain_products_agree::<burn_ndarray::NdArray<f32, i32>>();
    }
}
