//! LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): LoRA with the random A it started from.
//!
//! ```text
//!     y = W x + b  +  s · B (A drop(x))          s = alpha / r, or alpha / sqrt(r) with rslora
//!
//!     x ──▶ W (frozen, out × in) ──────────────────────▶ (+) ──▶ y
//!     └───▶ A (frozen, r × in) ──▶ s ──▶ B (out × r) ─────┘
//!                             └ all that is kept: A x (n × r), where LoRA keeps x (n × in) as well
//! ```
//!
//! Only B trains, so W moves within the row space of A. Of all the steps that B can take, the one whose `s · X · A` is nearest
//! to the gradient G of W is (version 2 of the paper; PEFT's `create_lorafa_optimizer`)
//!
//! ```text
//!     X = (1/s) · G Aᵀ (A Aᵀ)⁻¹ = (1/s²) · g_B (A Aᵀ)⁻¹            g_B = s · G Aᵀ, the plain gradient
//! ```
//!
//! A never changes: the inverse is computed once, on the host. The norm of clipping is that of g_B, as in PEFT, where the
//! trainer clips before the optimizer corrects. On an embedding A is the side that starts at zero: frozen, nothing would train.

#![allow(non_snake_case)]

use std::collections::HashMap;

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use indexmap::IndexMap;
use lowrank_kernels::{LowRank, LowRankBackend, path_hash};

use super::method::{Method, Rule, Start, corrected};
use super::{AdapterConfig, LoraConfig, LoraInit, Selected, Shared, Spec, init, method_config};
use crate::linalg::Side;
use crate::nn::{Linear, Pass};
use crate::optim::Form;
use crate::tensors::HostTensors;
use crate::{Error, Result, linalg};

/// Added to the diagonal of A Aᵀ, so that a row of zeros in A has an inverse too.
const RIDGE: f64 = 1e-8;

method_config! {
    pub struct LoraFaConfig: scaled {
        /// Step along the gradient of B that comes nearest to the full gradient, in the arithmetic of PEFT's optimizer.
        pub corrected: bool = true,
    }
}

impl Spec for LoraFaConfig {
    fn shared(&self) -> Shared {
        self.shared()
    }

    fn adapts_embeddings(&self) -> bool {
        false
    }

    fn fields(&self, site: &Selected) -> Vec<(&'static str, Vec<usize>)> {
        vec![("lora_B", vec![site.rows, site.rank])]
    }

    fn frozen_parameters(&self, selected: &[Selected]) -> usize {
        selected.iter().map(|site| site.rank * site.cols).sum()
    }

    fn retained(&self, site: &Selected) -> usize {
        site.rank
    }

    fn optimizer(&self) -> Form {
        if self.corrected { Form::HuggingFace } else { Form::Torch }
    }

    fn refuses_lora_plus(&self) -> Option<&'static str> {
        Some("A is frozen, so there is one rate")
    }

    /// To PEFT, LoRA-FA is a way to train a LoRA adapter.
    fn saved_as(&self, _: usize) -> AdapterConfig {
        LoraConfig::default().with(self.shared()).into()
    }

    fn export(&self, values: HostTensors, _: &[Selected]) -> Result<(AdapterConfig, HostTensors)> {
        Ok((self.saved_as(0), values))
    }
}

#[derive(Module, Debug)]
pub struct LoraFa<B: Backend> {
    /// `[r, in]`, frozen.
    pub lora_A: Param<Tensor<B, 2>>,
    /// `[out, r]`
    pub lora_B: Param<Tensor<B, 2>>,
    pub scaling: f64,
    pub dropout: f64,
    /// Names this layer's dropout masks.
    layer: u64,
}

impl<B: LowRankBackend> Method<B> for LoraFa<B> {
    type Config = LoraFaConfig;

    fn new(site: &Selected, config: &LoraFaConfig, fresh: &mut Start<'_, B>) -> Result<Self> {
        let [a, b] = init::start(site, LoraInit::Default, fresh)?;
        Ok(Self {
            lora_A: fresh.frozen(a, [site.rank, site.cols]),
            lora_B: fresh.param(b, [site.rows, site.rank]),
            scaling: site.scaling,
            dropout: config.dropout,
            layer: path_hash(&site.path),
        })
    }

    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        let term = LowRank::product(self.lora_A.val(), self.lora_B.val(), self.scaling);
        corrected(x, base, term, (self.dropout, self.layer), pass)
    }

    fn rule(config: &LoraFaConfig, selected: &[Selected], _: usize) -> Option<Box<dyn Rule<B>>> {
        let correction = || Correction { sites: selected.to_vec(), factors: HashMap::new() };
        config.corrected.then(|| Box::new(correction()) as Box<dyn Rule<B>>)
    }
}

/// Turns g_B into X.
struct Correction<B: Backend> {
    sites: Vec<Selected>,
    /// By path of B: `(A Aᵀ)⁻¹ / s²`, `[r, r]`.
    factors: HashMap<String, Tensor<B, 2>>,
}

impl<B: Backend> Rule<B> for Correction<B> {
    fn loaded(&mut self, params: &IndexMap<String, Tensor<B, 1>>) -> Result<()> {
        for site in self.sites.iter().filter(|site| site.rank > 0) {
            let name = format!("{}.lora_A", site.path);
            let a = params.get(&name).ok_or_else(|| Error::input("missing from the adapter").tensor(&name))?;
            let values = a.to_data().iter::<f64>().collect::<Vec<_>>();
            let factor = factor(&values, site)?.into_iter().map(|value| value as f32).collect();
            let factor = Tensor::from_data(TensorData::new(factor, [site.rank; 2]), &a.device());
            self.factors.insert(format!("{}.lora_B", site.path), factor);
        }
        Ok(())
    }

    fn direct(&self, path: &str, grad: Tensor<B, 1>) -> Tensor<B, 1> {
        match self.factors.get(path) {
            Some(factor) => grad.reshape([-1, factor.dims()[0] as i32]).matmul(factor.clone()).reshape([-1]),
            // A bias, or a module that trains whole.
            None => grad,
        }
    }
}

/// `(A Aᵀ + ridge)⁻¹ / s²` of `a [r, in]`, symmetric `[r, r]`.
fn factor(a: &[f64], site: &Selected) -> Result<Vec<f64>> {
    let (r, scale) = (site.rank, site.scaling * site.scaling);
    let mut gram = linalg::gram(a, [r, site.cols], Side::Rows);
    gram.iter_mut().step_by(r + 1).for_each(|diagonal| *diagonal += RIDGE);
    let mut scaled = vec![0.0; r * r];
    scaled.iter_mut().step_by(r + 1).for_each(|diagonal| *diagonal = 1.0 / scale);
    linalg::solve_positive(&gram, r, &scaled, r)
}

#[cfg(test)]
mod tests {
    use burn::tensor::backend::AutodiffBackend;

    use super::*;
    use crate::adapters::fixtures::{B, assert_close, golden, linear, param, tensor};
    use crate::adapters::{ModuleKind, Pool, lora::Lora};
    use crate::optim::traces::Trace;
    use crate::recipe::{AdamW, Optim};

    type Inner = <B as AutodiffBackend>::InnerBackend;

    fn site(rank: usize, rows: usize, cols: usize, scaling: f64) -> Selected {
        Selected { path: "l".into(), kind: ModuleKind::Linear, rows, cols, rank, alpha: scaling * rank as f64, scaling }
    }

    /// Both methods on one layer, with the same A and B.
    fn pair(tensors: &HostTensors, base: &Linear<B>) -> (LoraFa<B>, Lora<B>) {
        let (site, pool) = (site(4, 16, 24, 2.0), &mut Pool::new());
        let device = Default::default();
        let mut start = Start { seed: 0, device, selected: &[], weight: &base.weight, pool, values: None };
        let mut ours = LoraFa::new(&site, &LoraFaConfig::default(), &mut start).unwrap();
        let mut lora = Lora::new(&site, &LoraConfig::default(), &mut start).unwrap();
        let set = |param: &mut Param<Tensor<B, 2>>, name: &str| {
            let trains = param.is_require_grad();
            *param = self::param(tensors, name).set_require_grad(trains);
        };
        set(&mut ours.lora_A, "lora_A");
        set(&mut ours.lora_B, "lora_B");
        set(&mut lora.lora_A, "lora_A");
        set(&mut lora.lora_B, "lora_B");
        (ours, lora)
    }

    #[test]
    fn gradients_of_b_and_x_are_those_of_lora_to_the_bit() {
        let golden = golden("linear_a_lora");
        let base = linear(&golden);
        let (ours, lora) = pair(&golden, &base);
        let through = |forward: &dyn Fn(Tensor<B, 2>) -> Tensor<B, 2>| {
            let x = tensor::<2>(&golden, "x").require_grad();
            let y = forward(x.clone());
            let grads = (y.clone() * tensor(&golden, "g")).sum().backward();
            (x.grad(&grads).unwrap(), grads, y.inner())
        };
        let (x, grads, y) = through(&|x| ours.forward(x, &base, Pass::EVAL));
        let (lora_x, lora_grads, _) = through(&|x| lora.forward(x, &base, Pass::EVAL));
        assert_close(y, &golden, "y");
        assert_eq!(x.to_data(), lora_x.to_data());
        let b = ours.lora_B.grad(&grads).unwrap();
        assert_eq!(b.to_data(), lora.lora_B.grad(&lora_grads).unwrap().to_data());
        assert_close(b, &golden, "grad_lora_B");
        assert!(ours.lora_A.grad(&grads).is_none() && lora.lora_A.grad(&lora_grads).is_some());
    }

    #[test]
    fn the_corrected_step_is_the_least_squares_solution() {
        let (site, [out, cols]) = (site(3, 5, 8, 1.5), [5, 8]);
        let wave = |n: usize, seed: f64| (0..n).map(|i| ((i * i) as f64 * 0.37 + seed).sin()).collect::<Vec<_>>();
        let (a, full) = (wave(3 * cols, 0.3), wave(out * cols, 1.1));
        let transposed = linalg::transposed(&a, cols);
        let plain = linalg::matmul(&full, [out, cols], &transposed, 3);
        let flat = |values: &[f64]| {
            Tensor::<Inner, 1>::from_floats(
                &values.iter().map(|v| *v as f32).collect::<Vec<_>>()[..],
                &Default::default(),
            )
        };
        let mut rule = Correction { sites: vec![site], factors: HashMap::new() };
        rule.loaded(&[("l.lora_A".to_string(), flat(&a))].into()).unwrap();
        let x = rule.direct("l.lora_B", flat(&plain).mul_scalar(1.5));
        let x: Vec<f64> = x.into_data().iter::<f64>().map(|x| 1.5 * x).collect();
        // At the nearest point what is left of the full gradient is at right angles to every row of A.
        let near = linalg::matmul(&x, [out, 3], &a, cols);
        let rest: Vec<f64> = full.iter().zip(&near).map(|(full, near)| full - near).collect();
        let along = linalg::matmul(&rest, [out, cols], &transposed, 3);
        assert!(along.iter().all(|along| along.abs() < 1e-5) && rest.iter().any(|rest| rest.abs() > 0.1), "{along:?}");
        // What is no B of an adapter passes through.
        assert_eq!(rule.direct("l.bias", flat(&plain)).into_data(), flat(&plain).into_data());
    }

    #[test]
    fn rows_of_zeros_in_a_do_no_harm() {
        let site = site(3, 5, 4, 2.0);
        let a = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0];
        assert!(factor(&a, &site).unwrap().iter().all(|value| value.is_finite()));
    }

    #[test]
    fn five_corrected_steps_equal_peft() {
        // PEFT also has a form with the product in bf16 autocast, for devices that have it; all arithmetic here is f32.
        let cases = [("f32", 0.0, false), ("f32_wd", 0.1, false), ("f32_rslora", 0.0, true)];
        for (name, weight_decay, rslora) in cases {
            let config = LoraFaConfig { rank: 4, alpha: 8.0, rslora, ..LoraFaConfig::default() };
            let adamw = AdamW { lr: 1e-2, weight_decay, ..AdamW::default() };
            let optim = Optim { adamw, ..Optim::default() };
            Trace::new(&format!("optim_lorafa_{name}"), &config.into(), &optim).equals_reference(1e-2);
        }
    }
}
