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

#[cfg(test)]
mod tests {
    use lowrank_kernels::four_bit::{Code, ScaleFormat};

    use super::*;
    use crate::adapters::ModuleKind;
    use crate::adapters::fixtures::golden;
    use crate::adapters::random::Stream;

    const NF4: Format = Format { code: Code::Nf4, block: 64, scales: ScaleFormat::F32 };

    fn plan(iterations: u16, rank: usize) -> LoftqPlan {
        LoftqPlan { iterations, ranks: [("layer".to_string(), rank)].into() }
    }

    /// Q and the factors at s = 1 of one layer.
    fn around(plan: &LoftqPlan, values: &[f32], shape: [usize; 2], format: Format) -> (Quantised, HostTensors) {
        let quantised = plan.quantised("layer", values, shape, format).unwrap();
        let factors = plan.factors("layer", values, &quantised, shape).unwrap();
        (quantised, factors)
    }

    /// Signs of singular vectors are anybody's, but the same for both factors.
    fn turned(ours: &[f32], theirs: &[f32]) -> f32 {
        if ours.iter().zip(theirs).map(|(a, b)| a * b).sum::<f32>() < 0.0 { -1.0 } else { 1.0 }
    }

    #[test]
    fn codes_and_factors_are_pefts_at_a_scale_of_one() {
        for (layer, rank, iterations) in [("a", 4, 1), ("a", 4, 4), ("b", 3, 1), ("b", 3, 4)] {
            let golden = golden(&format!("init_{layer}_loftq_iter{iterations}"));
            let weight = &golden["weight"];
            let [rows, cols] = [weight.shape[0], weight.shape[1]];
            let (quantised, factors) = around(&plan(iterations, rank), &weight.values, [rows, cols], NF4);
            // From the second iteration on PEFT's sums in f32 show in the last bits of the scales.
            let slack = if iterations == 1 { 0.0 } else { 4.0 * f32::EPSILON };
            for (ours, theirs) in quantised.dequantise().iter().zip(&golden["dequantized_weight"].values) {
                assert!((ours - theirs).abs() <= slack * theirs.abs(), "{layer} {iterations}: {ours} {theirs}");
            }
            let (a, b) = (&factors["layer.lora_A"], &factors["layer.lora_B"]);
            let (their_a, their_b) = (&golden["lora_A"], &golden["lora_B"]);
            assert_eq!([&a.shape, &b.shape], [&their_a.shape, &their_b.shape]);
            for k in 0..rank {
                let row = k * cols..(k + 1) * cols;
                let sign = turned(&a.values[row.clone()], &their_a.values[row.clone()]);
                let close = |ours: f32, theirs: f32| assert!((ours * sign - theirs).abs() < 2e-6, "{ours} {theirs}");
                a.values[row.clone()].iter().zip(&their_a.values[row]).for_each(|(ours, theirs)| close(*ours, *theirs));
                (0..rows).for_each(|i| close(b.values[i * rank + k], their_b.values[i * rank + k]));
            }
        }
    }

    /// The matrix that the layer starts with, s included.
    fn started(values: &[f32], [rows, cols]: [usize; 2], plan: &LoftqPlan, format: Format, scaling: f64) -> Vec<f64> {
        let (quantised, left) = around(plan, values, [rows, cols], format);
        let rank = plan.ranks["layer"];
        let (path, kind, alpha) = ("layer".to_string(), ModuleKind::Linear, scaling * rank as f64);
        let [a, b] = start(&Selected { path, kind, rows, cols, rank, alpha, scaling }, Some(&left)).unwrap();
        let product = matmul(&wide(&b), [rows, rank], &wide(&a), cols);
        product.iter().zip(quantised.dequantise()).map(|(ba, q)| f64::from(q) + scaling * ba).collect()
    }

    fn distance(values: &[f32], found: &[f64]) -> f64 {
        values.iter().zip(found).map(|(w, found)| (f64::from(*w) - found).powi(2)).sum::<f64>().sqrt()
    }

    fn normal(n: usize) -> Vec<f32> {
        Stream::new(7, "loftq").normal(n, 1.0)
    }

    /// Singular values from 1 to a hundredth.
    fn decaying(n: usize) -> Vec<f32> {
        let [u, v] =
            ["u", "v"].map(|name| crate::linalg::qr(&wide(&Stream::new(7, name).normal(n * n, 1.0)), [n, n]).q);
        let us = u.iter().enumerate().map(|(i, u)| u * 0.01f64.powf((i % n) as f64 / (n - 1) as f64));
        matmul(&us.collect::<Vec<_>>(), [n, n], &v, n).iter().map(|v| *v as f32).collect()
    }

    #[test]
    fn the_error_falls_below_quantisations_and_with_every_iteration() {
        const N: usize = 96;
        for (values, scales) in [
            (normal(N * N), ScaleFormat::F32),
            (normal(N * N), ScaleFormat::Nested),
            (decaying(N), ScaleFormat::F32),
            (decaying(N), ScaleFormat::Nested),
        ] {
            let format = Format { scales, ..NF4 };
            let plain = Quantised::new(&values, format).dequantise();
            let mut before = 0.95 * distance(&values, &plain.iter().map(|q| f64::from(*q)).collect::<Vec<_>>());
            for iterations in [1, 2, 5] {
                let found = distance(&values, &started(&values, [N, N], &plan(iterations, 8), format, 1.0));
                assert!(found < before, "{iterations}: {found}, before {before}");
                before = found;
            }
        }
    }

    /// PEFT leaves s out, and at s = 4 its start is further from W than plain quantisation.
    #[test]
    fn the_scale_is_divided_out() {
        let values = normal(48 * 32);
        let matrix = |s| started(&values, [48, 32], &plan(2, 6), NF4, s);
        let one = matrix(1.0);
        for s in [0.25, 4.0, 2f64.sqrt()] {
            assert!(matrix(s).iter().zip(&one).all(|(a, b)| (a - b).abs() < 1e-6), "{s}");
        }
        let (quantised, left) = around(&plan(1, 6), &values, [48, 32], NF4);
        let [a, b] = ["layer.lora_A", "layer.lora_B"].map(|name| wide(&left[name].values));
        let product = matmul(&b, [48, 6], &a, 32);
        let theirs: Vec<f64> =
            product.iter().zip(quantised.dequantise()).map(|(ba, q)| 4.0 * ba + f64::from(q)).collect();
        let plain: Vec<f64> = quantised.dequantise().iter().map(|q| f64::from(*q)).collect();
        assert!(distance(&values, &theirs) > distance(&values, &plain));
    }

    #[test]
    fn one_iteration_and_layers_outside_the_plan_are_plainly_quantised() {
        let values = normal(40 * 16);
        let plain = Quantised::new(&values, NF4);
        assert_eq!(plan(1, 4).quantised("layer", &values, [40, 16], NF4).unwrap(), plain);
        assert_ne!(plan(2, 4).quantised("layer", &values, [40, 16], NF4).unwrap(), plain);
        assert_eq!(plan(2, 4).quantised("other", &values, [40, 16], NF4).unwrap(), plain);
        assert!(plan(2, 4).factors("other", &values, &plain, [40, 16]).unwrap().is_empty());
        assert!(plan(2, 4).owns_base() && !plan(1, 4).owns_base());
    }

    #[test]
    fn a_start_of_another_rank_is_told() {
        let values = normal(40 * 16);
        let (_, left) = around(&plan(1, 4), &values, [40, 16], NF4);
        let site = |rank| Selected {
            path: "layer".into(),
            kind: ModuleKind::Linear,
            rows: 40,
            cols: 16,
            rank,
            alpha: 1.0,
            scaling: 1.0,
        };
        assert!(start(&site(4), Some(&left)).is_ok());
        let told = start(&site(5), Some(&left)).unwrap_err().to_string();
        assert!(told.contains("another rank") && told.contains("layer"), "{told}");
        assert!(start(&site(4), None).unwrap_err().to_string().contains("not loaded for a start with LoftQ"));
    }
}
