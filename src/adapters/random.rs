//! Initial values from a counter: they depend on the seed and the module's path, not on the order of creation.

use std::f64::consts::TAU;

use lowrank_kernels::path_hash;
use lowrank_kernels::splitmix::{GAMMA, next as mix};

/// The random numbers of one module.
#[derive(Clone, Copy, Debug)]
pub struct Stream(u64);

impl Stream {
    pub fn new(seed: u64, path: &str) -> Self {
        Stream(mix(seed ^ mix(path_hash(path))))
    }

    /// An independent stream of the same module.
    pub fn part(self, part: u64) -> Self {
        Stream(mix(self.0 ^ mix(part.wrapping_add(1))))
    }

    /// `n` values uniform in ±`bound`.
    pub fn uniform(self, n: usize, bound: f64) -> Vec<f32> {
        (0..n as u64).map(|i| ((2.0 * self.unit(i) - 1.0) * bound) as f32).collect()
    }

    /// `n` normal values of mean 0 (Box and Muller 1958).
    pub fn normal(self, n: usize, deviation: f64) -> Vec<f32> {
        let value = |i: u64| {
            let radius = (-2.0 * (1.0 - self.unit(2 * i)).ln()).sqrt();
            (radius * (TAU * self.unit(2 * i + 1)).cos() * deviation) as f32
        };
        (0..n as u64).map(value).collect()
    }

    /// Value `i` of the stream, in `[0, 1)`.
    pub fn unit(self, i: u64) -> f64 {
        (mix(self.0.wrapping_add(i.wrapping_mul(GAMMA))) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// PEFT's `orthogonal`: the rows of one orthogonal r × r matrix are dealt to A and B, so that B·A is
/// zero up to rounding while neither factor is. Returns A `[r, cols]` and B `[out, r]`; `r` is even.
pub fn orthogonal_pair(stream: &Stream, r: usize, out: usize, cols: usize) -> (Vec<f32>, Vec<f32>) {
    let q = orthogonal(&stream.part(0).normal(r * r, 1.0), r);
    let half = r / 2;
    let (left, right) = (stream.part(1).normal(cols * half, 0.1), stream.part(2).normal(out * half, 0.1));
    let mix_rows = |values: &[f32], row: usize, column: usize, parity: usize| -> f32 {
        (0..half).map(|k| f64::from(values[row * half + k]) * q[(2 * k + parity) * r + column]).sum::<f64>() as f32
    };
    let a = (0..r * cols).map(|i| mix_rows(&left, i % cols, i / cols, 0)).collect();
    let b = (0..out * r).map(|i| mix_rows(&right, i / r, i % r, 1)).collect();
    (a, b)
}

/// Orthonormal rows by modified Gram–Schmidt in f64.
fn orthogonal(values: &[f32], n: usize) -> Vec<f64> {
    let mut q: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    for i in 0..n {
        let (done, rest) = q.split_at_mut(i * n);
        let row = &mut rest[..n];
        for _ in 0..2 {
            for earlier in done.chunks_exact(n) {
                let dot: f64 = earlier.iter().zip(row.iter()).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(earlier).for_each(|(value, base)| *value -= dot * base);
            }
        }
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().for_each(|value| *value /= norm);
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_has_its_moments() {
        let values = Stream::new(3, "layer").normal(20_000, 2.0);
        let mean = values.iter().sum::<f32>() / 2e4;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 2e4;
        assert!(mean.abs() < 0.05 && (variance - 4.0).abs() < 0.15, "{mean} {variance}");
    }

    #[test]
    fn orthogonal_pair_multiplies_to_zero_but_is_not_zero() {
        let (r, out, cols) = (6, 5, 7);
        let (a, b) = orthogonal_pair(&Stream::new(1, "x"), r, out, cols);
        assert!(a.iter().chain(&b).any(|v| v.abs() > 0.01));
        for i in 0..out {
            for j in 0..cols {
                let dot: f32 = (0..r).map(|k| b[i * r + k] * a[k * cols + j]).sum();
                assert!(dot.abs() < 1e-6, "{dot}");
            }
        }
    }
}
