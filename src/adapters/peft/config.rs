//! `adapter_config.json`, as PEFT 0.21 reads and writes it.
//!
//! A key that changes what the adapter computes, and that we do not compute, is an error naming
//! it. A key that only steered training or says where the file came from is passed over. Unknown
//! keys are newer than this reader: an error if they turn something on, else a warning.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::fields::{Fields, brief, is_active, printable};
use super::{form, stacked};
use crate::adapters::{AdapterConfig, Module};
use crate::error::InputError;
use crate::recipe::Task;
use crate::{Error, Result};

/// Largest `adapter_config.json` that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Keys that would change the result, and what they ask for.
const UNSUPPORTED: [(&str, &str); 12] = [
    ("lora_bias", "biases on B"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("use_qalora", "QA-LoRA's pooled inputs"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("velora_config", "VeLoRA"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
    ("arrow_config", "Arrow routing"),
    ("layer_replication", "replicated layers"),
    ("trainable_token_indices", "trained token rows"),
    ("ensure_weight_tying", "tied adapters"),
    ("megatron_config", "Megatron's parallel layers"),
];

/// Keys that change nothing once an adapter is trained. How the base stores its weights, `fan_in_fan_out`, the base says itself;
/// PEFT corrects the key too.
const INERT: [&str; 12] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// What an adapter file says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftConfig {
    pub adapter: AdapterConfig,
    /// Only shown, never opened; free of control characters.
    pub base_model_name_or_path: String,
    pub task_type: Option<String>,
    /// What was passed over or looks odd, one sentence each.
    pub warnings: Vec<String>,
}

impl PeftConfig {
    /// A causal language model's adapter over `base`.
    pub fn new(adapter: impl Into<AdapterConfig>, base: impl Into<String>) -> Self {
        let task_type = Some("CAUSAL_LM".into());
        let adapter = adapter.into();
        Self { adapter, base_model_name_or_path: base.into(), task_type, warnings: Vec::new() }
    }

    /// The same for a model's task.
    pub fn for_task(self, task: Task) -> Self {
        let word = TASK_TYPES.iter().find(|(known, _)| *known == task).map(|(_, word)| word.to_string());
        Self { task_type: word, ..self }
    }

    /// The task that the file was written for, where it says one that is known.
    pub fn task(&self) -> Option<Task> {
        let word = self.task_type.as_deref()?;
        TASK_TYPES.iter().find(|(_, known)| *known == word).map(|(task, _)| *task)
    }

    /// Reads a file of at most 1 MiB. Errors name the file and the key.
    pub fn read(path: &Path, model_type: &str) -> Result<Self> {
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(Error::unreadable(path))?;
        let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::input("the adapter configuration is too large")
                .file(path)
                .expected(format!("at most {MAX_BYTES} bytes"))
                .into());
        }
        read.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Error::input("not UTF-8 text").file(path).into(),
            _ => Error::io(path)(error),
        })?;
        Self::parse(&text, model_type).map_err(|error| error.file(path).into())
    }

    /// `model_type` decides the targets where the file leaves them to PEFT.
    pub fn parse(text: &str, model_type: &str) -> Result<Self, InputError> {
        let mut fields = Fields::parse(text)?;
        let form = form::find(&fields.take("peft_type").unwrap_or_default())?;
        for (key, what) in UNSUPPORTED {
            if let Some(value) = fields.take(key).filter(is_active) {
                return Err(InputError::new(format!("asks for {what}, which this program does not have"))
                    .key(key)
                    .found(brief(&value)));
            }
        }
        let mut warnings = Vec::new();
        let mut scope = form::scope(&mut fields, model_type)?;
        if stacked::targets(&mut fields, model_type, &mut scope.targets)? {
            warnings.push("adapters on stacked experts become adapters of each expert; gate and up train apart".into());
        }
        let adapter = (form.read)(&mut fields, scope, &mut warnings)?;
        let base_model_name_or_path = fields.string("base_model_name_or_path")?.unwrap_or_default();
        let task_type = fields.string("task_type")?;
        INERT.iter().for_each(|key| drop(fields.take(key)));
        warnings.extend(unknown(fields.rest())?);
        let base_model_name_or_path = printable(&base_model_name_or_path, 1024);
        Ok(Self { adapter, base_model_name_or_path, task_type, warnings })
    }

    /// The file's object; `all-linear` is spelled out as the paths it stands for, as PEFT does.
    pub fn to_json(&self, modules: &[Module]) -> Value {
        let mut object = form::write(&self.adapter, modules);
        object.insert("base_model_name_or_path".into(), json!(self.base_model_name_or_path));
        object.insert("task_type".into(), json!(self.task_type));
        Value::Object(object)
    }
}

/// PEFT's words for tasks.
const TASK_TYPES: [(Task, &str); 6] = [
    (Task::CausalLm, "CAUSAL_LM"),
    (Task::SeqCls, "SEQ_CLS"),
    (Task::TokenCls, "TOKEN_CLS"),
    (Task::QuestionAns, "QUESTION_ANS"),
    (Task::Seq2seqLm, "SEQ_2_SEQ_LM"),
    (Task::FeatureExtraction, "FEATURE_EXTRACTION"),
];

/// Keys newer than this reader.
fn unknown(rest: Map<String, Value>) -> Result<Option<String>, InputError> {
    let switches = |key: &str| key.starts_with("use_") || key.ends_with("_config");
    if let Some((key, value)) = rest.iter().find(|(key, value)| switches(key) && is_active(value)) {
        return Err(InputError::new("unknown switch, which may change what the adapter computes")
            .key(printable(key, 80))
            .found(brief(value)));
    }
    let names: Vec<_> = rest.keys().map(|key| printable(key, 80)).take(10).collect();
    Ok((!rest.is_empty()).then(|| format!("{} unknown keys passed over: {}", rest.len(), names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::{BiasMode, LoraConfig, LoraInit, Targets};

    fn parse(fields: Value) -> Result<PeftConfig, InputError> {
        let mut config = json!({ "peft_type": "LORA", "r": 4, "target_modules": ["q_proj"] });
        for (key, value) in fields.as_object().unwrap() {
            config[key] = value.clone();
        }
        PeftConfig::parse(&config.to_string(), "llama")
    }

    #[test]
    fn leaves_to_peft_what_the_file_leaves_out() {
        let config = PeftConfig::parse(r#"{"peft_type": "LORA"}"#, "qwen2").unwrap();
        assert_eq!((config.adapter.shared().unwrap().rank, config.adapter.shared().unwrap().alpha), (8, 8.0));
        assert_eq!(config.adapter.shared().unwrap().targets, Targets::Names(vec!["q_proj".into(), "v_proj".into()]));
        assert!(PeftConfig::parse(r#"{"peft_type": "LORA"}"#, "unheard-of").is_err());
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_key() {
        let ranks = [json!(0), json!(-1), json!(1u64 << 31), json!(1e9), json!(8.5), json!("8"), Value::Null];
        for rank in ranks {
            assert_eq!(parse(json!({ "r": rank })).unwrap_err().place, Some(("key", "r".into())), "{rank}");
        }
        let wrong = [
            ("rank_pattern", json!({ "q_proj": 0 })),
            ("rank_pattern", json!({ "q_proj": [true] })),
            ("lora_alpha", json!("16")),
            ("lora_dropout", json!(1.0)),
            ("target_modules", json!([1])),
            ("layers_to_transform", json!([-1])),
            ("bias", json!("some")),
            ("use_rslora", json!(1)),
            ("init_lora_weights", json!("magic")),
            ("base_model_name_or_path", json!({})),
        ];
        for (key, value) in wrong {
            assert_eq!(parse(json!({ key: value })).unwrap_err().place, Some(("key", key.into())));
        }
    }

    #[test]
    fn what_changes_the_result_is_refused_by_name() {
        for (key, _) in UNSUPPORTED {
            assert_eq!(parse(json!({ key: true })).unwrap_err().place, Some(("key", key.into())));
            assert!(parse(json!({ key: false })).unwrap().warnings.is_empty());
        }
        for init in ["pissa", "pissa_niter_16", "olora", "loftq", "corda", "lora_ga"] {
            assert!(parse(json!({ "init_lora_weights": init })).unwrap_err().what.contains("changed base"), "{init}");
        }
        for (peft_type, key) in [(json!("DORA"), "peft_type"), (Value::Null, "peft_type")] {
            assert_eq!(parse(json!({ "peft_type": peft_type })).unwrap_err().place, Some(("key", key.into())));
        }
        assert!(parse(json!({ "use_novelty": true })).unwrap_err().what.contains("unknown switch"));
    }

    #[test]
    fn odd_but_harmless_fields_are_counted() {
        let config =
            parse(json!({ "lora_alpha": 0, "novelty": 3, "use_novelty": false, "auto_mapping": { "a": "os" } }));
        let warnings = config.unwrap().warnings;
        assert_eq!(
            warnings,
            ["lora_alpha 0 switches the adapter off", "2 unknown keys passed over: novelty, use_novelty"]
        );
        assert!(parse(json!({ "lora_alpha": -8 })).unwrap().warnings[0].contains("subtracts"));
    }

    #[test]
    fn a_hostile_path_cannot_steer_the_terminal() {
        let path = format!("\u{1b}[31m../{}\0", "x".repeat(1 << 16));
        let shown = parse(json!({ "base_model_name_or_path": path })).unwrap().base_model_name_or_path;
        assert!(shown.starts_with("[31m../xx") && shown.len() == 1024);
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter_config.json");
        for text in
            ["[".repeat(100_000), format!("{{\"a\": \"{}\"}}", "x".repeat(1 << 20)), "\u{feff}".into(), "".into()]
        {
            std::fs::write(&path, text).unwrap();
            let error = PeftConfig::read(&path, "llama").unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("adapter_config.json"), "{error}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        let lora = LoraConfig {
            init: LoraInit::Gaussian,
            bias: BiasMode::LoraOnly,
            exclude: Targets::Pattern(".*k_proj".into()),
            targets: Targets::Names(vec!["q_proj".into()]),
            layers: vec![0, 2],
            layers_pattern: vec!["layers".into()],
            rank_pattern: [("b".to_string(), 3), ("a".to_string(), 2)].into(),
            modules_to_save: vec!["lm_head".into()],
            ..LoraConfig::default()
        };
        // Not every reader of JSON gives the second alpha back as it was.
        for alpha in [2.5, 16.0 * 2f64.sqrt()] {
            let config = PeftConfig::new(LoraConfig { alpha, ..lora.clone() }, "some/base");
            let text = config.to_json(&[]).to_string();
            assert_eq!(PeftConfig::parse(&text, "llama").unwrap(), config);
        }
    }

    #[test]
    fn tasks_go_by_the_names_of_peft() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tasks/t5/seq2seq_relu_tied/adapters/lora_default");
        let read = PeftConfig::read(&Path::new(path).join("adapter_config.json"), "t5").unwrap();
        let written = PeftConfig::new(read.adapter.clone(), "./base").for_task(Task::Seq2seqLm);
        assert_eq!((written.to_json(&[])["task_type"].as_str(), &written), (Some("SEQ_2_SEQ_LM"), &read));
    }
}
