//! `config.json` of Hugging Face, in and out. Keys that would change the result and that we do not
//! implement are refused by name; keys that transformers itself ignores for the family are ignored.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::bnb::Settings;
use super::families::{Aliases, Architecture, ModelType};
use super::{ModelConfig, Rope, RopeScaling};
use crate::{Error, Result};

pub(super) const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Layers that are listed before their number is checked.
const MAX_LISTED: usize = 1 << 12;

impl ModelConfig {
    /// Parses the bytes of a `config.json` (the keys of transformers 4 or 5); `path` is for messages.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        let map: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| Error::input(format!("not a model configuration: {error}")).file(path))?;
        let json = Json::new(&map, path);
        let model_type = json.text("model_type")?.unwrap_or_default();
        let unsupported = || json.refusal("model_type", "unsupported architecture", &ModelType::names());
        let (aliases, defaults) = Architecture::common(model_type).ok_or_else(unsupported)?;
        let json = Json { aliases, ..json };
        Settings::parse(&json)?;
        let architecture = Architecture::read(model_type, &json)?.ok_or_else(unsupported)?;
        let (hidden_size, heads) = (json.size("hidden_size")?, json.size("num_attention_heads")?);
        let head_dim = defaults.head_dim.unwrap_or(hidden_size.checked_div(heads).unwrap_or(0));
        let config = ModelConfig {
            model_type: model_type.to_string(),
            vocab_size: json.size("vocab_size")?,
            hidden_size,
            num_hidden_layers: json.size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: json.size_or("num_key_value_heads", heads)?,
            head_dim: json.size_or("head_dim", head_dim)?,
            max_position_embeddings: json.size_or("max_position_embeddings", defaults.max_position_embeddings)?,
            tie_word_embeddings: json.flag("tie_word_embeddings", defaults.tie_word_embeddings)?,
            bos_token_id: json.ids("bos_token_id")?.first().copied(),
            eos_token_ids: json.ids("eos_token_id")?,
            pad_token_id: json.ids("pad_token_id")?.first().copied(),
            architecture,
        };
        config.check(path)?;
        Ok(config)
    }

    /// How the weights beside a `config.json` are quantised, if they are.
    pub(super) fn quantisation(bytes: &[u8], path: &Path) -> Result<Option<Settings>> {
        let map: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| Error::input(format!("not a model configuration: {error}")).file(path))?;
        Settings::parse(&Json::new(&map, path))
    }

    /// `eos_token_id` of a `generation_config.json`.
    pub(super) fn end_tokens(map: &Map<String, Value>, path: &Path) -> Result<Vec<u32>> {
        Json::new(map, path).ids("eos_token_id")
    }

    /// A `config.json` that transformers 4 and 5 read back to the same model. `dtype` is what the
    /// weights beside it are stored as: `float32`, `bfloat16`, ...
    pub fn to_json(&self, dtype: &str) -> Value {
        let eos = match self.eos_token_ids[..] {
            [] => Value::Null,
            [one] => json!(one),
            ref many => json!(many),
        };
        let class = ModelType::find(&self.model_type).map_or("", |row| row.class);
        let usual = json!({
            "architectures": [class], "model_type": self.model_type,
            "vocab_size": self.vocab_size, "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads, "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim, "max_position_embeddings": self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id, "eos_token_id": eos, "pad_token_id": self.pad_token_id,
            "torch_dtype": dtype,
        });
        let aliases = Architecture::common(&self.model_type).map_or(&[][..], |(aliases, _)| aliases);
        let own = self.architecture.family().write(self);
        let keys = [usual, own].into_iter().filter_map(|keys| match keys {
            Value::Object(keys) => Some(keys),
            _ => None,
        });
        let named = keys.flatten().map(|(key, value)| (renamed(aliases, &key).to_string(), value));
        Value::Object(named.filter(|(key, _)| !key.is_empty()).collect())
    }
}

/// The family's name of a key.
fn renamed(aliases: Aliases, key: &str) -> &str {
    aliases.iter().find(|(usual, _)| *usual == key).map_or(key, |(_, own)| own)
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

/// Typed look-ups in a JSON object; `null` counts as absent.
pub struct Json<'a> {
    pub map: &'a Map<String, Value>,
    pub path: &'a Path,
    /// What goes before a key in messages.
    pub prefix: &'static str,
    /// Keys that are looked up under another name first.
    pub aliases: Aliases,
}

impl<'a> Json<'a> {
    pub fn new(map: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { map, path, prefix: "", aliases: &[] }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        let own = renamed(self.aliases, key);
        let value = self.map.get(own).or_else(|| self.map.get(key).filter(|_| !own.is_empty()));
        value.filter(|value| !value.is_null())
    }

    pub fn refusal(&self, key: &str, what: &str, expected: &str) -> Error {
        let own = renamed(self.aliases, key);
        let key = if self.map.contains_key(key) && !self.map.contains_key(own) { key } else { own };
        let error = Error::input(what).file(self.path).key(format!("{}{key}", self.prefix)).expected(expected);
        let found = self.map.get(key).map_or("nothing".into(), Value::to_string);
        error.found(found.chars().take(80).collect::<String>()).into()
    }

    fn typed<T>(&self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let read = |value| read(value).ok_or_else(|| self.refusal(key, "wrong type of value", expected));
        self.get(key).map(read).transpose()
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub fn needed(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.refusal(key, "missing", "a number"))
    }

    pub fn table(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.typed(key, "an object", Value::as_object)
    }

    pub fn size_if_any(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| value.as_u64().and_then(|size| usize::try_from(size).ok()))
    }

    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_if_any(key)?.ok_or_else(|| self.refusal(key, "missing", "a whole number"))
    }

    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.size_if_any(key)?.unwrap_or(default))
    }

    /// Refuses a text other than `known`; an absent one stands for the first.
    pub fn only(&self, key: &str, known: &[&str]) -> Result<()> {
        if self.text(key)?.is_none_or(|found| known.contains(&found)) {
            return Ok(());
        }
        Err(self.refusal(key, "unsupported", &known.join(" or ")))
    }

    /// Refuses a flag other than `known`, which an absent one stands for.
    pub fn only_flag(&self, key: &str, known: bool) -> Result<()> {
        if self.flag(key, known)? == known { Ok(()) } else { Err(self.refusal(key, "unsupported", &known.to_string())) }
    }

    /// Refuses a number other than `known`, which an absent one stands for.
    pub fn only_number(&self, key: &str, known: f64) -> Result<()> {
        if self.number(key)?.is_none_or(|found| found == known) {
            return Ok(());
        }
        Err(self.refusal(key, "unsupported", &known.to_string()))
    }

    /// A list of whole numbers; empty where there is none.
    pub fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
        let sizes = self.typed(key, "a list of whole numbers", |value| value.as_array()?.iter().map(size).collect())?;
        Ok(sizes.unwrap_or_default())
    }

    /// Refuses any value.
    pub fn absent(&self, key: &str) -> Result<()> {
        if self.get(key).is_none() { Ok(()) } else { Err(self.refusal(key, "unsupported", "none")) }
    }

    /// Which layers see a window alone: by `layer_types`, else all but every `pattern`-th.
    pub fn sliding_layers(&self, layers: usize, pattern: usize) -> Result<Vec<bool>> {
        let Some(listed) = self.get("layer_types") else {
            let layers = layers.min(MAX_LISTED);
            return Ok((1..=layers).map(|layer| layer.checked_rem(pattern).is_some_and(|left| left != 0)).collect());
        };
        let slides = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Some(true),
            Some("full_attention") => Some(false),
            _ => None,
        };
        let listed = listed.as_array().and_then(|kinds| kinds.iter().map(slides).collect::<Option<Vec<_>>>());
        listed.filter(|kinds| kinds.len() == layers).ok_or_else(|| {
            let expected = format!("\"full_attention\" or \"sliding_attention\" for each of {layers} layers");
            self.refusal("layer_types", "unsupported kinds of layer", &expected)
        })
    }

    pub fn refuse_partial_rotary(&self) -> Result<()> {
        if self.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(self.refusal("partial_rotary_factor", "unsupported", "1"));
        }
        Ok(())
    }

    /// Attention over everything equals a sliding window only while no sequence is longer than the window. `possible`
    /// says whether the family's other keys let layers slide at all.
    pub fn refuse_sliding_window(&self, possible: bool) -> Result<()> {
        let listed = self.get("layer_types").and_then(Value::as_array);
        let known = |kind: &Value| kind == "full_attention" || kind == "sliding_attention";
        if !listed.is_none_or(|kinds| kinds.iter().all(known)) {
            return Err(self.refusal("layer_types", "unsupported kind of layer", "full_attention"));
        }
        let some_slide = listed.is_none_or(|types| types.iter().any(|kind| kind == "sliding_attention"));
        let longest = self.size_or("max_position_embeddings", 32768)?;
        match self.get("sliding_window") {
            Some(_) if possible && some_slide && self.size("sliding_window")? < longest => {
                let error = Error::input("sliding-window attention is not implemented").file(self.path);
                let error = error.key("sliding_window").found(self.size("sliding_window")?);
                let hint = "within the window the results are the same: set max_position_embeddings to it in a copy of the file";
                Err(error.expected(format!("none, or at least max_position_embeddings {longest}")).hint(hint).into())
            }
            _ => Ok(()),
        }
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

    /// A token id or a list of them; -1, which old files write for "none", counts as absent.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let ids = self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(list) => list.iter().map(token_id).collect(),
            one if one.as_i64() == Some(-1) => Some(Vec::new()),
            one => token_id(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama() -> Value {
        json!({
            "model_type": "llama", "vocab_size": 512, "hidden_size": 96, "intermediate_size": 256,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2,
        })
    }

    fn with(changes: Value) -> Value {
        let mut all = llama();
        for (key, value) in changes.as_object().unwrap() {
            all[key] = value.clone();
        }
        all
    }

    fn parse(json: &Value) -> Result<ModelConfig> {
        ModelConfig::from_json(json.to_string().as_bytes(), Path::new("config.json"))
    }

    fn parsed(changes: Value) -> ModelConfig {
        parse(&with(changes)).unwrap()
    }

    #[test]
    fn absent_keys_have_the_defaults_of_transformers() {
        let config = parsed(json!({ "num_key_value_heads": null }));
        assert_eq!((config.head_dim, config.num_key_value_heads), (24, 4));
        let own = config.llama();
        assert_eq!(own.rope, Rope { theta: 10000.0, scaling: RopeScaling::Default });
        assert!(!config.tie_word_embeddings && !own.qkv_bias && !own.o_bias && !own.mlp_bias);
        assert_eq!((config.bos_token_id, config.eos_token_ids, config.pad_token_id), (Some(1), vec![2], None));
        assert_eq!(parsed(json!({ "head_dim": 32 })).head_dim, 32);
        assert_eq!(parsed(json!({ "eos_token_id": [2, 7], "pad_token_id": -1 })).eos_token_ids, [2, 7]);
    }

    #[test]
    fn old_and_new_rotary_keys_mean_the_same() {
        let linear = RopeScaling::Linear { factor: 2.0 };
        let expected = Rope { theta: 5e5, scaling: linear };
        for keys in [
            json!({ "rope_theta": 5e5, "rope_scaling": { "type": "linear", "factor": 2.0 } }),
            json!({ "rope_theta": 5e5, "rope_scaling": { "rope_type": "linear", "factor": 2 } }),
            json!({ "rope_parameters": { "rope_type": "linear", "factor": 2.0, "rope_theta": 500000 } }),
        ] {
            assert_eq!(parsed(keys).llama().rope, expected);
        }
        let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16 });
        assert!(matches!(
            parsed(json!({ "rope_scaling": llama3 })).llama().rope.scaling,
            RopeScaling::Llama3 { original_max_position_embeddings: 16, .. }
        ));
    }

    #[test]
    fn biases_follow_the_family() {
        let biases = |changes: Value| {
            let config = parsed(changes);
            let own = config.llama();
            [own.qkv_bias, own.o_bias, own.mlp_bias]
        };
        assert_eq!(biases(json!({ "model_type": "qwen2" })), [true, false, false]);
        assert_eq!(biases(json!({ "attention_bias": true, "mlp_bias": true })), [true; 3]);
        assert_eq!(biases(json!({ "model_type": "mistral", "attention_bias": true })), [false; 3]);
    }

    #[test]
    fn a_sliding_window_matters_only_when_it_can_cut() {
        let mistral = |window: Value| parse(&with(json!({ "model_type": "mistral", "sliding_window": window })));
        assert!(mistral(json!(null)).is_ok() && mistral(json!(128)).is_ok());
        assert!(mistral(json!(64)).unwrap_err().to_string().contains("sliding_window"));
        let qwen = |used: bool, from: usize| {
            let keys = json!({ "model_type": "qwen2", "sliding_window": 64, "use_sliding_window": used, "max_window_layers": from });
            parse(&with(keys))
        };
        assert!(qwen(false, 0).is_ok() && qwen(true, 2).is_ok());
        assert!(qwen(true, 1).is_err());
    }

    #[test]
    fn what_cannot_be_names_its_key() {
        for (key, value) in [
            ("model_type", json!("gemma2")),
            ("model_type", json!(null)),
            ("hidden_size", json!(0)),
            ("hidden_size", json!(-96)),
            ("hidden_size", json!(96.5)),
            ("hidden_size", json!("96")),
            ("hidden_size", json!(null)),
            ("num_attention_heads", json!(0)),
            ("num_attention_heads", json!(5)),
            ("num_key_value_heads", json!(8)),
            ("num_key_value_heads", json!(3)),
            ("num_hidden_layers", json!(1_000_000_000)),
            ("vocab_size", json!(1u64 << 63)),
            ("vocab_size", json!(1e30)),
            ("intermediate_size", json!(u64::MAX)),
            ("head_dim", json!(7)),
            ("rms_norm_eps", json!(0)),
            ("rope_theta", json!("NaN")),
            ("rope_theta", json!(-1.0)),
            ("hidden_act", json!("gelu")),
            ("quantization_config", json!("nf4")),
            ("quantization_config.quant_method", json!({ "quant_method": "gptq" })),
            ("quantization_config.load_in_8bit", json!({ "load_in_8bit": true, "quant_method": "bitsandbytes" })),
            ("quantization_config.load_in_4bit", json!({ "quant_method": "bitsandbytes" })),
            ("quantization_config.load_in_4bit", json!({ "load_in_4bit": "yes" })),
            ("quantization_config.bnb_4bit_quant_type", json!({ "load_in_4bit": true, "bnb_4bit_quant_type": "int4" })),
            (
                "quantization_config.bnb_4bit_quant_storage",
                json!({ "load_in_4bit": true, "bnb_4bit_quant_storage": "bfloat16" }),
            ),
            ("rope_scaling", json!({ "type": "yarn", "factor": 4.0 })),
            ("rope_scaling", json!({ "rope_type": "linear" })),
            ("rope_scaling", json!({ "rope_type": "linear", "factor": 0 })),
            ("rope_scaling", json!(["linear"])),
            ("rope_parameters", json!({ "full_attention": { "rope_type": "default" } })),
            ("partial_rotary_factor", json!(0.5)),
            ("bos_token_id", json!(512)),
            ("eos_token_id", json!([2, 512])),
            ("eos_token_id", json!("</s>")),
            ("tie_word_embeddings", json!(1)),
            ("layer_types", json!(["linear_attention"])),
        ] {
            let top = key.split('.').next().unwrap();
            let message = parse(&with(json!({ top: value.clone() }))).unwrap_err().to_string();
            assert!(message.contains("config.json") && message.contains(key), "{key} {value}: {message}");
        }
    }

    #[test]
    fn broken_text_is_an_error() {
        for text in ["", "[]", "{", &"[".repeat(100_000), &"{\"a\":".repeat(100_000), "{\"hidden_size\": NaN}"] {
            assert!(ModelConfig::from_json(text.as_bytes(), Path::new("config.json")).is_err());
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16 });
        for keys in [
            json!({}),
            json!({ "rope_scaling": llama3, "eos_token_id": [2, 3], "attention_bias": true, "mlp_bias": true }),
            json!({ "model_type": "mistral", "tie_word_embeddings": true, "head_dim": 32 }),
            json!({ "model_type": "qwen2", "rope_theta": 1e6, "eos_token_id": null, "pad_token_id": 0 }),
        ] {
            let config = parsed(keys);
            assert_eq!(parse(&config.to_json("float32")).unwrap(), config);
        }
    }
}
