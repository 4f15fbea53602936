//! PEFT's adapters on the stacked parameters of experts (`target_parameters`), as adapters of each expert.
//!
//! transformers 5 stacks gate and up of all experts of a layer to `experts.gate_up_proj [E, 2 I, H]`, and `experts.down_proj [E, H, I]`.
//! PEFT's A `[E r, in]` has the rows of one expert together, its B `[out, r E]` the columns of one rank. Gate and up share their A
//! there; here each has a copy of its own, which computes the same until it is trained on.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::fields::{Fields, brief};
use super::{AdapterTensors, Part, Slot};
use crate::adapters::{Module, Targets};
use crate::error::InputError;
use crate::tensors::HostTensor;
use crate::{Error, Result};

/// What a family calls the parts of a layer of experts, in the files.
struct Names {
    block: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
}

impl Names {
    fn of(model_type: &str) -> Option<Self> {
        match model_type {
            "mixtral" => Some(Self { block: "block_sparse_moe", gate: "w1", up: "w3", down: "w2" }),
            "qwen2_moe" | "qwen3_moe" => {
                Some(Self { block: "mlp", gate: "gate_proj", up: "up_proj", down: "down_proj" })
            }
            _ => None,
        }
    }

    /// A pattern of the ends of paths that the name of a stacked parameter, or a pattern of it, stands for.
    fn apart(&self, name: &str) -> Option<String> {
        let Self { block, gate, up, down } = self;
        let (parent, leaves) = match name.rsplit_once(['.', '\\']).map_or(("", name), |(parent, leaf)| (parent, leaf)) {
            (parent, "gate_up_proj") => (parent, format!("({gate}|{up})")),
            (parent, "down_proj") => (parent, down.to_string()),
            (parent, "weight") if parent.ends_with("gate") => return Some(format!(r"{block}\.gate")),
            _ => return None,
        };
        let known = ["", "experts", "mlp.experts", ".*", ".*\\", r"experts\", r"mlp\.experts\"];
        known.contains(&parent).then(|| format!(r"{block}\.experts\.\d+\.{leaves}"))
    }
}

/// Puts what `target_parameters` asks for into `targets` and into the patterns of rank and alpha, in terms of modules.
pub(super) fn targets(fields: &mut Fields, model_type: &str, targets: &mut Targets) -> Result<bool, InputError> {
    let parameters = fields.names("target_parameters")?;
    if parameters.is_empty() {
        return Ok(false);
    }
    let refusal =
        |what: &str, name: &str| InputError::new(what.to_string()).key("target_parameters").found(brief(&name.into()));
    let names = Names::of(model_type);
    let names = names
        .ok_or_else(|| refusal("asks for adapters on bare parameters, which this model has not", &parameters[0]))?;
    let apart = |name: &String| {
        let ends = names.apart(name).ok_or_else(|| refusal("no parameter of experts has this name", name))?;
        Ok(format!(r"(.*\.)?{ends}"))
    };
    let mut patterns = parameters.iter().map(apart).collect::<Result<Vec<_>, InputError>>()?;
    match targets {
        Targets::Pattern(pattern) => patterns.push(format!("({pattern})")),
        Targets::Names(modules) => {
            patterns.extend(modules.iter().map(|name| format!(r"(.*\.)?{}", regex::escape(name))))
        }
    }
    *targets = Targets::Pattern(patterns.join("|"));
    for key in ["rank_pattern", "alpha_pattern"] {
        if let Some(Value::Object(table)) = fields.take(key) {
            let renamed = table.into_iter().map(|(name, value)| (names.apart(&name).unwrap_or(name), value));
            fields.put(key, Value::Object(renamed.collect::<Map<_, _>>()));
        }
    }
    Ok(true)
}

/// The tensors of a file whose adapters on stacked parameters are replaced by those of each expert.
pub(super) fn apart(tensors: AdapterTensors, model_type: &str, modules: &[Module]) -> Result<AdapterTensors> {
    let Some(names) = Names::of(model_type) else { return Ok(tensors) };
    let mut stacks: IndexMap<String, Pair> = IndexMap::new();
    let mut separate = AdapterTensors::new();
    for (name, tensor) in tensors {
        let (layer, part) = match Slot::parse(&name) {
            Some(Slot { path, part }) if [Part::LoraA, Part::LoraB].contains(&part) => (path, part),
            _ => {
                separate.insert(name, tensor);
                continue;
            }
        };
        let block = |layer: &str| layer.strip_suffix(".mlp").map(|parent| format!("{parent}.{}", names.block));
        let stack = layer.strip_suffix(".base_layer").unwrap_or(&layer);
        if stack.strip_suffix(".experts").is_some_and(|parent| parent.ends_with(".mlp")) {
            stacks.entry(layer).or_default().put(part, name, tensor);
        } else if let Some(parent) = layer.strip_suffix(".gate").and_then(block) {
            separate.insert(Slot::new(format!("{parent}.gate"), part).key(), tensor);
        } else {
            separate.insert(name, tensor);
        }
    }
    for (layer, pair) in stacks {
        let parent = layer.trim_end_matches(".base_layer").trim_end_matches(".mlp.experts");
        separate.extend(pair.apart(&format!("{parent}.{}.experts", names.block), &names, modules)?);
    }
    separate.sort_unstable_keys();
    Ok(separate)
}

/// A and B of one stacked parameter, with their names in the file.
#[derive(Default)]
struct Pair {
    a: Option<(String, HostTensor)>,
    b: Option<(String, HostTensor)>,
}

impl Pair {
    fn put(&mut self, part: Part, name: String, tensor: HostTensor) {
        let place = if part == Part::LoraA { &mut self.a } else { &mut self.b };
        *place = Some((name, tensor));
    }

    /// The tensors of the experts under `path`. Their shapes tell whether gate and up are meant or down.
    fn apart(self, path: &str, names: &Names, modules: &[Module]) -> Result<AdapterTensors> {
        let expert = |e: usize, leaf: &str| format!("{path}.{e}.{leaf}");
        let experts = (0..).take_while(|&e| modules.iter().any(|module| module.path == expert(e, names.gate))).count();
        let gate = modules.iter().find(|module| module.path == expert(0, names.gate));
        let (Some((name, a)), Some((_, b)), Some(gate)) = (self.a, self.b, gate) else {
            let what = "an adapter on stacked experts without its other half, or without experts in the model";
            return Err(Error::input(what).found(path).into());
        };
        let (inner, hidden) = (gate.rows, gate.cols);
        let leaves = match (&a.shape[..], &b.shape[..]) {
            (&[_, input], &[out, _]) if input == hidden && out == 2 * inner => [Some(names.gate), Some(names.up)],
            (&[_, input], &[out, _]) if input == inner && out == hidden => [Some(names.down), None],
            _ => return Err(misfit(&name, &a, &b)),
        };
        let (rank, input) = (a.shape[0] / experts, a.shape[1]);
        if rank * experts != a.shape[0] || b.shape[1] != a.shape[0] {
            return Err(misfit(&name, &a, &b));
        }
        let mut found = AdapterTensors::new();
        for e in 0..experts {
            let own = a.values[e * rank * input..(e + 1) * rank * input].to_vec();
            let rows: Vec<f32> = b
                .values
                .chunks_exact(rank * experts)
                .flat_map(|row| row[e..].iter().step_by(experts))
                .copied()
                .collect();
            let leaves = leaves.iter().flatten();
            let rows = rows.chunks_exact(rows.len() / leaves.clone().count().max(1));
            for (leaf, rows) in leaves.zip(rows) {
                let (a, b) = (vec![rank, input], vec![rows.len() / rank, rank]);
                found.insert(
                    Slot::new(expert(e, leaf), Part::LoraA).key(),
                    HostTensor { shape: a, values: own.clone() },
                );
                found.insert(
                    Slot::new(expert(e, leaf), Part::LoraB).key(),
                    HostTensor { shape: b, values: rows.to_vec() },
                );
            }
        }
        Ok(found)
    }
}

fn misfit(name: &str, a: &HostTensor, b: &HostTensor) -> Error {
    let error = Error::input("fits neither the gate and up nor the down projections of the experts").tensor(name);
    error.found(format!("A {:?}, B {:?}", a.shape, b.shape)).into()
}
