//! A frozen matrix in four bits on a device.

use burn::module::{Module, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::four_bit::{Code, Nested, Quantised, Scales, dynamic_map};
use lowrank_kernels::{BlockScales, FourBit};

use super::weight::{frozen, integers};
use crate::recipe::BaseCompute;

/// The storage of [`Quantised`], its bytes four to an integer.
#[derive(Module, Debug)]
pub struct PackedFourBit<B: Backend> {
    /// Eight indices per integer.
    pub codes: Param<Tensor<B, 1, Int>>,
    pub scales: PackedScales<B>,
    /// `[16]`
    pub book: Param<Tensor<B, 1>>,
    pub block: usize,
    pub rows: usize,
    pub cols: usize,
    #[module(skip)]
    pub compute: BaseCompute,
}

#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each layer, and burn has no modules in boxes")]
pub enum PackedScales<B: Backend> {
    F32(Param<Tensor<B, 1>>),
    Nested(PackedNested<B>),
}

/// See [`Nested`]; four codes per integer.
#[derive(Module, Debug)]
pub struct PackedNested<B: Backend> {
    pub codes: Param<Tensor<B, 1, Int>>,
    pub scales: Param<Tensor<B, 1>>,
    /// `[256]`
    pub map: Param<Tensor<B, 1>>,
    /// `[1]`
    pub offset: Param<Tensor<B, 1>>,
}

/// The tables that codes index, shared by every weight.
#[derive(Clone, Debug)]
pub struct Books<B: Backend> {
    four_bit: [Tensor<B, 1>; 2],
    map: Tensor<B, 1>,
}

impl<B: Backend> Books<B> {
    pub fn new(device: &B::Device) -> Self {
        let four_bit = Code::ALL.map(|code| floats(&code.book(), device));
        Self { four_bit, map: floats(&dynamic_map(), device) }
    }

    fn of(&self, code: Code) -> Tensor<B, 1> {
        self.four_bit[usize::from(code == Code::ALL[1])].clone()
    }
}

fn floats<B: Backend>(values: &[f32], device: &B::Device) -> Tensor<B, 1> {
    Tensor::from_data(TensorData::from(values), device)
}

/// Four bytes to an integer, the first lowest.
fn packed<B: Backend>(bytes: &[u8], device: &B::Device) -> Param<Tensor<B, 1, Int>> {
    let (whole, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let last = if rest.is_empty() { None } else { Some(&last) };
    let values: Vec<i32> = whole.iter().chain(last).map(|bytes| i32::from_le_bytes(*bytes)).collect();
    Param::initialized(ParamId::new(), integers(&values, device))
}

impl<B: Backend> PackedFourBit<B> {
    pub fn new(
        quantised: &Quantised,
        [rows, cols]: [usize; 2],
        compute: BaseCompute,
        books: &Books<B>,
        device: &B::Device,
    ) -> Self {
        assert_eq!(quantised.len, rows * cols, "codes of a [{rows}, {cols}] matrix");
        let scales = match &quantised.scales {
            Scales::F32(scales) => PackedScales::F32(frozen(floats(scales, device))),
            Scales::Nested(Nested { codes, scales, offset }) => PackedScales::Nested(PackedNested {
                codes: packed(codes, device),
                scales: frozen(floats(scales, device)),
                map: frozen(books.map.clone()),
                offset: frozen(floats(&[*offset], device)),
            }),
        };
        let (codes, book) = (packed(&quantised.bytes, device), frozen(books.of(quantised.code)));
        Self { codes, scales, book, block: quantised.block, rows, cols, compute }
    }

    /// Bytes of codes and scales as they lie on the device.
    pub fn bytes(&self) -> u64 {
        let scales = match &self.scales {
            PackedScales::F32(scales) => scales.dims()[0],
            PackedScales::Nested(nested) => nested.codes.dims()[0] + nested.scales.dims()[0] + 1,
        };
        4 * (self.codes.dims()[0] + scales) as u64
    }

    /// The same storage under parameter identities of its own.
    pub fn shared(&self) -> Self {
        let integers = |x: &Param<Tensor<B, 1, Int>>| Param::initialized(ParamId::new(), x.val());
        let floats = |x: &Param<Tensor<B, 1>>| frozen(x.val());
        let scales = match &self.scales {
            PackedScales::F32(scales) => PackedScales::F32(floats(scales)),
            PackedScales::Nested(nested) => PackedScales::Nested(PackedNested {
                codes: integers(&nested.codes),
                scales: floats(&nested.scales),
                map: floats(&nested.map),
                offset: floats(&nested.offset),
            }),
        };
        Self { codes: integers(&self.codes), scales, book: floats(&self.book), ..*self }
    }

    pub(super) fn frozen(&self) -> FourBit<B> {
        let float = |x: &Param<Tensor<B, 1>>| x.val().into_primitive().tensor();
        let scales = match &self.scales {
            PackedScales::F32(scales) => BlockScales::F32(float(scales)),
            PackedScales::Nested(nested) => BlockScales::Nested {
                codes: nested.codes.val().into_primitive(),
                scales: float(&nested.scales),
                map: float(&nested.map),
                offset: float(&nested.offset),
            },
        };
        FourBit {
            codes: self.codes.val().into_primitive(),
            scales,
            book: float(&self.book),
            block: self.block,
            rows: self.rows,
            cols: self.cols,
            compute: self.compute.into(),
        }
    }
}
