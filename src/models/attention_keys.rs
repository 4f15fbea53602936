//! Keys of a `config.json` that many families have for their attention: rotation and windows.

use serde_json::{Map, Value, json};

use super::json::Json;
use super::{Rope, RopeScaling, Sliding};
use crate::Result;

/// Layers that are listed before their number is checked.
const MAX_LISTED: usize = 1 << 12;

impl Json<'_> {
    /// Which layers slide: those that `layer_types` lists, else those of `by_default`.
    pub fn layer_types(&self, by_default: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
        let layers = self.size("num_hidden_layers")?;
        let Some(listed) = self.get("layer_types") else {
            return Ok((0..layers.min(MAX_LISTED)).map(by_default).collect());
        };
        let slides = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Some(true),
            Some("full_attention") => Some(false),
            _ => None,
        };
        let kinds = listed.as_array().and_then(|kinds| kinds.iter().map(slides).collect::<Option<Vec<_>>>());
        kinds.filter(|kinds| kinds.len() == layers).ok_or_else(|| {
            let expected = format!("\"full_attention\" or \"sliding_attention\" for each of {layers} layers");
            self.refusal("layer_types", "unsupported kinds of layer", &expected)
        })
    }

    /// The layers that slide, if any may, and their window. One of all positions cuts nothing, and is none.
    pub fn sliding(&self, possible: bool, longest: usize, by_default: impl Fn(usize) -> bool) -> Result<Sliding> {
        let layers = self.layer_types(by_default)?;
        let window = if possible { self.size_if_any("sliding_window")? } else { None };
        let longest = self.size_or("max_position_embeddings", longest)?;
        match window.filter(|&window| window < longest && layers.contains(&true)) {
            None => Ok(Sliding::default()),
            Some(0) => Err(self.refusal("sliding_window", "a window of nothing", "at least 1")),
            Some(window) => Ok(Sliding { window, layers }),
        }
    }

    pub fn refuse_partial_rotary(&self) -> Result<()> {
        if self.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(self.refusal("partial_rotary_factor", "unsupported", "1"));
        }
        Ok(())
    }

    /// `rope_parameters` (transformers 5), else `rope_theta` and `rope_scaling` (transformers 4).
    pub fn rope(&self, default_theta: f64) -> Result<Rope> {
        let top_theta = self.number("rope_theta")?.unwrap_or(default_theta);
        let (prefix, table) = match self.table("rope_parameters")? {
            Some(table) => ("rope_parameters.", Some(table)),
            None => ("rope_scaling.", self.table("rope_scaling")?),
        };
        match table {
            None => Ok(Rope { theta: top_theta, scaling: RopeScaling::Default }),
            Some(map) => Json { map, prefix, ..*self }.rope_table(top_theta),
        }
    }

    /// Rotary settings of one kind of layer, where `rope_parameters` has them by kind.
    pub fn rope_of(&self, kind: &str, default_theta: f64) -> Result<Option<Rope>> {
        let Some(Value::Object(map)) = self.table("rope_parameters")?.and_then(|kinds| kinds.get(kind)) else {
            return Ok(None);
        };
        Json { map, prefix: "rope_parameters.", ..*self }.rope_table(default_theta).map(Some)
    }

    /// [`Self::rope`], and how much of each head rotates.
    pub fn partial_rope(&self, default_theta: f64, default_factor: f64) -> Result<(Rope, f64)> {
        let key = "partial_rotary_factor";
        let own = self.table("rope_parameters")?.and_then(|table| table.get(key)).and_then(Value::as_f64);
        let without = |map: &Map<String, Value>| -> Map<String, Value> {
            map.iter().filter(|(name, _)| *name != key).map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        let mut map = without(self.map);
        if let Some(Value::Object(table)) = map.get_mut("rope_parameters") {
            *table = without(table);
        }
        let rope = Json { map: &map, ..*self }.rope(default_theta)?;
        Ok((rope, own.or(self.number(key)?).unwrap_or(default_factor)))
    }

    /// The table that either has.
    fn rope_table(&self, top_theta: f64) -> Result<Rope> {
        let theta = self.number("rope_theta")?.unwrap_or(top_theta);
        self.refuse_partial_rotary()?;
        let type_key = if self.get("rope_type").is_some() { "rope_type" } else { "type" };
        let scaling = match self.text(type_key)? {
            // A table per kind of layer has no type of its own.
            None if self.map.values().any(Value::is_object) => {
                return Err(self.refusal("rope_type", "rotary settings per kind of layer", "one table for all layers"));
            }
            None | Some("default") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear { factor: self.needed("factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: self.needed("factor")?,
                low_freq_factor: self.needed("low_freq_factor")?,
                high_freq_factor: self.needed("high_freq_factor")?,
                original_max_position_embeddings: self.size("original_max_position_embeddings")?,
            },
            Some(_) => return Err(self.refusal(type_key, "unsupported rotary scaling", "default, linear or llama3")),
        };
        Ok(Rope { theta, scaling })
    }
}

impl RopeScaling {
    pub(super) fn to_json(&self) -> Value {
        match *self {
            RopeScaling::Default => Value::Null,
            RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                json!({
                    "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                })
            }
        }
    }
}
