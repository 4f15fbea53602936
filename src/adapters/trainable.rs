//! What trains, told before any tensor exists.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::targets::is_saved;
use super::{AdapterConfig, BiasMode, Selected};
use crate::models::Outline;

/// Path and shape of every parameter that `adapter` makes trainable in a model; `selected` are the modules that carry it.
/// A learner's own list is the same.
pub fn trainable(outline: &Outline, adapter: &AdapterConfig, selected: &[Selected]) -> IndexMap<String, Vec<usize>> {
    let Some(spec) = adapter.spec() else {
        let full = matches!(adapter, AdapterConfig::Full(_));
        return if full { outline.tensors().into_iter().collect() } else { IndexMap::new() };
    };
    let shared = spec.shared();
    let adapted: HashSet<&str> = selected.iter().map(|site| site.path.as_str()).collect();
    let mut found = spec.trains(selected);
    for module in &outline.modules {
        let whole = is_saved(module, &shared.modules_to_save);
        let bias = match shared.bias {
            BiasMode::None => false,
            BiasMode::All => true,
            BiasMode::LoraOnly => adapted.contains(module.path.as_str()),
        };
        if whole {
            found.insert(format!("{}.weight", module.path), module.weight_shape());
        }
        if (whole || bias) && module.biased {
            found.insert(format!("{}.bias", module.path), vec![module.rows]);
        }
    }
    let places: HashMap<&str, usize> =
        outline.modules.iter().enumerate().map(|(place, module)| (module.path.as_str(), place)).collect();
    found.sort_by_cached_key(|path, _| path.rsplit_once('.').and_then(|(module, _)| places.get(module)).copied());
    found
}

/// The same in few lines, modules alike in one: `model.layers.{0..3}.self_attn.{q,v}_proj  lora_A [8, 128] lora_B [128, 8]`.
pub fn compact(trainable: &IndexMap<String, Vec<usize>>) -> Vec<String> {
    let mut modules: IndexMap<&str, Vec<String>> = IndexMap::new();
    for (path, shape) in trainable {
        let (module, field) = path.rsplit_once('.').unwrap_or(("", path));
        modules.entry(module).or_default().push(format!("{field} {shape:?}"));
    }
    // Layers alike in name and parameters, then leaves alike in everything but the name.
    let mut layers: IndexMap<(Place, String), Vec<usize>> = IndexMap::new();
    for (module, parameters) in modules {
        let (place, layer) = Place::of(module);
        layers.entry((place, parameters.join(" "))).or_default().extend(layer);
    }
    let mut leaves: IndexMap<(String, String), Vec<&str>> = IndexMap::new();
    for ((place, parameters), layers) in layers {
        leaves.entry((place.around(&layers), parameters)).or_default().push(place.leaf);
    }
    let lines: Vec<_> =
        leaves.into_iter().map(|((parent, parameters), leaves)| (parent + &one_of(&leaves), parameters)).collect();
    let width = lines.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    lines.into_iter().map(|(path, parameters)| format!("{path:<width$}  {parameters}")).collect()
}

/// A module's path without its layer number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place<'a> {
    before: &'a str,
    after: &'a str,
    leaf: &'a str,
}

impl<'a> Place<'a> {
    fn of(module: &'a str) -> (Self, Option<usize>) {
        let (parent, leaf) =
            module.rsplit_once('.').map_or(("", module), |(parent, leaf)| (&module[..=parent.len()], leaf));
        let mut start = 0;
        for segment in parent.split_inclusive('.') {
            let number = segment.trim_end_matches('.');
            if let Ok(layer) = number.parse() {
                let (before, after) = (&parent[..start], &parent[start + number.len()..]);
                return (Self { before, after, leaf }, Some(layer));
            }
            start += segment.len();
        }
        (Self { before: parent, after: "", leaf }, None)
    }

    fn around(&self, layers: &[usize]) -> String {
        format!("{}{}{}", self.before, ranges(layers), self.after)
    }
}

/// `3`, `{0..3}`, `{0..3,7}`; the numbers rise.
fn ranges(numbers: &[usize]) -> String {
    let mut runs: Vec<[usize; 2]> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some([_, last]) if *last + 1 == number => *last = number,
            _ => runs.push([number, number]),
        }
    }
    let shown =
        runs.iter().map(|[first, last]| if first == last { first.to_string() } else { format!("{first}..{last}") });
    let shown = shown.collect::<Vec<_>>().join(",");
    if numbers.len() > 1 { format!("{{{shown}}}") } else { shown }
}

/// `q_proj`, `{q,v}_proj`, `{q_proj,norm}`.
fn one_of(leaves: &[&str]) -> String {
    let [first, others @ ..] = leaves else { return String::new() };
    if others.is_empty() {
        return first.to_string();
    }
    let ending = first.rfind('_').map_or("", |at| &first[at..]);
    match leaves.iter().map(|leaf| leaf.strip_suffix(ending)).collect::<Option<Vec<_>>>() {
        Some(stems) => format!("{{{}}}{ending}", stems.join(",")),
        None => format!("{{{}}}", leaves.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::modules::tiny;
    use crate::adapters::{LoraConfig, Module, Origin, Targets};
    use crate::models::ModelConfig;

    fn of(config: &ModelConfig, adapter: &AdapterConfig) -> IndexMap<String, Vec<usize>> {
        let selected = adapter.select(&Module::list(config), Origin::Recipe).unwrap();
        trainable(&Outline::of(config), adapter, &selected)
    }

    fn lora(targets: &[&str]) -> LoraConfig {
        LoraConfig {
            rank: 4,
            targets: Targets::Names(targets.iter().map(ToString::to_string).collect()),
            ..LoraConfig::default()
        }
    }

    #[test]
    fn modules_alike_share_a_line() {
        let config = tiny::llama();
        let found = of(&config, &lora(&["q_proj", "o_proj", "v_proj"]).into());
        assert_eq!(found.len(), 2 * 3 * 2);
        let expected = [
            "model.layers.{0..1}.self_attn.{q,o}_proj  lora_A [4, 96] lora_B [96, 4]",
            "model.layers.{0..1}.self_attn.v_proj      lora_A [4, 96] lora_B [48, 4]",
        ];
        assert_eq!(compact(&found), expected);
        let mixed = LoraConfig {
            rank_pattern: [("layers.1.*".to_string(), 2)].into(),
            modules_to_save: vec!["norm".into(), "lm_head".into()],
            ..lora(&["q_proj", "down_proj", "embed_tokens"])
        };
        let expected = [
            "model.embed_tokens                                    lora_A [4, 512] lora_B [96, 4]",
            "model.layers.{0..1}.{input,post_attention}_layernorm  weight [96]",
            "model.layers.0.self_attn.q_proj                       lora_A [4, 96] lora_B [96, 4]",
            "model.layers.0.mlp.down_proj                          lora_A [4, 256] lora_B [96, 4]",
            "model.layers.1.self_attn.q_proj                       lora_A [2, 96] lora_B [96, 2]",
            "model.layers.1.mlp.down_proj                          lora_A [2, 256] lora_B [96, 2]",
            "model.norm                                            weight [96]",
            "lm_head                                               weight [512, 96]",
        ];
        assert_eq!(compact(&of(&config, &mixed.into())), expected);
    }

    #[test]
    fn nothing_trains_with_none_and_everything_once_with_full() {
        for config in [tiny::llama(), tiny::qwen2()] {
            assert!(of(&config, &AdapterConfig::none()).is_empty());
            let full = of(&config, &AdapterConfig::full());
            let expected: IndexMap<_, _> = config.tensors().into_iter().collect();
            assert_eq!(full, expected);
        }
    }

    #[test]
    fn runs_of_numbers_are_ranges() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "{0..2,5,7..8}");
    }
}
