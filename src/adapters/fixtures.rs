//! Reference tensors of one layer, and a layer made of them; for the tests of methods.

use std::path::Path;

use burn::module::{Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::testing::TestAutodiff;
use safetensors::{Dtype, SafeTensors};

use super::{Method, ModuleKind, Pool, Selected, Start};
use crate::nn::{Embedding, Linear, Storage, Weight};
use crate::recipe::BaseDtype;
use crate::tensors::{HostTensor, HostTensors, decode};

pub type B = TestAutodiff;

pub fn golden(name: &str) -> HostTensors {
    let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    decode(&std::fs::read(&path).unwrap(), Path::new(&path)).unwrap()
}

pub fn tensor<const D: usize>(tensors: &HostTensors, name: &str) -> Tensor<B, D> {
    let host = &tensors[name];
    Tensor::from_data(TensorData::new(host.values.clone(), host.shape.clone()), &Default::default())
}

pub fn param<const D: usize>(tensors: &HostTensors, name: &str) -> Param<Tensor<B, D>> {
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

/// Reference tensors of an embedding as matrices, and its ids, which are i64: the tensor reader has no use for those.
pub fn golden_embedding(name: &str) -> (HostTensors, Tensor<B, 1, Int>) {
    let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = file.iter().filter(|(_, view)| view.dtype() == Dtype::F32).map(|(name, view)| {
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let shape = match *view.shape() {
            [rows, len, width] => vec![rows * len, width],
            ref shape => shape.to_vec(),
        };
        (name.to_string(), HostTensor { shape, values })
    });
    let ids: Vec<i32> = file.tensor("x").unwrap().data().chunks_exact(8).map(|b| i32::from(b[0])).collect();
    (floats.collect(), Tensor::from_data(TensorData::from(&ids[..]), &Default::default()))
}

pub fn embedding(tensors: &HostTensors) -> Embedding<B> {
    let storage = Storage::<B>::new(BaseDtype::F32, &Default::default());
    let weight = &tensors["weight"];
    Embedding { weight: storage.weight(weight.values.clone(), [weight.shape[0], weight.shape[1]]), adapter: None }
}

/// A layer called `layer` over this weight.
pub fn site(kind: ModuleKind, weight: &Weight<B>, rank: usize, scaling: f64) -> Selected {
    let [rows, cols] = weight.shape();
    Selected { path: "layer".into(), kind, rows, cols, rank, alpha: scaling * rank as f64, scaling }
}

/// The adapter of that layer as a run starts it.
pub fn fresh<M: Method<B>>(site: &Selected, weight: &Weight<B>, config: &M::Config) -> M {
    let (device, selected, mut pool) = (weight.device(), std::slice::from_ref(site), Pool::new());
    M::new(site, config, &mut Start { seed: 1, device, selected, weight, pool: &mut pool, values: None }).unwrap()
}
