//! Combinations against PEFT's, against the explicit sum, and what is refused.

use std::path::Path;

use super::*;
use crate::adapters::correction::tests::{assert_close, product};
use crate::adapters::peft::PeftConfig;
use crate::adapters::{LoraConfig, ModuleKind, Targets};
use crate::tensors::{HostTensor, decode};

fn golden() -> HostTensors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/combine/combine.safetensors");
    decode(&std::fs::read(path).unwrap(), Path::new(path)).unwrap()
}

fn modules() -> Vec<Module> {
    let module =
        |path: &str, kind, rows| Module { path: path.into(), kind, rows, cols: 6, biased: false, transposed: false };
    vec![
        module("emb", ModuleKind::Embedding, 11),
        module("q", ModuleKind::Linear, 9),
        module("v", ModuleKind::Linear, 5),
    ]
}

/// Adapters of different modules, ranks, alphas and scales.
fn adapter(name: &str, golden: &HostTensors) -> PeftAdapter {
    let (rank, alpha, rslora, targets) = match name {
        "a" => (4, 8.0, false, &["emb", "q"][..]),
        "b" => (4, 6.0, true, &["emb", "q", "v"][..]),
        _ => (3, 5.0, false, &["q"][..]),
    };
    let mut values = HostTensors::new();
    for module in targets {
        for (factor, field) in [("A", "lora_A"), ("B", "lora_B")] {
            values.insert(format!("{module}.{field}"), golden[&format!("in.{name}.{module}.{factor}")].clone());
        }
    }
    let targets = Targets::Names(targets.iter().map(ToString::to_string).collect());
    let config = AdapterConfig::from(LoraConfig { rank, alpha, rslora, targets, ..LoraConfig::default() });
    let tensors = crate::adapters::peft::to_file(values, &config, &modules()).unwrap();
    (PeftConfig::new(config, "base"), tensors)
}

fn named(name: &str) -> Combination {
    METHODS.iter().find(|(known, _)| *known == name).unwrap().1.into()
}

fn combined(weights: &[(&str, f64)], combination: &Combination) -> Result<Vec<Correction>> {
    let golden = golden();
    let adapters: Vec<_> = weights.iter().map(|(name, weight)| (*weight, adapter(name, &golden))).collect();
    let adapters: Vec<Weighted> = adapters.iter().map(|(weight, adapter)| (*weight, adapter)).collect();
    let result = combine(&adapters, &modules(), combination)?;
    corrections(&result, &modules())
}

fn refusal(weights: &[(&str, f64)], combination: &Combination) -> String {
    combined(weights, combination).unwrap_err().to_string()
}

/// `Σ w s B A` of one module.
fn explicit(weights: &[(&str, f64)], path: &str) -> Vec<f64> {
    let mut sum = Vec::new();
    for (name, weight) in weights {
        for correction in corrections(&adapter(name, &golden()), &modules()).unwrap() {
            if correction.path == path {
                let product = product(&correction);
                sum.resize(product.len(), 0.0);
                sum.iter_mut().zip(product).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
    sum
}

/// Factors where PEFT's are unique, products where they are known up to sign.
#[test]
fn combinations_are_those_of_peft() {
    let (two, three): (&[_], &[_]) = (&[("a", 0.7), ("b", 0.3)], &[("a", 0.7), ("b", 0.3), ("c", 1.5)]);
    let negative: &[_] = &[("a", 0.7), ("b", -0.3)];
    let negative_three: &[_] = &[("a", 0.7), ("b", -0.3), ("c", 1.5)];
    let dense = |name, density| Combination { density: Some(density), ..named(name) };
    let by_count = Combination { majority: Some(Majority::Frequency), ..dense("ties", 0.5) };
    let of_rank = |rank, combination| Combination { rank: Some(rank), ..combination };
    let cases = [
        ("linear", two, named("linear")),
        ("linear_negative", negative, named("linear")),
        ("cat", negative_three, named("cat")),
        ("svd", negative_three, of_rank(2, named("svd"))),
        ("ties", two, dense("ties", 0.5)),
        ("ties_negative", negative, dense("ties", 0.7)),
        ("ties_frequency", two, by_count),
        ("dare_ties", two, dense("dare_ties", 1.0)),
        ("magnitude_prune", two, dense("magnitude_prune", 0.3)),
        ("ties_svd", three, of_rank(3, dense("ties_svd", 0.5))),
        ("magnitude_prune_svd", three, of_rank(3, dense("magnitude_prune_svd", 0.5))),
    ];
    let golden = golden();
    for (name, weights, combination) in cases {
        let found = combined(weights, &combination).unwrap();
        assert_eq!(found.len(), 3, "{name}: a module of some is a module of the result");
        for correction in found {
            let expected = |what: &str| golden.get(&format!("out.{name}.{}.{what}", correction.path));
            // PEFT has the change of an embedding as it is stored, transposed.
            let delta = expected("delta").unwrap();
            let rows = if correction.path == "emb" { delta.shape[1] } else { 1 };
            let delta: Vec<f64> =
                (0..rows).flat_map(|row| delta.values.iter().skip(row).step_by(rows)).map(|v| f64::from(*v)).collect();
            assert_close(&product(&correction), &delta, 5e-6);
            if let (Some(a), Some(b)) = (expected("A"), expected("B")) {
                assert_close(&wide(&correction.down), &wide(&a.values), 1e-6);
                assert_close(&wide(&correction.up), &wide(&b.values), 1e-6);
            }
        }
    }
}

#[test]
fn cat_is_the_explicit_sum_and_svd_of_full_rank_is_cat() {
    let weights = [("a", 0.7), ("b", -0.3), ("c", 1.5)];
    let full = Combination { rank: Some(11), ..named("svd") };
    for combination in [named("cat"), full] {
        for correction in combined(&weights, &combination).unwrap() {
            assert_close(&product(&correction), &explicit(&weights, &correction.path), 1e-6);
        }
    }
    let ranks: Vec<_> = combined(&weights, &named("cat")).unwrap().iter().map(|c| c.rank).collect();
    assert_eq!(ranks, [8, 11, 4]);
}

#[test]
fn one_adapter_of_weight_one_is_itself_by_every_method_that_drops_nothing() {
    for (name, combination) in METHODS.map(|(name, method)| (name, Combination::from(method))) {
        let density = Some(1.0).filter(|_| combination.check().is_err());
        for correction in combined(&[("b", 1.0)], &Combination { density, ..combination }).unwrap() {
            let expected = explicit(&[("b", 1.0)], &correction.path);
            let worst = product(&correction).iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 2e-6, "{name}: {worst}");
        }
    }
}

#[test]
fn dare_of_density_one_is_linear_and_below_it_is_not() {
    let weights = [("a", 0.7), ("b", 0.3)];
    let dare = |density, seed| Combination { density: Some(density), seed, ..named("dare_linear") };
    let linear = combined(&weights, &named("linear")).unwrap();
    assert_eq!(combined(&weights, &dare(1.0, None)).unwrap(), linear);
    let sparse = combined(&weights, &dare(0.5, Some(3))).unwrap();
    assert_ne!(sparse, linear);
    assert_eq!(combined(&weights, &dare(0.5, Some(3))).unwrap(), sparse);
    assert_ne!(combined(&weights, &dare(0.5, Some(4))).unwrap(), sparse);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let mixed = [("a", 1.0), ("c", 1.0)];
    for name in ["linear", "ties", "dare_linear"] {
        let density = Some(0.5).filter(|_| name != "linear");
        let told = refusal(&mixed, &Combination { density, ..named(name) });
        assert!(told.contains("module q") && told.contains(name) && told.contains("`cat`"), "{told}");
    }
    assert!(refusal(&[], &named("cat")).contains("no adapters"));
    assert!(refusal(&[("a", f64::NAN)], &named("cat")).contains("not finite"));
    let with = |change: fn(&mut Combination), name| {
        let mut combination = named(name);
        change(&mut combination);
        refusal(&mixed, &combination)
    };
    assert!(with(|_| {}, "ties").contains("key density"));
    assert!(with(|c| c.density = Some(0.0), "ties").contains("out of range"));
    assert!(with(|c| c.density = Some(1.1), "dare_ties").contains("out of range"));
    assert!(with(|c| c.density = Some(f64::NAN), "dare_ties").contains("out of range"));
    assert!(with(|c| c.density = Some(0.5), "cat").contains("prunes nothing"));
    assert!(with(|c| c.rank = Some(4), "linear").contains("key rank"));
    assert!(with(|c| c.rank = Some(0), "svd").contains("1 or more"));
    assert!(with(|c| c.seed = Some(4), "cat").contains("random"));
    assert!(with(|c| c.majority = Some(Majority::Total), "svd").contains("elects no sign"));
}

#[test]
fn biases_and_whole_modules_are_refused() {
    let (golden, mut whole) = (golden(), adapter("a", &golden()));
    whole.1.insert("base_model.model.q.base_layer.bias".into(), HostTensor { shape: vec![9], values: vec![0.0; 9] });
    let other = adapter("b", &golden);
    let told = combine(&[(1.0, &other), (1.0, &whole)], &modules(), &named("cat")).unwrap_err().to_string();
    assert!(told.contains("q.bias") && told.contains("merge this adapter"), "{told}");
}
