//! Decoding four-bit weights from slices.

use crate::four_bit::NESTED_BLOCK;

/// A four-bit matrix as it lies in memory; see [`crate::FourBit`].
pub(crate) struct Blocks<'a> {
    pub codes: &'a [i32],
    pub scales: Scales<'a>,
    pub book: &'a [f32],
    pub block: usize,
}

/// See [`crate::BlockScales`].
pub(crate) enum Scales<'a> {
    F32(&'a [f32]),
    Nested { codes: &'a [i32], scales: &'a [f32], map: &'a [f32], offset: f32 },
}

impl Scales<'_> {
    fn of(&self, block: usize) -> f32 {
        match self {
            Scales::F32(scales) => scales[block],
            Scales::Nested { codes, scales, map, offset } => {
                let code = codes[block / 4] as u32 >> (8 * (block % 4)) & 255;
                map[code as usize] * scales[block / NESTED_BLOCK] + offset
            }
        }
    }
}

impl Blocks<'_> {
    /// Elements `start..start + values.len()`.
    pub fn decode(&self, start: usize, values: &mut [f32]) {
        let mut at = start;
        let mut rest = values;
        while !rest.is_empty() {
            let block = at / self.block;
            let len = rest.len().min((block + 1) * self.block - at);
            let (run, after) = rest.split_at_mut(len);
            let scale = self.scales.of(block);
            for (i, value) in (at..).zip(run) {
                // The earlier of two indices is in the high half of its byte.
                let shift = 8 * (i % 8 / 2) + 4 * (1 - i % 2);
                *value = self.book[(self.codes[i / 8] as u32 >> shift & 15) as usize] * scale;
            }
            (at, rest) = (at + len, after);
        }
    }
}
