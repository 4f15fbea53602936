//! VeRA (Kopiczko et al. 2023, arXiv 2310.11454), equation 2:
//!
//! ```text
//!     y = W x + bias  +  b ⊙ B (d ⊙ A drop(x))
//!
//!     x ──▶ W (frozen, out × in) ─────────────────────────▶ (+) ──▶ y
//!     └───▶ A (r × in) ──▶ d (r) ──▶ B (out × r) ──▶ b (out) ─┘
//! ```
//!
//! Only the vectors d and b train. A and B are random, never change and are the same two matrices under every layer, as large
//! as the widest one needs: a layer uses the first `in` columns of A and the first `out` rows of B. They follow from
//! `projection_prng_key` bit for bit as in PEFT, on the host, so that they are the same on every backend.

#![allow(non_snake_case)]

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::{LowRank, LowRankBackend, path_hash};
use rand_mt::Mt;

use super::method::{Method, Start, corrected, field};
use super::peft::Part;
use super::{AdapterConfig, Findings, Selected, Shared, Spec, Targets, Update, method_config};
use crate::nn::{Linear, Pass};
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

method_config! {
    pub struct VeraConfig: plain {
        /// Rows of A and columns of B; several times what LoRA needs.
        pub rank: usize = 256,
        /// A and B follow from this number, 0 to 4294967295.
        pub projection_prng_key: u64 = 0,
        /// What every entry of d starts as; b starts as zero.
        pub d_initial: f64 = 0.1,
        /// Write A and B into the adapter's file; without them a reader draws them again from the key.
        pub save_projection: bool = true,
    }
}

const PROJECTION_A: &str = "vera_A";
const PROJECTION_B: &str = "vera_B";

impl VeraConfig {
    /// The keys that methods share. There is no scale: alpha / rank is 1.
    pub fn shared(&self) -> Shared {
        Shared { rank: self.rank, alpha: self.rank as f64, ..self.scope() }
    }

    /// This method with the shared keys of another.
    pub fn with(self, shared: Shared) -> Self {
        Self { rank: shared.rank, ..self }.with_scope(shared)
    }

    /// `vera_A [rank, widest in]` and `vera_B [widest out, rank]`: Kaiming-uniform from one stream, A first.
    pub fn projections(&self, selected: &[Selected]) -> HostTensors {
        // PyTorch seeds its generator with the low 32 bits.
        let mut random = Mt::new(self.projection_prng_key as u32);
        let [a, b] = self.shapes(selected).map(|shape| kaiming_uniform(&mut random, shape));
        HostTensors::from([(PROJECTION_A.to_string(), a), (PROJECTION_B.to_string(), b)])
    }

    fn shapes(&self, selected: &[Selected]) -> [[usize; 2]; 2] {
        let widest = |size: fn(&Selected) -> usize| selected.iter().map(size).max().unwrap_or(0);
        [[self.rank, widest(|site| site.cols)], [widest(|site| site.rows), self.rank]]
    }

    /// PEFT's VeRA cannot exclude modules: those that are left are named one by one.
    fn without_exclusion(&self, selected: &[Selected]) -> Self {
        let none = Targets::Names(Vec::new());
        if self.exclude == none {
            return self.clone();
        }
        let paths = selected.iter().map(|site| site.path.clone()).collect();
        let (layers, layers_pattern) = (Vec::new(), Vec::new());
        Self { targets: Targets::Names(paths), exclude: none, layers, layers_pattern, ..self.clone() }
    }
}

/// He et al. 2015 as `torch.nn.init` has it, for a layer followed by a rectifier: uniform in ±sqrt(2) · sqrt(3 / fan_in).
fn kaiming_uniform(random: &mut Mt, [rows, fan_in]: [usize; 2]) -> HostTensor {
    // PyTorch rounds the bounds to f32, computes in f64 and rounds again.
    let bound = f64::from((3f64.sqrt() * (2f64.sqrt() / (fan_in as f64).sqrt())) as f32);
    let values = (0..rows * fan_in).map(|_| (unit(random) * (2.0 * bound) - bound) as f32).collect();
    HostTensor { shape: vec![rows, fan_in], values }
}

/// The next number of PyTorch's generator on the CPU, in `[0, 1)`.
fn unit(random: &mut Mt) -> f64 {
    f64::from(random.next_u32() & 0xff_ffff) / f64::from(1 << 24)
}

impl Spec for VeraConfig {
    fn shared(&self) -> Shared {
        self.shared()
    }

    fn validate(&self, found: &mut Findings) {
        let key = self.projection_prng_key as f64;
        found.number("projection_prng_key", key, |key| key <= f64::from(u32::MAX), "0 to 4294967295");
        let moves = |d: f64| d as f32 != 0.0 && (d as f32).is_finite();
        found.number(
            "d_initial",
            self.d_initial,
            moves,
            "a number other than 0: b starts at 0, and both would stay there",
        );
    }

    fn has_alpha(&self) -> bool {
        false
    }

    fn adapts_embeddings(&self) -> bool {
        false
    }

    fn fields(&self, site: &Selected) -> Vec<(&'static str, Vec<usize>)> {
        vec![("vera_lambda_b", vec![site.rows]), ("vera_lambda_d", vec![site.rank])]
    }

    fn retained(&self, site: &Selected) -> usize {
        site.rank
    }

    fn frozen_parameters(&self, selected: &[Selected]) -> usize {
        self.shapes(selected).iter().map(|shape| shape.iter().product::<usize>()).sum()
    }

    fn refuses_lora_plus(&self) -> Option<&'static str> {
        Some("A and B are frozen, and the vectors have one rate")
    }

    fn saved_as(&self, _: usize) -> AdapterConfig {
        self.clone().into()
    }

    fn export(&self, values: HostTensors, selected: &[Selected]) -> Result<(AdapterConfig, HostTensors)> {
        let values = values.into_iter().filter_map(|(path, host)| {
            // Go by the path of the first layer that has them.
            match [PROJECTION_A, PROJECTION_B].into_iter().find(|name| path.rsplit('.').next() == Some(name)) {
                Some(name) => self.save_projection.then(|| (name.to_string(), host)),
                None => Some((path, host)),
            }
        });
        Ok((self.without_exclusion(selected).into(), values.collect()))
    }

    fn parts(&self, site: &Selected) -> Vec<(Part, Vec<usize>)> {
        vec![(Part::LambdaB, vec![site.rows]), (Part::LambdaD, vec![site.rank])]
    }

    fn common_parts(&self, selected: &[Selected]) -> Vec<(Part, Vec<usize>)> {
        let [a, b] = self.shapes(selected).map(Vec::from);
        if self.save_projection { vec![(Part::ProjectionA, a), (Part::ProjectionB, b)] } else { Vec::new() }
    }

    fn derived(&self, selected: &[Selected]) -> HostTensors {
        if self.save_projection { HostTensors::new() } else { self.projections(selected) }
    }

    /// `diag(b) B diag(d)` times `A`.
    fn update(&self, site: &Selected, values: &HostTensors) -> Result<Update> {
        let common = |name| values.get(name).ok_or_else(|| Error::from(Error::input("missing").tensor(name)));
        let (A, B) = (common(PROJECTION_A)?, common(PROJECTION_B)?);
        let (d, b) = (field(values, &site.path, "vera_lambda_d")?, field(values, &site.path, "vera_lambda_b")?);
        let rows = B.values.chunks_exact(site.rank).zip(&b.values);
        let left = rows.flat_map(|(row, b)| row.iter().zip(&d.values).map(move |(B, d)| b * B * d)).collect();
        let right = A.values.chunks_exact(A.shape[1]).flat_map(|row| &row[..site.cols]).copied().collect();
        Ok(Update { left, right, rank: site.rank, cols: site.cols, scaling: 1.0, magnitude: None })
    }
}

#[derive(Module, Debug)]
pub struct Vera<B: Backend> {
    /// b, `[out]`
    pub vera_lambda_b: Param<Tensor<B, 1>>,
    /// d, `[r]`
    pub vera_lambda_d: Param<Tensor<B, 1>>,
    /// `[r, widest in]`, shared by all layers.
    pub vera_A: Param<Tensor<B, 2>>,
    /// `[widest out, r]`, shared by all layers.
    pub vera_B: Param<Tensor<B, 2>>,
    pub dropout: f64,
    /// Names this layer's dropout masks.
    layer: u64,
}

impl<B: LowRankBackend> Method<B> for Vera<B> {
    type Config = VeraConfig;

    fn new(site: &Selected, config: &VeraConfig, start: &mut Start<'_, B>) -> Result<Self> {
        let mut shared = |name: &str| {
            start.shared(name, |start| {
                let saved = start.values.and_then(|values| values.get(name)).cloned();
                let host = saved.unwrap_or_else(|| config.projections(start.selected)[name].clone());
                start.frozen(host.values, [host.shape[0], host.shape[1]])
            })
        };
        let [vera_A, vera_B] = [PROJECTION_A, PROJECTION_B].map(&mut shared);
        Ok(Self {
            vera_lambda_b: start.param(vec![0.0; site.rows], [site.rows]),
            vera_lambda_d: start.param(vec![config.d_initial as f32; site.rank], [site.rank]),
            vera_A,
            vera_B,
            dropout: config.dropout,
            layer: path_hash(&site.path),
        })
    }

    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        let term = LowRank {
            down: self.vera_A.val(),
            mid: Some(self.vera_lambda_d.val()),
            up: self.vera_B.val(),
            post: Some(self.vera_lambda_b.val()),
            scale: 1.0,
        };
        corrected(x, base, term, (self.dropout, self.layer), pass)
    }
}

#[cfg(test)]
mod tests;
