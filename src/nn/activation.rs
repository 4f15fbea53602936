//! What stands between the projections of a feed-forward layer.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use lowrank_kernels::{LowRankBackend, swiglu};
use serde::Serialize;

/// What a gate goes through before it multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    #[default]
    Silu,
    /// [`gelu`].
    Gelu,
}

impl Gate {
    /// `act(gate) ⊙ up` (Shazeer 2020).
    pub fn open<B: LowRankBackend>(self, gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Gate::Silu => swiglu(gate, up),
            Gate::Gelu => gelu(gate) * up,
        }
    }
}

/// The tanh form of the Gaussian error linear unit, `gelu_new` of transformers (Hendrycks and Gimpel 2016, section 2):
/// `x / 2 · (1 + tanh(sqrt(2 / π) · (x + 0.044715 x³)))`.
pub fn gelu<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let inner = (x.clone() * x.clone()).mul_scalar(0.044715).add_scalar(1.0) * x.clone();
    let inner = inner.mul_scalar((2.0 / std::f64::consts::PI).sqrt());
    x.mul_scalar(0.5) * inner.tanh().add_scalar(1.0)
}

/// The unit itself, `gelu` of transformers (Hendrycks and Gimpel 2016, equation 2): `x / 2 · (1 + erf(x / sqrt(2)))`.
pub fn gelu_erf<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    // burn's own `gelu` goes back by the tanh form.
    let inner = x.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf();
    x.mul_scalar(0.5) * inner.add_scalar(1.0)
}

/// What stands between the products of a feed-forward layer without a gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// `x / 2 · (1 + erf(x / sqrt(2)))`.
    #[default]
    Gelu,
    /// [`gelu`].
    GeluTanh,
    Relu,
}

impl Unit {
    /// What transformers calls them; where one has several names, the first is written.
    pub const NAMES: [(&str, Unit); 4] = [
        ("gelu", Unit::Gelu),
        ("gelu_new", Unit::GeluTanh),
        ("gelu_pytorch_tanh", Unit::GeluTanh),
        ("relu", Unit::Relu),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, unit)| *unit == self).map_or("gelu", |(name, _)| name)
    }

    /// `[n, width] → [n, width]`.
    pub fn forward<B: Backend>(self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Unit::Gelu => gelu_erf(x),
            Unit::GeluTanh => gelu(x),
            Unit::Relu => relu(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use lowrank_kernels::testing::TestAutodiff;

    use super::*;

    /// x, `erf` in double precision in the formula, and its derivative. The tanh form misses them by up to 5e-4.
    const EXACT: [(f64, f64, f64); 7] = [
        (-3.0, -0.00404969409, -0.0119456472),
        (-1.0, -0.158655254, -0.0833154706),
        (-0.5, -0.154268769, 0.132504875),
        (0.0, 0.0, 0.5),
        (0.25, 0.149676581, 0.695373355),
        (1.5, 1.39978920, 1.12746919),
        (4.0, 3.99987332, 1.00050365),
    ];

    #[test]
    fn the_exact_unit_and_its_derivative() {
        let x = Tensor::<TestAutodiff, 1>::from_floats(EXACT.map(|(x, ..)| x as f32), &Default::default());
        let x = x.reshape([1, 7]).require_grad();
        let y = Unit::Gelu.forward(x.clone());
        let gradient = x.grad(&y.clone().sum().backward()).unwrap().into_data().to_vec::<f32>().unwrap();
        let y = y.into_data().to_vec::<f32>().unwrap();
        for (i, (x, expected, slope)) in EXACT.into_iter().enumerate() {
            assert!((f64::from(y[i]) - expected).abs() < 1e-6, "{x}: {}, expected {expected}", y[i]);
            assert!((f64::from(gradient[i]) - slope).abs() < 1e-6, "{x}: slope {}, expected {slope}", gradient[i]);
        }
    }

    #[test]
    fn every_unit_has_a_name() {
        for (name, unit) in Unit::NAMES {
            assert!(name == unit.name() || name == "gelu_pytorch_tanh", "{name}");
        }
    }
}
