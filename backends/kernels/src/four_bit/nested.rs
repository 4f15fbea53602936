//! Double quantisation: the scales of blocks in eight bits (QLoRA, section 3).

use super::dynamic_map;

/// Scales that share a scale of their own.
pub const NESTED_BLOCK: usize = 256;

/// `map[code] · scale[i / 256] + offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct Nested {
    pub codes: Vec<u8>,
    /// Largest magnitude of each block of [`NESTED_BLOCK`], the offset taken off.
    pub scales: Vec<f32>,
    /// Mean of all scales.
    pub offset: f32,
}

impl Nested {
    pub fn new(scales: &[f32]) -> Self {
        let offset = mean(scales);
        let centred: Vec<f32> = scales.iter().map(|scale| scale - offset).collect();
        let largest = |chunk: &[f32]| chunk.iter().fold(0.0f32, |max, value| max.max(value.abs()));
        let outer: Vec<f32> = centred.chunks(NESTED_BLOCK).map(largest).collect();
        Self { codes: Self::codes(&centred, &outer), scales: outer, offset }
    }

    /// The code of each value, whose blocks of [`NESTED_BLOCK`] have these largest magnitudes.
    pub fn codes(values: &[f32], scales: &[f32]) -> Vec<u8> {
        let bounds: Vec<f32> = dynamic_map().windows(2).map(|pair| 0.5 * (pair[0] + pair[1])).collect();
        let chunks = values.chunks(NESTED_BLOCK).zip(scales);
        let codes = chunks.flat_map(|(chunk, scale)| chunk.iter().map(|value| (*value, *scale)));
        codes.map(|(value, scale)| code(value, scale, &bounds)).collect()
    }

    pub fn dequantise(&self) -> Vec<f32> {
        nested_scales(&self.codes, &self.scales, self.offset, &dynamic_map())
    }
}

/// `map[code] · scale[i / 256] + offset` of every code.
pub fn nested_scales(codes: &[u8], scales: &[f32], offset: f32, map: &[f32]) -> Vec<f32> {
    let chunks = codes.chunks(NESTED_BLOCK).zip(scales);
    chunks.flat_map(|(chunk, scale)| chunk.iter().map(move |code| map[usize::from(*code)] * scale + offset)).collect()
}

/// bitsandbytes 0.50 on a CPU first rounds to one of 65,536 places between -1 and 1, so a value close to a bound may take the
/// entry beyond it. A block of zeros takes code 0.
fn code(value: f32, scale: f32, bounds: &[f32]) -> u8 {
    const PLACES: f32 = 65535.0;
    if scale == 0.0 {
        return 0;
    }
    let scaled = (value * (1.0 / scale)).clamp(-1.0, 1.0);
    let place = ((scaled + 1.0) * 0.5 * PLACES + 0.5).floor();
    let rounded = -1.0 + 2.0 * place / PLACES;
    bounds.partition_point(|bound| *bound < rounded) as u8
}

/// The mean, added up in the order in which torch's CPU kernel adds up to 32,768 numbers: four accumulators of eight lanes,
/// each in four levels. Another order would change the offset in its last bit.
fn mean(values: &[f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let sum = if values.len() < LANES {
        let singles: Vec<[f32; 1]> = values.iter().map(|value| [*value]).collect();
        row_sum(&singles)[0]
    } else {
        let (vectors, rest) = values.as_chunks::<LANES>();
        let lanes = row_sum(vectors);
        rest.iter().chain(&lanes).fold(0.0, |sum, value| sum + value)
    };
    sum / values.len() as f32
}

const LANES: usize = 8;
const ROWS: usize = 4;

fn add<const N: usize>(sum: &mut [f32; N], values: &[f32; N]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

fn row_sum<const N: usize>(values: &[[f32; N]]) -> [f32; N] {
    let (groups, rest) = values.as_chunks::<ROWS>();
    let [mut sum, others @ ..] = cascade(groups);
    rest.iter().chain(&others).for_each(|values| add(&mut sum, values));
    sum
}

/// Sums over the groups, each of its rows by itself, in levels that fill up one after the other.
fn cascade<const N: usize>(groups: &[[[f32; N]; ROWS]]) -> [[f32; N]; ROWS] {
    const LEVELS: usize = 4;
    let power = (groups.len().next_power_of_two().trailing_zeros() as usize / LEVELS).max(4);
    let step = 1 << power;
    let mut levels = [[[0.0; N]; ROWS]; LEVELS];
    let mut done = 0;
    for group in groups {
        (0..ROWS).for_each(|row| add(&mut levels[0][row], &group[row]));
        done += 1;
        if done % step != 0 {
            continue;
        }
        for level in 1..LEVELS {
            let full = std::mem::replace(&mut levels[level - 1], [[0.0; N]; ROWS]);
            (0..ROWS).for_each(|row| add(&mut levels[level][row], &full[row]));
            if done & ((step - 1) << (level * power)) != 0 {
                break;
            }
        }
    }
    let [mut sum, others @ ..] = levels;
    others.iter().for_each(|level| (0..ROWS).for_each(|row| add(&mut sum[row], &level[row])));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_come_back_close_and_an_even_vector_exactly() {
        let scales: Vec<f32> = (0..1000).map(|i| 0.05 + 0.01 * (i as f32 * 0.7).sin()).collect();
        let nested = Nested::new(&scales);
        assert_eq!((nested.codes.len(), nested.scales.len()), (1000, 4));
        let worst = scales.iter().zip(nested.dequantise()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.01 * 0.0072, "{worst}");
        assert_eq!(Nested::new(&[0.25; 300]).dequantise(), [0.25; 300]);
        assert!(Nested::new(&[]).dequantise().is_empty());
    }

    #[test]
    fn the_mean_is_a_mean() {
        for n in [1, 5, 8, 31, 64, 1000, 30_000] {
            let values: Vec<f32> = (0..n).map(|i| (i % 17) as f32).collect();
            let exact = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            assert!((f64::from(mean(&values)) - exact).abs() < 1e-5 * exact.max(1.0), "{n}");
        }
    }
}
