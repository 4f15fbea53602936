//! Rotary position embedding (Su et al. 2021), in Hugging Face's half-split layout.

use std::f64::consts::TAU;

use crate::models::{Rope, RopeScaling};

/// Cosine and sine of position × frequency, both `[positions × frequencies]`.
pub fn rotary_tables(position: &[i32], frequencies: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let angles = position.iter().flat_map(|&p| frequencies.iter().map(move |&f| p as f32 * f));
    angles.map(|angle| (angle.cos(), angle.sin())).unzip()
}

impl Rope {
    /// Rotation per position of each of the `head_dim / 2` pairs, in radians.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let plain = (0..head_dim / 2).map(|i| self.theta.powf(-2.0 * i as f64 / head_dim as f64));
        plain.map(|frequency| self.scaling.scale(frequency) as f32).collect()
    }
}

impl RopeScaling {
    fn scale(&self, frequency: f64) -> f64 {
        match *self {
            RopeScaling::Default => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            // Llama 3.1: slow rotations are stretched, fast ones kept, those between interpolated.
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let turns = original_max_position_embeddings as f64 * frequency / TAU;
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        }
    }
}
