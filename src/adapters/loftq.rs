//! LoftQ (Li et al. 2023, arXiv 2310.08659), algorithm 1: a quantised weight and a low-rank start that make up for what the other lacks.
//!
//! ```text
//!     Q_t = quant(W − L_{t−1}),   L_t = the best approximation of W − Q_t of rank r,   L_0 = 0        t = 1 … T
//!
//!     L_T = U_r S_r V_rᵀ = s B₀ A₀        B₀ = U_r sqrt(S_r / s)        A₀ = sqrt(S_r / s) V_rᵀ
//! ```
//!
//! The layer starts as `Q_T x + s B₀ A₀ x`, closer to `W x` than `quant(W) x` is. PEFT's start leaves s out, so that its product is the
//! best approximation only at s = 1, and s times that elsewhere. L_t does not depend on s: the base Q_T is a function of W, the format, r and T alone.
//!
//! Q_1 is plain quantisation, which any adapter may share; from T = 2 on the base belongs to this start.

use indexmap::IndexMap;
use lowrank_kernels::four_bit::{Format, Quantised};

use super::init::principal;
use super::method::field;
use super::{AdapterConfig, Module, Origin, Selected};
use crate::error::InputError;
use crate::linalg::{Svd, leading_svd, matmul, wide};
use crate::models::ModelConfig;
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

/// The layers that start so.
#[derive(Clone, Debug, PartialEq)]
pub struct LoftqPlan {
    /// T, 1 or more.
    pub iterations: u16,
    /// r of each, by module path.
    pub ranks: IndexMap<String, usize>,
}

impl LoftqPlan {
    /// None where `adapter` starts in another way.
    pub fn new(adapter: &AdapterConfig, selected: &[Selected]) -> Option<Self> {
        let iterations = adapter.spec()?.loftq()?;
        let ranks = selected.iter().map(|site| (site.path.clone(), site.rank)).collect();
        Some(Self { iterations, ranks })
    }

    /// The plan of a base of its own under `adapter`; none where the base is plain or plainly quantised.
    ///
    /// # Errors
    /// If `adapter` does not fit the model.
    pub fn own_base(adapter: &AdapterConfig, config: &ModelConfig) -> Result<Option<Self>> {
        let selected = adapter.select(&Module::list(config), Origin::Recipe)?;
        Ok(Self::new(adapter, &selected).filter(Self::owns_base))
    }

    /// Whether the base differs from plain quantisation's, so that no other start can share it.
    pub fn owns_base(&self) -> bool {
        self.iterations > 1
    }

    /// Q_T of the linear layer `path`, whose weight is `values [rows, cols]`; its plain quantisation where it is not in the plan.
    ///
    /// # Errors
    /// If a decomposition does not converge.
    pub fn quantised(&self, path: &str, values: &[f32], shape: [usize; 2], format: Format) -> Result<Quantised> {
        let mut quantised = Quantised::new(values, format);
        let Some(&rank) = self.ranks.get(path) else { return Ok(quantised) };
        for _ in 1..self.iterations {
            let product = product(&lost(values, &quantised, shape, rank)?, shape);
            let rest: Vec<f32> = values.iter().zip(product).map(|(w, l)| (f64::from(*w) - l) as f32).collect();
            quantised = Quantised::new(&rest, format);
        }
        Ok(quantised)
    }

    /// `lora_A [r, cols]` and `lora_B [rows, r]` with `B A = L_T`, by path, for the start at s = 1; none where the layer is not in the plan.
    ///
    /// # Errors
    /// As for [`Self::quantised`].
    pub fn factors(&self, path: &str, values: &[f32], quantised: &Quantised, shape: [usize; 2]) -> Result<HostTensors> {
        let Some(&rank) = self.ranks.get(path) else { return Ok(HostTensors::new()) };
        let [a, b] = principal(&lost(values, quantised, shape, rank)?, rank, 1.0);
        let [rows, cols] = shape;
        let named = |field: &str, shape, values| (format!("{path}.{field}"), HostTensor { shape, values });
        Ok([named("lora_A", vec![rank, cols], a), named("lora_B", vec![rows, rank], b)].into())
    }
}

/// A base's LoftQ, while it is loaded.
#[derive(Clone, Copy)]
pub struct Loftq<'a> {
    pub plan: &'a LoftqPlan,
    pub factors: Factors,
    /// Hears of layers done and in all.
    pub progress: Progress,
}

/// What becomes of B₀ and A₀.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    /// They stay on the host, for fresh adapters.
    Keep,
    /// Nothing starts here: one decomposition less for each layer.
    Skip,
}

/// Hears of parts done and in all.
pub type Progress = fn(usize, usize);

/// A₀ and B₀ of a fresh adapter from what loading the base has left.
pub(super) fn start(site: &Selected, left: Option<&HostTensors>) -> Result<[Vec<f32>; 2]> {
    let (Some(left), [out, cols]) = (left, site.outputs_and_inputs()) else {
        let what = "the base was not loaded for a start with LoftQ";
        return Err(Error::input(what).tensor(&site.path).hint("load it with this adapter's `LoftqPlan`").into());
    };
    let half = (1.0 / site.scaling).sqrt();
    let scaled = |name, expected: [usize; 2]| {
        let factor = field(left, &site.path, name)?;
        if factor.shape != expected {
            let error = InputError::new("the base was loaded for a start of another rank").tensor(&site.path);
            return Err(error.found(format!("{:?}", factor.shape)).expected(format!("{expected:?}")).into());
        }
        Ok::<_, Error>(factor.values.iter().map(|v| (f64::from(*v) * half) as f32).collect())
    };
    Ok([scaled("lora_A", [site.rank, cols])?, scaled("lora_B", [out, site.rank])?])
}

/// The leading singular values and vectors of W − Q.
fn lost(values: &[f32], quantised: &Quantised, shape: [usize; 2], rank: usize) -> Result<Svd> {
    let mut rest = wide(values);
    rest.iter_mut().zip(quantised.dequantise()).for_each(|(w, q)| *w -= f64::from(q));
    leading_svd(&rest, shape, rank)
}

/// U S Vᵀ
fn product(svd: &Svd, [rows, cols]: [usize; 2]) -> Vec<f64> {
    let rank = svd.s.len();
    let scaled: Vec<f64> = svd.u.iter().enumerate().map(|(i, u)| u * svd.s[i % rank]).collect();
    matmul(&scaled, [rows, rank], &svd.vt, cols)
}
