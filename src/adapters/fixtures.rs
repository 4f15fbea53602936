//! Reference tensors of one layer, and a layer made of them; for the tests of methods.

use std::path::Path;

use burn::module::{Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use lowrank_kernels::testing::TestAutodiff;

use crate::nn::{Linear, Storage};
use crate::recipe::BaseDtype;
use crate::tensors::{HostTensors, decode};

pub type B = TestAutodiff;

pub fn golden(name: &str) -> HostTensors {
    let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    decode(&std::fs::read(&path).unwrap(), Path::new(&path)).unwrap()
}

pub fn tensor<const D: usize>(tensors: &HostTensors, name: &str) -> Tensor<B, D> {
    let host = &tensors[name];
    Tensor::from_data(TensorData::new(host.values.clone(), host.shape.clone()), &Default::default())
}

pub fn param(tensors: &HostTensors, name: &str) -> Param<Tensor<B, 2>> {
    Param::initialized(ParamId::new(), tensor(tensors, name)).set_require_grad(true)
}

#[track_caller]
pub fn assert_close<T: Backend, const D: usize>(found: Tensor<T, D>, expected: &HostTensors, name: &str) {
    let found = found.into_data().to_vec::<f32>().unwrap();
    let expected = &expected[name].values;
    assert_eq!(found.len(), expected.len(), "{name}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 2e-5, "{name} differs by {worst}");
}

pub fn linear(tensors: &HostTensors) -> Linear<B> {
    let storage = Storage::<B>::new(BaseDtype::F32, &Default::default());
    let weight = &tensors["weight"];
    let bias = tensors.get("bias").map(|bias| storage.vector(bias.values.clone()));
    Linear::new(storage.weight(weight.values.clone(), [weight.shape[0], weight.shape[1]]), bias)
}
