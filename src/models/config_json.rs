//! `config.json` of Hugging Face, in and out. Keys that would change the result and that we do not
//! implement are refused by name; keys that transformers itself ignores for the family are ignored.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::ModelConfig;
use super::bnb::Settings;
use super::class::{label_keys, labels, task};
use super::families::{Architecture, ModelType};
use super::json::{Json, renamed};
use crate::{Error, Result};

pub(super) const MAX_CONFIG_BYTES: u64 = 1 << 20;

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
        let task = task(&json, model_type);
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
            task,
            labels: labels(&json, task)?,
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
        let class = ModelType::find(&self.model_type).map_or_else(String::new, |row| row.class_for(self.task));
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
        let keys = [usual, own, label_keys(&self.labels, self.task).into()].into_iter().filter_map(|keys| match keys {
            Value::Object(keys) => Some(keys),
            _ => None,
        });
        let named = keys.flatten().map(|(key, value)| (renamed(aliases, &key).to_string(), value));
        Value::Object(named.filter(|(key, _)| !key.is_empty()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Rope, RopeScaling, Sliding};

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
        let sliding = |keys: Value| parsed(keys).llama().sliding.clone();
        let mistral = |window: Value| sliding(json!({ "model_type": "mistral", "sliding_window": window }));
        assert_eq!(mistral(json!(null)), Sliding::default());
        assert_eq!(mistral(json!(128)), Sliding::default());
        assert_eq!(mistral(json!(64)), Sliding { window: 64, layers: vec![true, true] });
        let qwen = |used: bool, from: usize| {
            sliding(
                json!({ "model_type": "qwen2", "sliding_window": 64, "use_sliding_window": used, "max_window_layers": from }),
            )
        };
        assert_eq!((qwen(false, 0), qwen(true, 2)), Default::default());
        assert_eq!(qwen(true, 1), Sliding { window: 64, layers: vec![false, true] });
        let nothing = json!({ "model_type": "mistral", "sliding_window": 0 });
        assert!(parse(&with(nothing)).unwrap_err().to_string().contains("sliding_window"));
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
            json!({ "model_type": "mistral", "sliding_window": 16 }),
            json!({ "model_type": "qwen3", "sliding_window": 16, "use_sliding_window": true, "max_window_layers": 1 }),
        ] {
            let config = parsed(keys);
            assert_eq!(parse(&config.to_json("float32")).unwrap(), config);
        }
    }
}
