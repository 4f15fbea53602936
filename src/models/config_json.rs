//! `config.json` of Hugging Face, in and out. Keys that would change the result and that we do not
//! implement are refused by name; keys that transformers itself ignores for the family are ignored.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::bnb::Settings;
use super::{ModelConfig, Rope, RopeScaling};
use crate::{Error, Result};

pub(super) const MAX_CONFIG_BYTES: u64 = 1 << 20;

impl ModelConfig {
    /// Parses the bytes of a `config.json` (the keys of transformers 4 or 5); `path` is for messages.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self> {
        let map: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| Error::input(format!("not a model configuration: {error}")).file(path))?;
        let json = Json { map: &map, path, prefix: "" };
        let model_type = json.text("model_type")?.unwrap_or_default();
        if !["llama", "mistral", "qwen2"].contains(&model_type) {
            return Err(json.refusal("model_type", "unsupported architecture", "llama, mistral or qwen2"));
        }
        refuse_other_maths(&json, model_type)?;
        let attention_bias = model_type == "llama" && json.flag("attention_bias", false)?;
        let (hidden_size, heads) = (json.size("hidden_size")?, json.size("num_attention_heads")?);
        let max_positions = if model_type == "llama" { 2048 } else { 32768 };
        let config = ModelConfig {
            model_type: model_type.to_string(),
            vocab_size: json.size("vocab_size")?,
            hidden_size,
            intermediate_size: json.size("intermediate_size")?,
            num_hidden_layers: json.size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: json.size_or("num_key_value_heads", heads)?,
            head_dim: json.size_or("head_dim", hidden_size.checked_div(heads).unwrap_or(0))?,
            rms_norm_eps: json.number("rms_norm_eps")?.unwrap_or(1e-6),
            max_position_embeddings: json.size_or("max_position_embeddings", max_positions)?,
            rope: rope(&json)?,
            tie_word_embeddings: json.flag("tie_word_embeddings", false)?,
            qkv_bias: attention_bias || model_type == "qwen2",
            o_bias: attention_bias,
            mlp_bias: model_type == "llama" && json.flag("mlp_bias", false)?,
            bos_token_id: json.ids("bos_token_id")?.first().copied(),
            eos_token_ids: json.ids("eos_token_id")?,
            pad_token_id: json.ids("pad_token_id")?.first().copied(),
        };
        config.check(path)?;
        Ok(config)
    }

    /// How the weights beside a `config.json` are quantised, if they are.
    pub(super) fn quantisation(bytes: &[u8], path: &Path) -> Result<Option<Settings>> {
        let map: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| Error::input(format!("not a model configuration: {error}")).file(path))?;
        Settings::parse(&Json { map: &map, path, prefix: "" })
    }

    /// `eos_token_id` of a `generation_config.json`.
    pub(super) fn end_tokens(map: &Map<String, Value>, path: &Path) -> Result<Vec<u32>> {
        Json { map, path, prefix: "" }.ids("eos_token_id")
    }

    /// A `config.json` that transformers 4 and 5 read back to the same model. `dtype` is what the
    /// weights beside it are stored as: `float32`, `bfloat16`, ...
    pub fn to_json(&self, dtype: &str) -> Value {
        let class = match self.model_type.as_str() {
            "mistral" => "MistralForCausalLM",
            "qwen2" => "Qwen2ForCausalLM",
            _ => "LlamaForCausalLM",
        };
        let eos = match self.eos_token_ids[..] {
            [] => Value::Null,
            [one] => json!(one),
            ref many => json!(many),
        };
        let mut all = json!({
            "architectures": [class], "model_type": self.model_type,
            "vocab_size": self.vocab_size, "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size, "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads, "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim, "hidden_act": "silu", "rms_norm_eps": self.rms_norm_eps,
            "max_position_embeddings": self.max_position_embeddings,
            "rope_theta": self.rope.theta, "rope_scaling": self.rope.scaling.to_json(),
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id, "eos_token_id": eos, "pad_token_id": self.pad_token_id,
            "torch_dtype": dtype,
        });
        match self.model_type.as_str() {
            "llama" => {
                all["attention_bias"] = json!(self.qkv_bias);
                all["mlp_bias"] = json!(self.mlp_bias);
            }
            "qwen2" => all["use_sliding_window"] = json!(false),
            // The default of transformers is a window of 4096.
            _ => all["sliding_window"] = Value::Null,
        }
        all
    }
}

impl RopeScaling {
    fn to_json(&self) -> Value {
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

fn refuse_other_maths(json: &Json, model_type: &str) -> Result<()> {
    if json.text("hidden_act")?.is_some_and(|act| act != "silu" && act != "swish") {
        return Err(json.refusal("hidden_act", "unsupported activation", "silu"));
    }
    Settings::parse(json)?;
    if json.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        return Err(json.refusal("partial_rotary_factor", "unsupported", "1"));
    }
    sliding_window(json, model_type)
}

/// Attention over everything equals a sliding window only while no sequence is longer than the window.
fn sliding_window(json: &Json, model_type: &str) -> Result<()> {
    let layers = json.size("num_hidden_layers")?;
    let possible = match model_type {
        "mistral" => true,
        "qwen2" => json.flag("use_sliding_window", false)? && json.size_or("max_window_layers", 28)? < layers,
        _ => false,
    };
    let listed = json.get("layer_types").and_then(Value::as_array);
    let known = |kind: &Value| kind == "full_attention" || kind == "sliding_attention";
    if !listed.is_none_or(|kinds| kinds.iter().all(known)) {
        return Err(json.refusal("layer_types", "unsupported kind of layer", "full_attention"));
    }
    let some_slide = listed.is_none_or(|types| types.iter().any(|kind| kind == "sliding_attention"));
    let longest = json.size_or("max_position_embeddings", 32768)?;
    match json.get("sliding_window") {
        Some(_) if possible && some_slide && json.size("sliding_window")? < longest => {
            let error = Error::input("sliding-window attention is not implemented").file(json.path);
            let error = error.key("sliding_window").found(json.size("sliding_window")?);
            let hint =
                "within the window the results are the same: set max_position_embeddings to it in a copy of the file";
            Err(error.expected(format!("none, or at least max_position_embeddings {longest}")).hint(hint).into())
        }
        _ => Ok(()),
    }
}

/// `rope_parameters` (transformers 5), else `rope_theta` and `rope_scaling` (transformers 4).
fn rope(json: &Json) -> Result<Rope> {
    let (key, table) = match json.table("rope_parameters")? {
        Some(table) => ("rope_parameters.", Some(table)),
        None => ("rope_scaling.", json.table("rope_scaling")?),
    };
    let top_theta = json.number("rope_theta")?.unwrap_or(10000.0);
    let Some(table) = table else { return Ok(Rope { theta: top_theta, scaling: RopeScaling::Default }) };
    let rope = Json { map: table, path: json.path, prefix: key };
    let theta = rope.number("rope_theta")?.unwrap_or(top_theta);
    if rope.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        return Err(rope.refusal("partial_rotary_factor", "unsupported", "1"));
    }
    let type_key = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
    let scaling = match rope.text(type_key)? {
        // A table per kind of layer has no type of its own.
        None if table.values().any(Value::is_object) => {
            return Err(rope.refusal("rope_type", "rotary settings per kind of layer", "one table for all layers"));
        }
        None | Some("default") => RopeScaling::Default,
        Some("linear") => RopeScaling::Linear { factor: rope.needed("factor")? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: rope.needed("factor")?,
            low_freq_factor: rope.needed("low_freq_factor")?,
            high_freq_factor: rope.needed("high_freq_factor")?,
            original_max_position_embeddings: rope.size("original_max_position_embeddings")?,
        },
        Some(_) => return Err(rope.refusal(type_key, "unsupported rotary scaling", "default, linear or llama3")),
    };
    Ok(Rope { theta, scaling })
}

/// Typed look-ups in a JSON object; `null` counts as absent.
pub(super) struct Json<'a> {
    pub map: &'a Map<String, Value>,
    pub path: &'a Path,
    /// What goes before a key in messages.
    pub prefix: &'static str,
}

impl<'a> Json<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn refusal(&self, key: &str, what: &str, expected: &str) -> Error {
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

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn needed(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.refusal(key, "missing", "a number"))
    }

    pub fn table(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.typed(key, "an object", Value::as_object)
    }

    fn size_if_any(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| value.as_u64().and_then(|size| usize::try_from(size).ok()))
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.size_if_any(key)?.ok_or_else(|| self.refusal(key, "missing", "a whole number"))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.size_if_any(key)?.unwrap_or(default))
    }

    /// A token id or a list of them; -1, which old files write for "none", counts as absent.
    fn ids(&self, key: &str) -> Result<Vec<u32>> {
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
        assert_eq!(config.rope, Rope { theta: 10000.0, scaling: RopeScaling::Default });
        assert!(!config.tie_word_embeddings && !config.qkv_bias && !config.o_bias && !config.mlp_bias);
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
            assert_eq!(parsed(keys).rope, expected);
        }
        let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16 });
        assert!(matches!(
            parsed(json!({ "rope_scaling": llama3 })).rope.scaling,
            RopeScaling::Llama3 { original_max_position_embeddings: 16, .. }
        ));
    }

    #[test]
    fn biases_follow_the_family() {
        let qwen = parsed(json!({ "model_type": "qwen2" }));
        assert!(qwen.qkv_bias && !qwen.o_bias && !qwen.mlp_bias);
        let llama = parsed(json!({ "attention_bias": true, "mlp_bias": true }));
        assert!(llama.qkv_bias && llama.o_bias && llama.mlp_bias);
        assert!(!parsed(json!({ "model_type": "mistral", "attention_bias": true })).qkv_bias);
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
