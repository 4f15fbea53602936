//! `adapter_config.json` of a LoRA adapter, as PEFT 0.21 reads and writes it.
//!
//! A key that changes what the adapter computes, and that we do not compute, is an error naming
//! it. A key that only steered training or says where the file came from is passed over. Unknown
//! keys are newer than this reader: an error if they turn something on, else a warning.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::fields::{self, Fields, brief, is_active, printable};
use crate::adapters::{BiasMode, LoraConfig, LoraInit, MAX_RANK, Module, Targets, linear_paths};
use crate::error::InputError;
use crate::{Error, Result};

/// Largest `adapter_config.json` that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// The PEFT version whose format is written.
const PEFT_VERSION: &str = "0.21.2";

/// Keys that would change the result, and what they ask for.
const UNSUPPORTED: [(&str, &str); 15] = [
    ("use_dora", "DoRA's magnitude vectors"),
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
    ("target_parameters", "adapters on bare parameters"),
    ("ensure_weight_tying", "tied adapters"),
    ("fan_in_fan_out", "weights stored as [in, out]"),
    ("megatron_config", "Megatron's parallel layers"),
];

/// Keys that change nothing once an adapter is trained.
const INERT: [&str; 11] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
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
    pub lora: LoraConfig,
    /// Only shown, never opened; free of control characters.
    pub base_model_name_or_path: String,
    pub task_type: Option<String>,
    /// What was passed over or looks odd, one sentence each.
    pub warnings: Vec<String>,
}

impl PeftConfig {
    /// A causal language model's adapter over `base`.
    pub fn new(lora: LoraConfig, base: impl Into<String>) -> Self {
        let task_type = Some("CAUSAL_LM".into());
        Self { lora, base_model_name_or_path: base.into(), task_type, warnings: Vec::new() }
    }

    /// Reads a file of at most 1 MiB. Errors name the file and the key.
    pub fn read(path: &Path, model_type: &str) -> Result<Self> {
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
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
        let peft_type = fields.take("peft_type").unwrap_or_default();
        if peft_type != "LORA" {
            return Err(InputError::new("not a LoRA adapter")
                .key("peft_type")
                .found(brief(&peft_type))
                .expected("LORA"));
        }
        for (key, what) in UNSUPPORTED {
            if let Some(value) = fields.take(key).filter(is_active) {
                return Err(InputError::new(format!("asks for {what}, which this program does not have"))
                    .key(key)
                    .found(brief(&value)));
            }
        }
        let mut warnings = Vec::new();
        let lora = lora(&mut fields, model_type, &mut warnings)?;
        let base_model_name_or_path = fields.string("base_model_name_or_path")?.unwrap_or_default();
        let task_type = fields.string("task_type")?;
        INERT.iter().for_each(|key| drop(fields.take(key)));
        warnings.extend(unknown(fields.rest())?);
        let base_model_name_or_path = printable(&base_model_name_or_path, 1024);
        Ok(Self { lora, base_model_name_or_path, task_type, warnings })
    }

    /// The file's object; `all-linear` is spelled out as the paths it stands for, as PEFT does.
    pub fn to_json(&self, modules: &[Module]) -> Value {
        let lora = &self.lora;
        let targets = if lora.targets.is_all_linear() { json!(linear_paths(modules)) } else { json!(lora.targets) };
        let or_null = |empty: bool, value: Value| if empty { Value::Null } else { value };
        json!({
            "alpha_pattern": lora.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), whole(*alpha))).collect::<Map<_, _>>(),
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model_name_or_path,
            "bias": lora.bias,
            "exclude_modules": or_null(lora.exclude == Targets::Names(Vec::new()), json!(lora.exclude)),
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": match lora.init {
                LoraInit::Default => json!(true),
                LoraInit::Gaussian | LoraInit::Orthogonal => json!(lora.init),
            },
            "layers_pattern": or_null(lora.layers_pattern.is_empty(), json!(lora.layers_pattern)),
            "layers_to_transform": or_null(lora.layers.is_empty(), json!(lora.layers)),
            "lora_alpha": whole(lora.alpha),
            "lora_bias": false,
            "lora_dropout": lora.dropout,
            "modules_to_save": or_null(lora.modules_to_save.is_empty(), json!(lora.modules_to_save)),
            "peft_type": "LORA",
            "peft_version": PEFT_VERSION,
            "r": lora.rank,
            "rank_pattern": lora.rank_pattern,
            "revision": null,
            "target_modules": targets,
            "task_type": self.task_type,
            "use_dora": false,
            "use_rslora": lora.rslora,
        })
    }
}

fn lora(fields: &mut Fields, model_type: &str, warnings: &mut Vec<String>) -> Result<LoraConfig, InputError> {
    let targets = match fields.modules("target_modules")? {
        Some(targets) => targets,
        None => default_targets(model_type)?,
    };
    let lora = LoraConfig {
        rank: fields.take_raw("r").map_or(Ok(8), |value| rank("r", value))?,
        alpha: fields.number("lora_alpha", 8.0)?,
        dropout: fields.number("lora_dropout", 0.0)?,
        rslora: fields.boolean("use_rslora")?,
        init: init(fields.take("init_lora_weights").unwrap_or(Value::Bool(true)))?,
        targets,
        exclude: fields.modules("exclude_modules")?.unwrap_or(Targets::Names(Vec::new())),
        layers: fields.indices("layers_to_transform")?,
        layers_pattern: fields.names("layers_pattern")?,
        rank_pattern: fields.table("rank_pattern", rank)?,
        alpha_pattern: fields.table("alpha_pattern", fields::number)?,
        bias: bias(fields.string("bias")?)?,
        modules_to_save: fields.names("modules_to_save")?,
    };
    if !(0.0..1.0).contains(&lora.dropout) {
        return Err(InputError::new("dropout is a probability")
            .key("lora_dropout")
            .found(lora.dropout)
            .expected("0 to 1"));
    }
    for alpha in std::iter::once(&lora.alpha).chain(lora.alpha_pattern.values()) {
        if *alpha <= 0.0 {
            let effect = if *alpha == 0.0 { "switches the adapter off" } else { "subtracts the adapter" };
            warnings.push(format!("lora_alpha {alpha} {effect}"));
        }
    }
    Ok(lora)
}

fn rank(key: &str, value: Value) -> Result<usize, InputError> {
    let found = brief(&value);
    let rank = fields::index(key, value).unwrap_or(0);
    if (1..=MAX_RANK).contains(&rank) {
        return Ok(rank);
    }
    Err(InputError::new("not a usable rank")
        .key(key)
        .found(found)
        .expected(format!("a whole number from 1 to {MAX_RANK}")))
}

fn bias(name: Option<String>) -> Result<BiasMode, InputError> {
    match name.as_deref() {
        None | Some("none") => Ok(BiasMode::None),
        Some("all") => Ok(BiasMode::All),
        Some("lora_only") => Ok(BiasMode::LoraOnly),
        Some(other) => Err(InputError::new("unknown bias mode")
            .key("bias")
            .found(printable(other, 80))
            .expected("none, all or lora_only")),
    }
}

/// How a trained adapter was started matters only where the start changed the base as well.
fn init(value: Value) -> Result<LoraInit, InputError> {
    let name = match &value {
        Value::Bool(_) => return Ok(LoraInit::Default),
        Value::String(name) => name.to_ascii_lowercase(),
        _ => String::new(),
    };
    match name.as_str() {
        "gaussian" => Ok(LoraInit::Gaussian),
        "orthogonal" => Ok(LoraInit::Orthogonal),
        "true" | "eva" | "mica" => Ok(LoraInit::Default),
        _ if ["pissa", "olora", "corda", "lora_ga", "loftq"].iter().any(|changing| name.starts_with(changing)) => Err(
            InputError::new("the adapter belongs to the changed base that this start left behind, not to the original")
                .key("init_lora_weights")
                .found(brief(&value))
                .hint("convert it in PEFT with `save_pretrained(..., path_initial_model_for_weight_conversion=...)`"),
        ),
        _ => Err(InputError::new("unknown start of the adapter").key("init_lora_weights").found(brief(&value))),
    }
}

/// PEFT's targets for files that name none.
fn default_targets(model_type: &str) -> Result<Targets, InputError> {
    let names: &[&str] = match model_type {
        "llama" | "mistral" | "qwen2" | "gemma" => &["q_proj", "v_proj"],
        other => {
            return Err(InputError::new("the adapter names no target modules, and there is no default for this model")
                .key("target_modules")
                .found(format!("model_type {}", printable(other, 80))));
        }
    };
    Ok(Targets::Names(names.iter().map(ToString::to_string).collect()))
}

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

/// PEFT's alphas are integers where they can be.
fn whole(alpha: f64) -> Value {
    if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!((config.lora.rank, config.lora.alpha), (8, 8.0));
        assert_eq!(config.lora.targets, Targets::Names(vec!["q_proj".into(), "v_proj".into()]));
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
            alpha: 2.5,
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
        let config = PeftConfig::new(lora, "some/base");
        let text = config.to_json(&[]).to_string();
        assert_eq!(PeftConfig::parse(&text, "llama").unwrap(), config);
    }
}
