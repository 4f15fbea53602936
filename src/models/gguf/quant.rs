//! Storage types of GGUF tensors, and their values as f32.
//!
//! A row is cut into blocks of 32 or 256 values. Notation of the block layouts below: `d` scale and `m`
//! minimum (f16), `q` the integers, stored low halves first: byte i of a group of n bytes holds value i in
//! its low nibble and value i + n in its high nibble. K types add a 6-bit scale per 32 (4K, 5K) or an 8-bit
//! one per 16 (6K). The layouts are those of ggml's `ggml-common.h`; values agree bit for bit with the
//! Python package `gguf` (tests/golden/gguf).

use half::{bf16, f16};

use super::header::Parsed;
use crate::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quant {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Quant {
    /// The type with ggml's number; a type we do not read is an error naming it.
    pub(super) fn from_id(id: u32) -> Parsed<Self> {
        Ok(match id {
            0 => Quant::F32,
            1 => Quant::F16,
            2 => Quant::Q4_0,
            3 => Quant::Q4_1,
            6 => Quant::Q5_0,
            7 => Quant::Q5_1,
            8 => Quant::Q8_0,
            12 => Quant::Q4K,
            13 => Quant::Q5K,
            14 => Quant::Q6K,
            30 => Quant::BF16,
            other => {
                let error = Error::input("cannot read this data type").found(other_name(other));
                let expected = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K";
                return Err(error.expected(expected).into());
            }
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Quant::F32 => "F32",
            Quant::F16 => "F16",
            Quant::BF16 => "BF16",
            Quant::Q4_0 => "Q4_0",
            Quant::Q4_1 => "Q4_1",
            Quant::Q5_0 => "Q5_0",
            Quant::Q5_1 => "Q5_1",
            Quant::Q8_0 => "Q8_0",
            Quant::Q4K => "Q4_K",
            Quant::Q5K => "Q5_K",
            Quant::Q6K => "Q6_K",
        }
    }

    /// Values and bytes of one block.
    fn block(self) -> (usize, usize) {
        match self {
            Quant::F32 => (1, 4),
            Quant::F16 | Quant::BF16 => (1, 2),
            Quant::Q4_0 => (32, 18),
            Quant::Q4_1 => (32, 20),
            Quant::Q5_0 => (32, 22),
            Quant::Q5_1 => (32, 24),
            Quant::Q8_0 => (32, 34),
            Quant::Q4K => (256, 144),
            Quant::Q5K => (256, 176),
            Quant::Q6K => (256, 210),
        }
    }

    /// Bytes of a tensor, or `None` if the size overflows or a row is no whole number of blocks.
    pub(super) fn stored_bytes(self, shape: &[usize]) -> Option<usize> {
        let (values, bytes) = self.block();
        let total = shape.iter().try_fold(1usize, |total, &size| total.checked_mul(size))?;
        let row = shape.last().copied().unwrap_or(1);
        row.is_multiple_of(values).then_some(total / values)?.checked_mul(bytes)
    }

    /// Values of whole blocks.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Quant::F32 => blocks(bytes, |raw: &[u8; 4], out: &mut [f32; 1]| out[0] = f32::from_le_bytes(*raw)),
            Quant::F16 => blocks(bytes, |raw, out: &mut [f32; 1]| out[0] = half_at::<2>(raw, 0)),
            Quant::BF16 => blocks(bytes, |raw: &[u8; 2], out: &mut [f32; 1]| {
                out[0] = bf16::from_le_bytes(*raw).to_f32();
            }),
            Quant::Q4_0 => blocks(bytes, q4_0),
            Quant::Q4_1 => blocks(bytes, q4_1),
            Quant::Q5_0 => blocks(bytes, q5_0),
            Quant::Q5_1 => blocks(bytes, q5_1),
            Quant::Q8_0 => blocks(bytes, q8_0),
            Quant::Q4K => blocks(bytes, q4_k),
            Quant::Q5K => blocks(bytes, q5_k),
            Quant::Q6K => blocks(bytes, q6_k),
        }
    }
}

fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) -> Vec<f32> {
    let blocks = bytes.as_chunks::<BYTES>().0;
    let mut values = vec![0.0; blocks.len() * VALUES];
    for (block, out) in blocks.iter().zip(values.as_chunks_mut::<VALUES>().0) {
        decode(block, out);
    }
    values
}

fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `d q[16]`: d·(q − 8)
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (i, byte) in block[2..].iter().enumerate() {
        out[i] = d * ((byte & 15) as f32 - 8.0);
        out[i + 16] = d * ((byte >> 4) as f32 - 8.0);
    }
}

/// `d m q[16]`: d·q + m
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, byte) in block[4..].iter().enumerate() {
        out[i] = d * (byte & 15) as f32 + m;
        out[i + 16] = d * (byte >> 4) as f32 + m;
    }
}

/// Fifth bits `h[4]` (bit i for value i) over nibbles `q[16]`.
fn five_bits(h: &[u8], q: &[u8], i: usize) -> f32 {
    let nibble = if i < 16 { q[i] & 15 } else { q[i - 16] >> 4 };
    (nibble | ((h[i / 8] >> (i % 8)) & 1) << 4) as f32
}

/// `d h[4] q[16]`: d·(q − 16)
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (i, value) in out.iter_mut().enumerate() {
        *value = d * (five_bits(&block[2..6], &block[6..], i) - 16.0);
    }
}

/// `d m h[4] q[16]`: d·q + m
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, value) in out.iter_mut().enumerate() {
        *value = d * five_bits(&block[4..8], &block[8..], i) + m;
    }
}

/// `d q[32]` (signed): d·q
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (value, &byte) in out.iter_mut().zip(&block[2..]) {
        *value = d * byte as i8 as f32;
    }
}

/// Six-bit scale and minimum of group `j` of 8, packed in 12 bytes: groups 0..4 in the low bits of bytes j
/// and j + 4, groups 4..8 in the nibbles of byte j + 4 with the top bits of bytes j − 4 and j.
fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4, (packed[j + 4] >> 4) | (packed[j] >> 6) << 4)
    };
    (scale as f32, min as f32)
}

/// `d m scales[12] q[128]`: (d·scale)·q − m·min, nibbles in groups of 32 bytes
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (j, group) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], j);
        let (scale, min) = (d * scale, m * min);
        for (value, byte) in group.iter_mut().zip(&block[16 + j / 2 * 32..]) {
            *value = scale * ((byte >> (j % 2 * 4)) & 15) as f32 - min;
        }
    }
}

/// `d m scales[12] h[32] q[128]`: as 4K, with bit j of h[i] as the fifth bit of value i of group j
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (j, group) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], j);
        let (scale, min) = (d * scale, m * min);
        for (i, value) in group.iter_mut().enumerate() {
            let nibble = (block[48 + j / 2 * 32 + i] >> (j % 2 * 4)) & 15;
            *value = scale * (nibble | ((block[16 + i] >> j) & 1) << 4) as f32 - min;
        }
    }
}

/// `q[128] h[64] scales[16] d`: d·scale·(q − 32). Each half of 128 values has 64 bytes of nibbles and 32 of
/// two-bit tops: its group g of 32 takes nibbles from bytes (g % 2)·32.., low for g < 2, tops at bit 2g.
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for (at, value) in out.iter_mut().enumerate() {
        let (half, group, i) = (at / 128, at / 32 % 4, at % 32);
        let nibble = (block[half * 64 + group % 2 * 32 + i] >> (group / 2 * 4)) & 15;
        let top = (block[128 + half * 32 + i] >> (group * 2)) & 3;
        let scale = block[192 + at / 16] as i8 as f32;
        *value = d * scale * ((nibble | top << 4) as f32 - 32.0);
    }
}

/// Names of the types that exist but are not read, for the message.
fn other_name(id: u32) -> String {
    let name = match id {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16..=23 | 29 => "IQ (codebook)",
        24..=27 => "integer",
        28 => "F64",
        34 | 35 => "TQ (ternary)",
        39 => "MXFP4",
        _ => return format!("type number {id}"),
    };
    format!("{name} (type number {id})")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden file holds random blocks and what the Python package `gguf` makes of them.
    #[test]
    fn values_agree_with_the_reference() {
        let bytes = include_bytes!("../../../tests/golden/gguf/quants.safetensors");
        let golden = safetensors::SafeTensors::deserialize(bytes).unwrap();
        for id in [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30] {
            let quant = Quant::from_id(id).unwrap();
            let stored = golden.tensor(&format!("{}.bytes", quant.name())).unwrap();
            let expected = golden.tensor(&format!("{}.values", quant.name())).unwrap();
            let expected: Vec<f32> =
                blocks(expected.data(), |raw, out: &mut [f32; 1]| *out = [f32::from_le_bytes(*raw)]);
            let values = quant.decode(stored.data());
            assert_eq!(values.len(), expected.len(), "{}", quant.name());
            assert_eq!(quant.stored_bytes(&[expected.len()]), Some(stored.data().len()), "{}", quant.name());
            assert_eq!(values, expected, "{}", quant.name());
        }
    }
}
