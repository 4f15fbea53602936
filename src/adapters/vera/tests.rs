//! VeRA against reference numbers and its own rules.

use lowrank_kernels::take_retained_bytes;

use super::*;
use crate::adapters::fixtures::{self, assert_close, golden, linear, tensor};
use crate::adapters::method::Pool;
use crate::adapters::peft;
use crate::adapters::{Adapter, Module as Site, ModuleKind, Origin};
use crate::nn::Storage;
use crate::nn::params::Register;
use crate::recipe::BaseDtype;

type Back = fixtures::B;

fn site(path: &str, rows: usize, cols: usize, rank: usize) -> Selected {
    let kind = ModuleKind::Linear;
    Selected { path: path.into(), kind, rows, cols, rank, alpha: rank as f64, scaling: 1.0 }
}

fn config(rank: usize) -> VeraConfig {
    VeraConfig { rank, ..VeraConfig::default() }
}

/// Layers of zeros with an adapter each, as they are put into a model.
fn layers(sites: &[Selected], config: &VeraConfig, values: Option<&HostTensors>) -> Vec<Linear<Back>> {
    let mut pool = Pool::new();
    let layer = |site: &Selected| {
        let storage = Storage::<Back>::new(BaseDtype::F32, &Default::default());
        let weight = storage.weight(vec![0.0; site.rows * site.cols], [site.rows, site.cols]);
        let (device, pool) = (weight.device(), &mut pool);
        let mut start = Start { seed: 1, device, selected: sites, weight: &weight, pool, values };
        let adapter = Adapter::new(site, &config.clone().into(), &mut start).unwrap();
        Linear { adapter, ..Linear::new(weight, None) }
    };
    sites.iter().map(layer).collect()
}

fn vera(layer: &Linear<Back>) -> &Vera<Back> {
    let Some(Adapter::Vera(vera)) = &layer.adapter else { panic!("{layer:?}") };
    vera
}

#[test]
fn a_linear_layer_equals_peft_forward_and_in_every_gradient() {
    for name in ["linear_a_vera", "linear_b_vera"] {
        let golden = golden(name);
        let [rows, cols] = golden["weight"].shape[..] else { unreachable!() };
        let mut layers = layers(&[site("q", rows, cols, 6)], &config(6), None);
        let mut fresh = vera(&layers[0]).clone();
        assert_close(fresh.vera_lambda_d.val(), &golden, "lambda_d_init");
        let set = |param: Param<Tensor<Back, 1>>, name| param.map(|_| tensor::<1>(&golden, name).require_grad());
        fresh.vera_lambda_b = set(fresh.vera_lambda_b, "vera_lambda_b");
        fresh.vera_lambda_d = set(fresh.vera_lambda_d, "vera_lambda_d");
        let base = Linear { adapter: Some(Adapter::Vera(fresh)), ..linear(&golden) };
        layers[0] = base.clone();
        let x = tensor::<2>(&golden, "x").require_grad();
        let y = base.forward(x.clone(), Pass::EVAL);
        let grads = (y.clone() * tensor(&golden, "g")).sum().backward();
        assert_close(y.inner(), &golden, "y");
        assert_close(x.grad(&grads).unwrap(), &golden, "grad_x");
        let vera = vera(&base);
        assert_close(vera.vera_lambda_b.grad(&grads).unwrap(), &golden, "grad_vera_lambda_b");
        assert_close(vera.vera_lambda_d.grad(&grads).unwrap(), &golden, "grad_vera_lambda_d");
        assert!(vera.vera_A.grad(&grads).is_none() && vera.vera_B.grad(&grads).is_none());
    }
}

#[test]
fn projections_are_drawn_bit_for_bit_as_in_peft() {
    let stream = golden("prng_torch_uniform");
    for key in [0, 1, 42, u32::MAX] {
        let mut random = Mt::new(key);
        let expected = &stream[&format!("seed{key}.uniform01")].values;
        assert!(expected.iter().all(|value| unit(&mut random) == f64::from(*value)), "{key}");
    }
    for (name, rows, cols) in [("linear_a_vera", 16, 24), ("linear_b_vera", 19, 37)] {
        let golden = golden(name);
        let drawn = config(6).projections(&[site("q", rows, cols, 6)]);
        for (name, tensor) in &drawn {
            let bits = |tensor: &HostTensor| tensor.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!((&tensor.shape, bits(tensor)), (&golden[name].shape, bits(&golden[name])), "{name}");
        }
        let other = VeraConfig { projection_prng_key: 1, ..config(6) };
        assert_ne!(drawn, other.projections(&[site("q", rows, cols, 6)]));
    }
}

/// Narrower layers use the corner of the matrices that the widest ones need.
#[test]
fn layers_share_one_pair_of_matrices() {
    let sites = [site("q", 8, 4, 3), site("v", 2, 4, 3), site("down", 4, 9, 3)];
    let layers = layers(&sites, &config(3), None);
    let ids = |layer| (vera(layer).vera_A.id, vera(layer).vera_B.id);
    assert!(layers.iter().all(|layer| ids(layer) == ids(&layers[0])));
    assert_eq!((vera(&layers[0]).vera_A.dims(), vera(&layers[0]).vera_B.dims()), ([3, 9], [8, 3]));
    let register = Register::new(&layers);
    let frozen: Vec<_> = register.iter().filter(|owned| !owned.trains).map(|owned| owned.path.as_str()).collect();
    assert_eq!(frozen, ["0.vera_A", "0.vera_B"]);
    let exported = register.read(&layers);
    assert_eq!(exported.len(), 2 + 2 * sites.len());
    let trains: usize = register.trainable().values().flatten().sum();
    assert_eq!(trains, sites.iter().map(|site| config(3).parameters(site)).sum::<usize>());
}

#[test]
fn the_start_changes_nothing_and_only_the_projected_input_is_kept() {
    let sites = [site("q", 8, 4, 3), site("down", 4, 9, 3)];
    for (layer, site) in layers(&sites, &config(3), None).iter().zip(&sites) {
        let x = Tensor::<Back, 2>::ones([5, site.cols], &Default::default()).require_grad();
        take_retained_bytes();
        let y = layer.forward(x, Pass::EVAL);
        assert_eq!(take_retained_bytes(), 4 * 5 * config(3).retained(site) as u64);
        assert!(y.into_data().to_vec::<f32>().unwrap().iter().all(|y| *y == 0.0));
    }
}

#[test]
fn counts_are_the_papers() {
    let qv = |layers: usize, q: [usize; 2], v: [usize; 2], rank| -> usize {
        let sites = [site("q", q[0], q[1], rank), site("v", v[0], v[1], rank)];
        layers * sites.iter().map(|site| config(rank).parameters(site)).sum::<usize>()
    };
    assert_eq!(qv(12, [768, 768], [768, 768], 1024), 43_008);
    assert_eq!(qv(24, [1024, 1024], [1024, 1024], 256), 61_440);
    // Llama 3.2 3B.
    assert_eq!(qv(28, [3072, 3072], [1024, 3072], 256), 129_024);
}

/// Saved projections win over the key.
#[test]
fn saved_projections_are_taken_as_they_are() {
    let sites = [site("q", 4, 4, 2)];
    let saved = VeraConfig { projection_prng_key: 7, ..config(2) }.projections(&sites);
    let layers = layers(&sites, &config(2), Some(&saved));
    let found = Register::new(&layers).read(&layers);
    assert_eq!((&found["0.vera_A"], &found["0.vera_B"]), (&saved["vera_A"], &saved["vera_B"]));
}

fn adapter(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/e2e/llama/adapters").join(name)
}

/// From PEFT's file to a learner's paths and back.
#[test]
fn exports_what_peft_wrote() {
    let modules = Site::list(&crate::adapters::modules::tiny::llama());
    for name in ["vera", "vera_noproj"] {
        let (read, tensors) = peft::read(&adapter(name), "llama", &modules).unwrap();
        let AdapterConfig::Vera(config) = &read.adapter else { panic!("{read:?}") };
        let selected = read.adapter.select(&modules, Origin::AdapterFile).unwrap();
        let mut values = peft::from_file(tensors.clone());
        values.retain(|path, _| path.contains('.'));
        let first = &selected[0].path;
        values.extend(config.projections(&selected).into_iter().map(|(name, host)| (format!("{first}.{name}"), host)));
        let (saved_as, values) = config.export(values, &selected).unwrap();
        assert_eq!(saved_as, read.adapter);
        let mut written = peft::to_file(values, &saved_as, &modules).unwrap();
        written.sort_keys();
        assert_eq!(written, tensors, "{name}");
    }
}

#[test]
fn peft_cannot_exclude_so_paths_are_spelled_out() {
    let modules = Site::list(&crate::adapters::modules::tiny::llama());
    let exclude = Targets::Names(vec!["down_proj".into()]);
    let targets = Targets::Names(vec!["q_proj".into(), "down_proj".into()]);
    let adapter: AdapterConfig = VeraConfig { exclude, targets, layers: vec![1], ..config(4) }.into();
    let selected = adapter.select(&modules, Origin::Recipe).unwrap();
    let (saved_as, _) = adapter.spec().unwrap().export(HostTensors::new(), &selected).unwrap();
    assert_eq!(saved_as.select(&modules, Origin::AdapterFile).unwrap(), selected);
    let json = peft::PeftConfig::new(saved_as, "base").to_json(&modules);
    assert_eq!(json["target_modules"], serde_json::json!(["model.layers.1.self_attn.q_proj"]));
    assert!(json.get("exclude_modules").is_none());
}

#[test]
fn files_that_cannot_be_meant_are_refused_by_name() {
    let modules = Site::list(&crate::adapters::modules::tiny::llama());
    let (read, tensors) = peft::read(&adapter("vera"), "llama", &modules).unwrap();
    let refusal = |key: &str, value: serde_json::Value, change: &dyn Fn(&mut HostTensors)| {
        let (dir, mut tensors) = (tempfile::tempdir().unwrap(), tensors.clone());
        change(&mut tensors);
        peft::write(dir.path(), &read, &tensors, &modules).unwrap();
        let mut json = read.to_json(&modules);
        json[key] = value;
        std::fs::write(dir.path().join(peft::CONFIG_FILE), json.to_string()).unwrap();
        peft::read(dir.path(), "llama", &modules).unwrap_err().to_string()
    };
    for key in [serde_json::json!(-1), (1u64 << 32).into(), 0.5.into(), "0".into(), serde_json::Value::Null] {
        let message = refusal("projection_prng_key", key, &|_| ());
        assert!(message.contains("key projection_prng_key") && message.contains("4294967295"), "{message}");
    }
    for (key, value) in [("save_projection", serde_json::json!(1)), ("d_initial", "x".into()), ("r", 0.into())] {
        let message = refusal(key, value, &|_| ());
        assert!(message.contains(&format!("key {key}")), "{message}");
    }
    // Without saved projections, a file that has some is not the one that its key describes.
    let message = refusal("save_projection", false.into(), &|_| ());
    assert!(message.contains("base_model.vera_A") && message.contains("does not announce"), "{message}");
    let message = refusal("save_projection", true.into(), &|tensors| drop(tensors.shift_remove("base_model.vera_B")));
    assert!(message.contains("missing") && message.contains("base_model.vera_B"), "{message}");
    let narrow = HostTensor { shape: vec![16, 95], values: vec![0.0; 16 * 95] };
    let message = refusal("r", 16.into(), &|tensors| tensors["base_model.vera_A"] = narrow.clone());
    assert!(message.contains("base_model.vera_A") && message.contains("[16, 256]"), "{message}");
    let message = refusal("target_modules", serde_json::json!(["embed_tokens"]), &|_| ());
    assert!(message.contains("vera is defined on linear layers"), "{message}");
}
