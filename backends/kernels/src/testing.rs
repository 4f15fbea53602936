//! The one backend that unit tests of the library run on.

use burn_autodiff::Autodiff;

pub type TestBackend = burn_flex::Flex;
pub type TestAutodiff = Autodiff<TestBackend>;

#[cfg(test)]
pub(crate) use fixtures::*;

/// Runs tests that are generic over the backend on each CPU backend.
#[cfg(test)]
macro_rules! on_cpu_backends {
    ($($name:ident),*) => {
        mod flex {
            $(#[test]
            fn $name() {
                super::$name::<crate::testing::TestAutodiff>()
            })*
        }
        #[cfg(feature = "ndarray")]
        mod ndarray {
            $(#[test]
            fn $name() {
                super::$name::<burn_autodiff::Autodiff<burn_ndarray::NdArray<f32, i32>>>()
            })*
        }
    };
}
#[cfg(test)]
pub(crate) use on_cpu_backends;

#[cfg(test)]
mod fixtures {
    use burn::tensor::backend::{AutodiffBackend, Backend};
    use burn::tensor::{Tensor, TensorData};

    /// Some values between -1 and 1.
    pub fn values<B: Backend, const D: usize>(shape: [usize; D], seed: f32) -> Tensor<B, D> {
        let n = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..n).map(|i| ((i as f32 + seed) * 0.7).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), &Default::default())
    }

    /// Gradients of a sum of `y` in which every element has a weight of its own.
    pub fn gradient<A: AutodiffBackend, const D: usize>(y: Tensor<A, D>) -> A::Gradients {
        let weights = weights(&y);
        (y * weights).sum().backward()
    }

    /// Those weights.
    pub fn weights<A: Backend, const D: usize>(y: &Tensor<A, D>) -> Tensor<A, D> {
        values(y.dims(), 0.9)
    }

    #[track_caller]
    pub fn assert_close<B: Backend, const D: usize>(found: Tensor<B, D>, expected: Tensor<B, D>) {
        assert_eq!(found.dims(), expected.dims());
        let list = |tensor: Tensor<B, D>| tensor.into_data().to_vec::<f32>().unwrap();
        let (found, expected) = (list(found), list(expected));
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
        // A NaN on either side is not close.
        assert!(worst < 1e-5 && found.iter().all(|value| value.is_finite()), "differs by {worst}");
    }
}
