//! Packing f32 values as bfloat16, two to a 32-bit integer.

use half::bf16;

/// The code of the nearest bfloat16, ties to even. Without a branch, so that loops over it vectorise.
#[inline]
pub fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // Rounding could carry a NaN over into a number.
    let quiet = bits | 0x0040_0000;
    ((if value.is_nan() { quiet } else { rounded }) >> 16) as u16
}

/// The value of a code.
#[inline]
pub fn widen(code: u16) -> f32 {
    f32::from_bits(u32::from(code) << 16)
}

/// Rounds to nearest even; an odd tail is padded with zero.
pub fn pack(values: &[f32]) -> Vec<i32> {
    let code = |value: f32| u32::from(bf16::from_f32(value).to_bits());
    values.chunks(2).map(|pair| (code(pair[0]) | code(pair.get(1).copied().unwrap_or(0.0)) << 16) as i32).collect()
}

/// f32 value of each of the 65,536 codes.
pub fn table() -> Vec<f32> {
    (0..=u16::MAX).map(|code| bf16::from_bits(code).to_f32()).collect()
}

/// Values `start..start + out.len()` of a packed stream.
#[inline]
pub fn unpack(codes: &[i32], start: usize, out: &mut [f32]) {
    if start.is_multiple_of(2) {
        let pairs = out.len() / 2;
        for (pair, &code) in out.chunks_exact_mut(2).zip(&codes[start / 2..]) {
            pair[0] = f32::from_bits((code as u32) << 16);
            pair[1] = f32::from_bits(code as u32 & 0xffff_0000);
        }
        if out.len() % 2 == 1 {
            out[2 * pairs] = f32::from_bits((codes[start / 2 + pairs] as u32) << 16);
        }
    } else {
        for (i, value) in out.iter_mut().enumerate() {
            let at = start + i;
            *value = f32::from_bits((codes[at / 2] as u32 >> (16 * (at % 2))) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_is_the_crate_half_to_the_bit() {
        let around = (0..=u16::MAX)
            .flat_map(|code| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| u32::from(code) << 16 | low));
        for value in around.map(f32::from_bits) {
            assert_eq!(round(value), bf16::from_f32(value).to_bits(), "{value:e}");
        }
    }

    #[test]
    fn unpack_inverts_pack_at_any_offset() {
        let values: Vec<f32> = (0..37).map(|i| (i as f32 - 18.0) * 0.25).collect();
        let codes = pack(&values);
        for start in 0..values.len() {
            for len in 0..=values.len() - start {
                let mut out = vec![0.0; len];
                unpack(&codes, start, &mut out);
                assert_eq!(out, values[start..start + len]);
            }
        }
    }
}
