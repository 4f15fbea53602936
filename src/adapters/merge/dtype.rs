//! The number formats a merged model is written in.

use half::{bf16, f16};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutDtype {
    #[default]
    F32,
    Bf16,
    F16,
}

impl OutDtype {
    /// As safetensors calls it.
    pub fn name(self) -> &'static str {
        match self {
            OutDtype::F32 => "F32",
            OutDtype::Bf16 => "BF16",
            OutDtype::F16 => "F16",
        }
    }

    /// As `config.json` calls it.
    pub fn torch_name(self) -> &'static str {
        match self {
            OutDtype::F32 => "float32",
            OutDtype::Bf16 => "bfloat16",
            OutDtype::F16 => "float16",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            OutDtype::F32 => 4,
            OutDtype::Bf16 | OutDtype::F16 => 2,
        }
    }

    /// Appends `value`, rounded to nearest even, to `bytes` and returns what it became.
    pub(super) fn encode(self, value: f32, bytes: &mut Vec<u8>) -> f32 {
        match self {
            OutDtype::F32 => {
                bytes.extend(value.to_le_bytes());
                value
            }
            OutDtype::Bf16 => {
                let rounded = bf16::from_f32(value);
                bytes.extend(rounded.to_le_bytes());
                rounded.to_f32()
            }
            OutDtype::F16 => {
                let rounded = f16::from_f32(value);
                bytes.extend(rounded.to_le_bytes());
                rounded.to_f32()
            }
        }
    }
}
