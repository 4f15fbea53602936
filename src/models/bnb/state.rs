//! `quant_state`: a JSON text that says how a weight was quantised. It comes from strangers.

use lowrank_kernels::four_bit::{BLOCKS, Code, Format, NESTED_BLOCK, Quantised, ScaleFormat, Scales};
use serde::Deserialize;

use super::parts::code_of;
use crate::error::InputError;

/// Ours have fewer than 200 bytes.
const MAX_BYTES: usize = 4096;
/// Rows or columns; as for `config.json`, nothing is that large.
const MAX_SIZE: u64 = 1 << 24;
const DTYPES: [&str; 3] = ["float32", "float16", "bfloat16"];

#[derive(Debug, PartialEq)]
pub(super) struct QuantState {
    pub format: Format,
    pub shape: [usize; 2],
    /// Of nested scales; 0 without.
    pub offset: f32,
    pub json_bytes: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    quant_type: String,
    blocksize: u64,
    dtype: String,
    shape: Vec<u64>,
    nested_blocksize: Option<u64>,
    nested_dtype: Option<String>,
    nested_offset: Option<f64>,
}

impl QuantState {
    /// `suffix` is what the tensor's name has after the weight's.
    pub fn parse(bytes: &[u8], suffix: &str) -> Result<Self, InputError> {
        if bytes.len() > MAX_BYTES {
            let error = InputError::new("a quant_state is never this long").found(format!("{} bytes", bytes.len()));
            return Err(error.expected(format!("at most {MAX_BYTES}")));
        }
        let json: Json =
            serde_json::from_slice(bytes).map_err(|error| InputError::new(format!("quant_state: {error}")))?;
        json.check(suffix, bytes.len())
    }
}

impl Json {
    fn check(self, suffix: &str, json_bytes: usize) -> Result<QuantState, InputError> {
        let error = |key: &str, found: String| InputError::new(format!("quant_state: bad {key}")).found(found);
        let Some(code) = Code::ALL.into_iter().find(|code| code.name() == self.quant_type) else {
            return Err(error("quant_type", format!("{:?}", self.quant_type)).expected("nf4 or fp4"));
        };
        if code_of(suffix) != Some(code) {
            let expected = format!("the one that the tensor's name says: {suffix}");
            return Err(error("quant_type", self.quant_type).expected(expected));
        }
        let block = usize::try_from(self.blocksize).ok().filter(|block| BLOCKS.contains(block));
        let Some(block) = block else {
            return Err(error("blocksize", self.blocksize.to_string()).expected(format!("one of {BLOCKS:?}")));
        };
        if !DTYPES.contains(&self.dtype.as_str()) {
            return Err(error("dtype", format!("{:?}", self.dtype)).expected(DTYPES.join(", ")));
        }
        let shape = match self.shape[..] {
            [rows, cols] if (1..=MAX_SIZE).contains(&rows) && (1..=MAX_SIZE).contains(&cols) => {
                [rows as usize, cols as usize]
            }
            _ => return Err(error("shape", format!("{:?}", self.shape)).expected("[rows, columns]")),
        };
        let (scales, offset) = self.nested()?;
        Ok(QuantState { format: Format { code, block, scales }, shape, offset, json_bytes })
    }

    fn nested(&self) -> Result<(ScaleFormat, f32), InputError> {
        match (self.nested_blocksize, self.nested_dtype.as_deref(), self.nested_offset) {
            (None, None, None) => Ok((ScaleFormat::F32, 0.0)),
            (Some(block), Some("float32"), Some(offset)) if block == NESTED_BLOCK as u64 => match offset as f32 {
                offset if offset.is_finite() => Ok((ScaleFormat::Nested, offset)),
                _ => Err(InputError::new("quant_state: bad nested_offset").found(offset).expected("a finite f32")),
            },
            found => {
                let error = InputError::new("quant_state: bad nested_blocksize, nested_dtype and nested_offset");
                let expected = format!("{NESTED_BLOCK}, float32 and a number, or none of them");
                Err(error.found(format!("{found:?}")).expected(expected))
            }
        }
    }
}

/// What bitsandbytes 0.50 writes, to the byte.
pub(super) fn to_json(quantised: &Quantised, [rows, cols]: [usize; 2], dtype: &str) -> String {
    let (code, block) = (quantised.code.name(), quantised.block);
    let nested = match &quantised.scales {
        Scales::F32(_) => String::new(),
        Scales::Nested(nested) => format!(
            r#", "nested_blocksize": {NESTED_BLOCK}, "nested_dtype": "float32", "nested_offset": {}"#,
            python_float(f64::from(nested.offset))
        ),
    };
    format!(
        r#"{{"quant_type": "{code}", "blocksize": {block}, "dtype": "{dtype}", "shape": [{rows}, {cols}]{nested}}}"#
    )
}

/// Python's `repr` of a finite float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(-4..16) => format!("{value:?}"),
        Ok(exponent) if exponent < 0 => format!("{digits}e-{:02}", -exponent),
        _ => format!("{digits}e+{exponent}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (-1.0, "-1.0"),
            (f64::from(0.051_366_884f32), "0.051366884261369705"),
            (f64::from(42.257_294f32), "42.257293701171875"),
            (0.0001, "0.0001"),
            (0.00012345, "0.00012345"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (2.5e-12, "2.5e-12"),
            (1e-38, "1e-38"),
            (123456.0, "123456.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-2.5e20, "-2.5e+20"),
        ] {
            assert_eq!(python_float(value), text);
        }
    }
}
