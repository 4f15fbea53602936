//! What the dashboard and the report draw alike: round marks along an axis, curves made fit to be seen, one palette.

pub mod curve;
pub mod palette;
pub mod ticks;

use std::collections::HashMap;

use crate::events::printable;

/// A number of one module, by the module's kind and layer: `model.layers.3.self_attn.q_proj` is a `q_proj` in layer 3. Modules
/// outside the layers count as layer 0. Where a layer has several of that name, the kind says what tells them apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub kind: String,
    pub layer: usize,
    pub value: f64,
}

impl Cell {
    /// Those of all modules that there are numbers of.
    pub fn all<'a>(modules: impl Iterator<Item = (&'a str, f64)>) -> Vec<Self> {
        let modules: Vec<_> = modules.map(|(path, value)| (Path::of(path), value)).collect();
        let mut alike: HashMap<&str, Vec<&Path>> = HashMap::new();
        for (path, _) in &modules {
            let of = alike.entry(path.name).or_default();
            if !of.iter().any(|other| other.before == path.before) {
                of.push(path);
            }
        }
        let cell = |(path, value): &(Path, f64)| {
            let kind = printable(&path.kind(&alike[path.name]));
            Cell { kind, layer: path.layer.unwrap_or(0), value: *value }
        };
        modules.iter().map(cell).collect()
    }
}

/// A module's path, apart.
struct Path<'a> {
    /// Without numbers.
    before: Vec<&'a str>,
    name: &'a str,
    layer: Option<usize>,
}

impl<'a> Path<'a> {
    fn of(path: &'a str) -> Self {
        let layer = path.split('.').find_map(|part| part.parse().ok());
        let mut before: Vec<_> = path.split('.').filter(|part| part.parse::<usize>().is_err()).collect();
        let name = before.pop().unwrap_or(path);
        Self { before, name, layer }
    }

    /// The name; among others of that name, in layers those there, behind those parts of the path that not all of them have, short
    /// where they are long.
    fn kind(&self, alike: &[&Path]) -> String {
        let others = || alike.iter().filter(|other| self.layer.is_none() || other.layer.is_some());
        let own = self.before.iter().filter(|part| !others().all(|other| other.before.contains(part)));
        let own: Vec<&str> = own.copied().collect();
        let joined = |parts: &[&str]| parts.iter().chain([&self.name]).copied().collect::<Vec<_>>().join(".");
        match joined(&own) {
            whole if whole.chars().count() <= WIDEST => whole,
            _ => joined(&own.iter().map(|part| part.get(..3).unwrap_or(part)).collect::<Vec<_>>()),
        }
    }
}

/// Letters of a kind that the dashboard has room for.
const WIDEST: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(paths: &[&str]) -> Vec<String> {
        Cell::all(paths.iter().map(|path| (*path, 1.0))).into_iter().map(|cell| cell.kind).collect()
    }

    #[test]
    fn a_kind_is_the_name_and_what_tells_it_from_its_like() {
        let bert = |end: &str| format!("bert.encoder.layer.1.{end}");
        let paths = ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"].map(bert);
        let [query, attention, inner, output] = paths.each_ref().map(String::as_str);
        let told = kinds(&[query, attention, inner, output, "bert.pooler.dense"]);
        assert_eq!(told, ["query", "att.out.dense", "int.dense", "output.dense", "pooler.dense"]);
        let t5 = [
            "encoder.block.0.layer.0.SelfAttention.q",
            "encoder.block.1.layer.0.SelfAttention.q",
            "decoder.block.1.layer.0.SelfAttention.q",
            "decoder.block.1.layer.1.EncDecAttention.q",
            "decoder.block.1.layer.2.DenseReluDense.wo",
        ];
        assert_eq!(kinds(&t5), ["enc.Sel.q", "enc.Sel.q", "dec.Sel.q", "dec.Enc.q", "wo"]);
        let cell = &Cell::all([("model.layers.3.self_attn.q_proj", 8.0)].into_iter())[0];
        assert_eq!(cell, &Cell { kind: "q_proj".into(), layer: 3, value: 8.0 });
        assert_eq!(kinds(&["lm_head", "7"]), ["lm_head", "7"]);
    }
}
