//! DoRA against reference numbers and its own rules.

use lowrank_kernels::DropoutKey;

use super::*;
use crate::adapters::fixtures::{self, B, assert_close, embedding, golden, golden_embedding, linear, param, tensor};
use crate::nn::Storage;
use crate::recipe::BaseDtype;
use crate::tensors::HostTensor;

type T<const D: usize> = Tensor<B, D>;

fn config(init: LoraInit) -> DoraConfig {
    DoraConfig { init, ..DoraConfig::default() }
}

/// As a run starts it.
fn fresh(base: &Linear<B>, rank: usize, scaling: f64, init: LoraInit) -> Dora<B> {
    fixtures::fresh(&fixtures::site(ModuleKind::Linear, &base.weight, rank, scaling), &base.weight, &config(init))
}

/// With the reference's A, B and m, which have moved.
fn moved(golden: &HostTensors, [a, b]: [&str; 2], mut dora: Dora<B>) -> Dora<B> {
    (dora.adapter.lora_A, dora.adapter.lora_B) = (param(golden, a), param(golden, b));
    dora.lora_magnitude_vector = param(golden, "lora_magnitude_vector");
    dora
}

fn reference(name: &str, scaling: f64) -> (HostTensors, Linear<B>, Dora<B>) {
    let golden = golden(name);
    let base = linear(&golden);
    let fresh = fresh(&base, golden["lora_A"].shape[0], scaling, LoraInit::Default);
    let dora = moved(&golden, ["lora_A", "lora_B"], fresh);
    (golden, base, dora)
}

fn host(values: Tensor<B, 1>) -> HostTensors {
    let shape = values.dims().to_vec();
    [("v".to_string(), HostTensor { shape, values: values.into_data().to_vec().unwrap() })].into()
}

#[track_caller]
fn same<const D: usize>(found: T<D>, expected: T<D>) {
    assert_close(found, &host(expected.reshape([-1])), "v");
}

#[test]
fn a_linear_layer_equals_peft_forward_and_in_every_gradient() {
    let b = [5.0 / 3.0, 5.0 / 3f64.sqrt()];
    for (name, scaling) in [
        ("linear_a_dora", 2.0),
        ("linear_a_dora_nobias", 2.0),
        ("linear_a_dora_rslora", 4.0),
        ("linear_b_dora", b[0]),
        ("linear_b_dora_nobias", b[0]),
        ("linear_b_dora_rslora", b[1]),
    ] {
        let (golden, base, dora) = reference(name, scaling);
        let start = fresh(&base, golden["lora_A"].shape[0], scaling, LoraInit::Default);
        assert_close(start.lora_magnitude_vector.val(), &golden, "magnitude_init");
        assert_close(dora.row_lengths(&base.weight), &golden, "weight_norm");
        let x = tensor::<2>(&golden, "x").require_grad();
        let y = dora.forward(x.clone(), &base, Pass::EVAL);
        let grads = (y.clone() * tensor(&golden, "g")).sum().backward();
        assert_close(y.inner(), &golden, "y");
        assert_close(x.grad(&grads).unwrap(), &golden, "grad_x");
        assert_close(dora.adapter.lora_A.grad(&grads).unwrap(), &golden, "grad_lora_A");
        assert_close(dora.adapter.lora_B.grad(&grads).unwrap(), &golden, "grad_lora_B");
        let m = dora.lora_magnitude_vector.grad(&grads).unwrap();
        assert_close(m, &golden, "grad_lora_magnitude_vector");
    }
}

#[test]
fn an_embedding_equals_peft_forward_and_in_every_gradient() {
    let (golden, ids) = golden_embedding("embedding_dora");
    let base = embedding(&golden);
    let site = fixtures::site(ModuleKind::Embedding, &base.weight, 3, 2.0);
    let start: Dora<B> = fixtures::fresh(&site, &base.weight, &config(LoraInit::Default));
    same(start.embed(ids.clone(), &base), base.base(ids.clone()));
    let dora = moved(&golden, ["lora_embedding_A", "lora_embedding_B"], start);
    let y = dora.embed(ids, &base);
    let grads = (y.clone() * tensor(&golden, "g")).sum().backward();
    assert_close(y.inner(), &golden, "y");
    assert_close(dora.adapter.lora_A.grad(&grads).unwrap(), &golden, "grad_lora_embedding_A");
    assert_close(dora.adapter.lora_B.grad(&grads).unwrap(), &golden, "grad_lora_embedding_B");
    let m = dora.lora_magnitude_vector.grad(&grads).unwrap();
    assert_close(m, &golden, "grad_lora_magnitude_vector");
}

#[test]
fn every_start_leaves_the_base_as_it_is() {
    let golden = golden("linear_a_dora");
    let dense = linear(&golden);
    let storage = Storage::<B>::new(BaseDtype::Bf16, &Default::default());
    let packed = Linear::new(storage.weight(golden["weight"].values.clone(), [16, 24]), None);
    let x = || tensor::<2>(&golden, "x");
    for base in [dense, packed] {
        for init in [LoraInit::Default, LoraInit::Gaussian, LoraInit::Pissa, LoraInit::PissaNiter(4), LoraInit::Olora] {
            let y = fresh(&base, 4, 2.0, init).forward(x(), &base, Pass::EVAL);
            let difference = (y - base.base(x())).abs().max().into_scalar();
            assert_eq!(difference, 0.0, "{init}");
        }
        let orthogonal = fresh(&base, 4, 2.0, LoraInit::Orthogonal);
        same(orthogonal.forward(x(), &base, Pass::EVAL), base.base(x()));
    }
}

/// W' as the layer applies it `[out, in]`.
fn applied(dora: &Dora<B>, base: &Linear<B>) -> T<2> {
    let [_, cols] = base.weight.shape();
    dora.forward(T::eye(cols, &Default::default()), base, Pass::EVAL).transpose().detach()
}

#[test]
fn rows_have_the_lengths_of_m() {
    let (_, base, dora) = reference("linear_b_dora_nobias", 5.0 / 3.0);
    let lengths = applied(&dora, &base).powi_scalar(2).sum_dim(1).sqrt().reshape([-1]) as T<1>;
    same(lengths, dora.lora_magnitude_vector.val());
}

#[test]
fn a_correction_along_the_weight_changes_nothing() {
    let golden = golden("linear_a_dora_nobias");
    let base = linear(&golden);
    // All of W in A and B: V = (1 + s) W.
    let mut dora = fresh(&base, 16, 0.7, LoraInit::Olora);
    (dora.adapter.start_A, dora.adapter.start_B) = (None, None);
    same(applied(&dora, &base), base.weight.dense());
    dora.lora_magnitude_vector = dora.lora_magnitude_vector.map(|m| m * 3.0);
    same(applied(&dora, &base), base.weight.dense() * 3.0);
}

/// y = base(x) + (c − 1) W_res x̃ + c s B A x̃, with everything formed.
#[test]
fn dropped_inputs_are_dropped_for_the_base_too() {
    for init in [LoraInit::Default, LoraInit::Pissa] {
        let golden = golden("linear_a_dora");
        let base = linear(&golden);
        let mut dora = moved(&golden, ["lora_A", "lora_B"], fresh(&base, 4, 2.0, init));
        dora.adapter.dropout = 0.5;
        let pass = Pass { dropout: Some(DropoutKey { seed: 5, step: 1, micro: 0 }), ..Pass::EVAL };
        let (w, s) = (base.weight.dense(), dora.adapter.scaling);
        let product = |a: T<2>, b: T<2>| b.matmul(a) * s;
        let residual = match (&dora.adapter.start_A, &dora.adapter.start_B) {
            (Some(a), Some(b)) => w - product(a.val(), b.val()),
            _ => w,
        };
        let ba = product(dora.adapter.lora_A.val(), dora.adapter.lora_B.val());
        let length = (residual.clone() + ba.clone()).powi_scalar(2).sum_dim(1).sqrt();
        let c = dora.lora_magnitude_vector.val().unsqueeze_dim::<2>(1) / length.detach();
        let x = tensor::<2>(&golden, "x").require_grad();
        let kept = dropped(x.clone(), 0.5, dora.adapter.layer, pass);
        let expected = x.clone().matmul(residual.clone().transpose())
            + kept.clone().matmul(((c.clone() - 1.0) * residual + c * ba).transpose())
            + tensor::<1>(&golden, "bias").unsqueeze();
        let found = dora.forward(x.clone(), &base, pass);
        same(found.clone(), expected.clone());
        let (a, b) = (found.powi_scalar(2).sum().backward(), expected.powi_scalar(2).sum().backward());
        for param in [&dora.adapter.lora_A, &dora.adapter.lora_B] {
            let worst = (param.grad(&a).unwrap() - param.grad(&b).unwrap()).abs().max().into_scalar();
            assert!(worst < 2e-3, "{worst}");
        }
        assert!((x.grad(&a).unwrap() - x.grad(&b).unwrap()).abs().max().into_scalar() < 2e-3);
    }
}

#[test]
fn a_row_of_zeros_is_no_nan() {
    let mut golden = golden("linear_a_dora");
    golden["weight"].values[..24].fill(0.0);
    let base = linear(&golden);
    let dora = fresh(&base, 4, 2.0, LoraInit::Default);
    let y = dora.forward(tensor(&golden, "x"), &base, Pass::EVAL);
    same(y.clone(), base.base(tensor(&golden, "x")));
    let grads = (y * tensor(&golden, "g")).sum().backward();
    let finite = |grad: Vec<f32>| assert!(grad.iter().all(|g| g.is_finite()), "{grad:?}");
    finite(dora.adapter.lora_A.grad(&grads).unwrap().into_data().to_vec().unwrap());
    finite(dora.adapter.lora_B.grad(&grads).unwrap().into_data().to_vec().unwrap());
    finite(dora.lora_magnitude_vector.grad(&grads).unwrap().into_data().to_vec().unwrap());
}

#[test]
fn what_a_factorising_start_exports_is_the_same_layer_over_the_original_base() {
    let golden = golden("linear_a_dora");
    let base = linear(&golden);
    let dora = moved(&golden, ["lora_A", "lora_B"], fresh(&base, 4, 2.0, LoraInit::Pissa));
    let (adapter, site) = (&dora.adapter, fixtures::site(ModuleKind::Linear, &base.weight, 4, 2.0));
    let matrix = |name: &str, param: &Param<T<2>>| {
        let values = param.val().into_data().to_vec().unwrap();
        (format!("layer.{name}"), HostTensor { shape: param.dims().to_vec(), values })
    };
    let values = HostTensors::from([
        matrix("lora_A", &adapter.lora_A),
        matrix("lora_B", &adapter.lora_B),
        matrix("start_A", adapter.start_A.as_ref().unwrap()),
        matrix("start_B", adapter.start_B.as_ref().unwrap()),
    ]);
    let recipe = DoraConfig { rank: 4, alpha: 8.0, ..config(LoraInit::Pissa) };
    let (saved_as, values) = recipe.export(values, &[site]).unwrap();
    assert_eq!(saved_as, DoraConfig { rank: 8, alpha: 16.0, ..config(LoraInit::Default) }.into());
    let mut plain = fresh(&base, 8, 2.0, LoraInit::Default);
    plain.adapter.lora_A = param(&values, "layer.lora_A");
    plain.adapter.lora_B = param(&values, "layer.lora_B");
    plain.lora_magnitude_vector = dora.lora_magnitude_vector.clone();
    let y = |dora: &Dora<B>| dora.forward(tensor(&golden, "x"), &base, Pass::EVAL);
    same(y(&plain), y(&dora));
}
