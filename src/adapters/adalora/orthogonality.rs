//! How far A and B are from orthonormal ones (equation 4 of the paper).
//!
//! The norm is not squared and is averaged over all matrices, as in the authors' code and in PEFT.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// `‖M Mᵀ − I‖` for `rows = M [r, n]`, and its gradient `2 (M Mᵀ − I) M / ‖M Mᵀ − I‖`, zero where the norm is.
pub fn deviation<B: Backend>(rows: Tensor<B, 2>) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let [r, _] = rows.dims();
    let off = rows.clone().matmul(rows.clone().transpose()) - Tensor::eye(r, &rows.device());
    let norm = (off.clone() * off.clone()).sum().sqrt();
    let over = norm.clone().clamp_min(f32::MIN_POSITIVE).reshape([1, 1]);
    (norm, off.matmul(rows).mul_scalar(2.0) / over)
}

#[cfg(test)]
mod tests {
    use lowrank_kernels::testing::{TestAutodiff, TestBackend};

    use super::*;
    use crate::adapters::fixtures::{assert_close, golden, tensor};

    #[test]
    fn equals_peft_in_value_and_gradient() {
        for name in ["linear_a_adalora", "linear_b_adalora"] {
            let golden = golden(name);
            let a = deviation(tensor::<2>(&golden, "lora_A").inner());
            let b = deviation(tensor::<2>(&golden, "lora_B").inner().transpose());
            assert_close((a.0 + b.0).div_scalar(2.0), &golden, "orth_reg_value");
            // Half the weight of 0.5: the mean over two matrices.
            assert_close(a.1.mul_scalar(0.25), &golden, "grad_orth_lora_A");
            assert_close(b.1.transpose().mul_scalar(0.25), &golden, "grad_orth_lora_B");
        }
    }

    #[test]
    fn the_gradient_is_that_of_plain_operations() {
        let rows = || Tensor::<TestAutodiff, 2>::from_data([[0.3, -0.2, 0.9], [0.5, 0.1, -0.4]], &Default::default());
        let leaf = rows().require_grad();
        let off = leaf.clone().matmul(leaf.clone().transpose()) - Tensor::eye(2, &leaf.device());
        let grads = (off.clone() * off).sum().sqrt().backward();
        let expected = leaf.grad(&grads).unwrap().into_data();
        deviation(rows().inner())
            .1
            .into_data()
            .assert_approx_eq(&expected, burn::tensor::Tolerance::<f32>::absolute(1e-5));
    }

    #[test]
    fn orthonormal_rows_deviate_by_nothing() {
        let (norm, grad) = deviation(Tensor::<TestBackend, 2>::eye(3, &Default::default()));
        assert_eq!(norm.into_data().to_vec::<f32>().unwrap(), [0.0]);
        assert_eq!(grad.into_data().to_vec::<f32>().unwrap(), [0.0; 9]);
    }
}
