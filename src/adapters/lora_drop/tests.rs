//! LoRA-drop against reference numbers and its own rules.

use super::*;
use crate::adapters::modules::tiny;
use crate::adapters::{Module, Origin, Targets};
use crate::tensors::HostTensor;

fn sites(config: &LoraDropConfig) -> Vec<Selected> {
    AdapterConfig::from(config.clone()).select(&Module::list(&tiny::llama()), Origin::Recipe).unwrap()
}

fn total(config: &LoraDropConfig, sites: &[Selected]) -> usize {
    config.trains(sites).values().map(|shape| shape.iter().product::<usize>()).sum()
}

fn energies(sites: &[Selected], of: impl Fn(usize) -> f64) -> IndexMap<String, f64> {
    sites.iter().enumerate().map(|(i, site)| (site.path.clone(), of(i))).collect()
}

fn kept(decision: &Decision) -> Vec<String> {
    let AdapterConfig::LoraDrop(config) = &decision.adapter else { panic!("{decision:?}") };
    config.keep.clone()
}

#[test]
fn the_smallest_prefix_that_reaches_the_threshold_is_kept() {
    let set = |indices: &[usize]| indices.iter().copied().collect::<HashSet<_>>();
    assert_eq!(largest(&[1.0, 6.0, 3.0], 0.5), set(&[1]));
    assert_eq!(largest(&[1.0, 6.0, 3.0], 0.6), set(&[1]), "exactly reached");
    assert_eq!(largest(&[1.0, 6.0, 3.0], 0.61), set(&[1, 2]));
    assert_eq!(largest(&[1.0, 9.0], 0.9), set(&[1]), "0.9 is not exact in binary");
    assert_eq!(largest(&[2.0, 2.0, 2.0], 0.3), set(&[0]), "equals go by module order");
    assert_eq!(largest(&[1.0, 6.0, 3.0], f64::MIN_POSITIVE), set(&[1]), "never none");
}

#[test]
fn a_threshold_of_one_keeps_whatever_moved_at_all() {
    assert_eq!(largest(&[1e-30, 0.0, 1.0, 1e300], 1.0), [0, 2, 3].into());
}

#[test]
fn importances_add_up_to_one_and_stand_beside_every_module() {
    let config = LoraDropConfig { threshold: 0.7, ..Default::default() };
    let sites = sites(&config);
    let decision = config.decide(&energies(&sites, |i| (i as f64 + 1.0).powi(3)), &sites).unwrap();
    let total: f64 = decision.modules.iter().map(|module| module.importance).sum();
    assert!((total - 1.0).abs() < 1e-12, "{total}");
    assert_eq!(decision.modules.len(), sites.len());
    let own: Vec<_> = decision.modules.iter().filter(|m| m.active > 0).map(|m| m.name.clone()).collect();
    assert_eq!(own, kept(&decision));
    let share: f64 = decision.modules.iter().filter(|m| m.active > 0).map(|m| m.importance).sum();
    let least = decision.modules.iter().filter(|m| m.active > 0).map(|m| m.importance).fold(1.0, f64::min);
    assert!(share >= 0.7 && share - least < 0.7, "{share} {least}");
    assert!(decision.modules.iter().all(|m| (m.active > 0) == (m.importance >= least) && m.total == 8));
}

#[test]
fn energies_that_tell_nothing_are_an_error() {
    let config = LoraDropConfig::default();
    let sites = sites(&config);
    let error = config.decide(&energies(&sites, |_| 0.0), &sites).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("adapter.lora_drop.pilot_steps"), "{error}");
    for bad in [f64::NAN, f64::INFINITY] {
        let error = config.decide(&energies(&sites, |i| if i == 3 { bad } else { 1.0 }), &sites).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
    }
}

#[test]
fn a_decision_is_taken_over_by_an_open_recipe_alone() {
    let open = LoraDropConfig { rank: 4, ..Default::default() };
    let decided = LoraDropConfig { keep: vec!["model.layers.0.mlp.up_proj".into()], ..Default::default() };
    let Some(AdapterConfig::LoraDrop(adopted)) = open.adopt(&decided.clone().into()) else { panic!() };
    assert_eq!((adopted.rank, &adopted.keep), (4, &decided.keep));
    assert!(open.adopt(&open.clone().into()).is_none() && open.adopt(&LoraConfig::default().into()).is_none());
    assert!(open.pilot().is_some() && decided.pilot().is_none());
}

#[test]
fn parameters_are_those_of_the_kept_and_one_pair_for_each_shape() {
    let open = LoraDropConfig { rank: 4, ..Default::default() };
    let all = sites(&open);
    assert_eq!(total(&open, &all), all.iter().map(|site| 4 * (site.rows + site.cols)).sum::<usize>());
    // Both up_proj kept; of q_proj one, so the other is alone in its group; five more groups of two.
    let keep = ["0.mlp.up_proj", "1.mlp.up_proj", "1.self_attn.q_proj"];
    let keep: Vec<_> = keep.iter().map(|name| format!("model.layers.{name}")).collect();
    let decided = LoraDropConfig { keep, ..open };
    // hidden 96, inner 256, keys 48: q o (96, 96), k v (48, 96), gate up down (256, 96).
    let expected = 4 * (2 * (256 + 96) + 2 * (96 + 96) + (96 + 96) + 2 * (48 + 96) + 2 * (256 + 96));
    assert_eq!(total(&decided, &all), expected);
    // Another rank is another group.
    let ranks = [("0.self_attn.k_proj".to_string(), 2)].into();
    let ranked = LoraDropConfig { rank_pattern: ranks, ..decided };
    assert_eq!(total(&ranked, &sites(&ranked)), expected + 2 * (48 + 96));
}

#[test]
fn an_export_is_plain_lora_with_a_copy_in_every_module() {
    let targets = Targets::Names(vec!["q_proj".into(), "k_proj".into()]);
    let keep = vec!["model.layers.1.self_attn.q_proj".into()];
    let config = LoraDropConfig { rank: 1, keep, targets, ..Default::default() };
    let sites = sites(&config);
    let tensor = |value: f32| HostTensor { shape: vec![1, 1], values: vec![value] };
    let named = |(path, value): (&str, f32)| (format!("model.layers.{path}"), tensor(value));
    let own = [
        ("0.self_attn.q_proj.lora_A", 1.0),
        ("0.self_attn.q_proj.lora_B", 2.0),
        ("0.self_attn.k_proj.lora_A", 3.0),
        ("0.self_attn.k_proj.lora_B", 4.0),
        ("1.self_attn.q_proj.lora_A", 5.0),
        ("1.self_attn.q_proj.lora_B", 6.0),
    ];
    let copies = [("1.self_attn.k_proj.lora_A", 3.0), ("1.self_attn.k_proj.lora_B", 4.0)];
    let (saved_as, values) = config.export(own.into_iter().map(named).collect(), &sites).unwrap();
    assert!(matches!(saved_as, AdapterConfig::Lora(lora) if lora.rank == 1));
    let expected: HostTensors = own.into_iter().chain(copies).map(named).collect();
    assert_eq!(values, expected);
    assert!(config.export(HostTensors::new(), &sites).is_err(), "a lost tensor is named");
}

#[test]
fn kept_modules_must_be_adapted_ones() {
    let keep = vec!["model.layers.0.self_attn.q_proj".to_string(), "q_proj".to_string()];
    let config = AdapterConfig::from(LoraDropConfig { keep, ..Default::default() });
    let error = config.select(&Module::list(&tiny::llama()), Origin::Recipe).unwrap_err().to_string();
    assert!(error.contains("keep") && error.contains("q_proj"), "{error}");
    let embedding = LoraDropConfig { targets: Targets::Names(vec!["embed_tokens".into()]), ..Default::default() };
    let error = AdapterConfig::from(embedding).select(&Module::list(&tiny::llama()), Origin::Recipe).unwrap_err();
    assert!(error.to_string().contains("defined on linear layers"), "{error}");
}
