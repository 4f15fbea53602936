//! The tensors that a file has for one quantised weight, for reading and for writing.

use lowrank_kernels::four_bit::{Code, Format, NESTED_BLOCK, Quantised, ScaleFormat, Scales, dynamic_map};

use super::state;

/// A tensor as the header of a safetensors file describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub name: String,
    /// `F32`, `BF16`, `F16` or `U8`.
    pub dtype: &'static str,
    pub shape: Vec<usize>,
}

impl Part {
    /// Bytes of an element.
    pub fn width(&self) -> usize {
        match self.dtype {
            "U8" => 1,
            "F32" => 4,
            _ => 2,
        }
    }

    pub fn bytes(&self) -> usize {
        self.width() * self.shape.iter().product::<usize>()
    }
}

/// What stands for `weight`, but for the state, whose length depends on the values.
pub(crate) fn parts(weight: &str, format: Format, shape: [usize; 2]) -> Vec<Part> {
    let part =
        |suffix: &str, dtype, shape: &[usize]| Part { name: format!("{weight}{suffix}"), dtype, shape: shape.into() };
    let len = shape[0] * shape[1];
    let blocks = len.div_ceil(format.block);
    let codes = part("", "U8", &[len.div_ceil(2), 1]);
    let map = part(".quant_map", "F32", &[16]);
    match format.scales {
        ScaleFormat::F32 => vec![codes, map, part(".absmax", "F32", &[blocks])],
        ScaleFormat::Nested => vec![
            codes,
            map,
            part(".absmax", "U8", &[blocks]),
            part(".nested_absmax", "F32", &[blocks.div_ceil(NESTED_BLOCK)]),
            part(".nested_quant_map", "F32", &[256]),
        ],
    }
}

/// The bytes of [`parts`], in their order.
pub(crate) fn contents(quantised: &Quantised) -> Vec<Vec<u8>> {
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let first = [quantised.bytes.clone(), floats(&quantised.code.book())];
    let scales = match &quantised.scales {
        Scales::F32(scales) => vec![floats(scales)],
        Scales::Nested(nested) => vec![nested.codes.clone(), floats(&nested.scales), floats(&dynamic_map())],
    };
    first.into_iter().chain(scales).collect()
}

/// The state of `weight`; `dtype` is what torch is to call the dequantised values.
pub(crate) fn state_part(weight: &str, quantised: &Quantised, shape: [usize; 2], dtype: &str) -> (Part, Vec<u8>) {
    let json = state::to_json(quantised, shape, dtype).into_bytes();
    let name = state_name(weight, quantised.code);
    (Part { name, dtype: "U8", shape: vec![json.len()] }, json)
}

pub(crate) fn state_name(weight: &str, code: Code) -> String {
    format!("{weight}{STATE}{}", code.name())
}

const STATE: &str = ".quant_state.bitsandbytes__";
const PARTS: [&str; 4] = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];
const INT8: [&str; 2] = [".SCB", ".weight_format"];

/// What a tensor of a file is.
pub(super) enum Role<'a> {
    /// A tensor of the model: plain, or the codes of a quantised one.
    Whole,
    /// The state of this weight.
    State(&'a str),
    /// Another part of this weight.
    Part(&'a str),
    Int8,
}

pub(super) fn role(name: &str) -> Role<'_> {
    if INT8.iter().any(|suffix| name.ends_with(suffix)) {
        return Role::Int8;
    }
    match (name.split_once(STATE), PARTS.iter().find_map(|suffix| name.strip_suffix(suffix))) {
        (Some((weight, _)), _) => Role::State(weight),
        (None, Some(weight)) => Role::Part(weight),
        (None, None) => Role::Whole,
    }
}

/// The code that the name of a state ends with: `.quant_state.bitsandbytes__nf4`.
pub(super) fn code_of(suffix: &str) -> Option<Code> {
    let name = suffix.strip_prefix(STATE)?;
    Code::ALL.into_iter().find(|code| code.name() == name)
}
