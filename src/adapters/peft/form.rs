//! The kinds of adapter that PEFT's configuration knows (`peft_type`), each as one of our methods.

use serde_json::{Map, Value, json};

use super::adalora;
use super::fields::{self, Fields, brief, printable};
use crate::adapters::{
    AdapterConfig, BiasMode, DoraConfig, LoraConfig, LoraInit, MAX_RANK, Module, Shared, Targets, VeraConfig,
    linear_paths,
};
use crate::error::InputError;
use crate::models::families::ModelType;

/// The PEFT version whose format is written.
const PEFT_VERSION: &str = "0.21.2";

/// One `peft_type`.
pub(super) struct Form {
    peft_type: &'static str,
    /// From the keys of its own; `Shared` holds those that every form has.
    pub read: fn(&mut Fields, Shared, &mut Vec<String>) -> Result<AdapterConfig, InputError>,
    /// The keys of its own, if the method is saved in this form.
    write: fn(&AdapterConfig) -> Option<Map<String, Value>>,
}

const FORMS: [Form; 3] = [
    Form { peft_type: "LORA", read: read_lora, write: write_lora },
    Form { peft_type: "VERA", read: read_vera, write: write_vera },
    Form { peft_type: "ADALORA", read: adalora::read, write: adalora::write },
];

pub(super) fn find(peft_type: &Value) -> Result<&'static Form, InputError> {
    FORMS.iter().find(|form| *peft_type == form.peft_type).ok_or_else(|| {
        let known: Vec<_> = FORMS.iter().map(|form| form.peft_type).collect();
        let error = InputError::new("not a kind of adapter that this program has").key("peft_type");
        error.found(brief(peft_type)).expected(known.join(" or "))
    })
}

/// The file's object without base model and task.
pub(super) fn write(adapter: &AdapterConfig, modules: &[Module]) -> Map<String, Value> {
    let found = FORMS.iter().find_map(|form| Some((form, (form.write)(adapter)?)));
    let mut object = write_scope(&adapter.shared().unwrap_or_default(), modules);
    if let Some((form, own)) = found {
        object.insert("peft_type".into(), json!(form.peft_type));
        object.extend(own);
    }
    object.sort_keys();
    object
}

/// The keys that every form has.
pub(super) fn scope(fields: &mut Fields, model_type: &str) -> Result<Shared, InputError> {
    Ok(Shared {
        targets: match fields.modules("target_modules")? {
            Some(targets) => targets,
            None => default_targets(model_type)?,
        },
        exclude: fields.modules("exclude_modules")?.unwrap_or(Targets::Names(Vec::new())),
        layers: fields.indices("layers_to_transform")?,
        layers_pattern: fields.names("layers_pattern")?,
        bias: bias(fields.string("bias")?)?,
        modules_to_save: fields.names("modules_to_save")?,
        ..Shared::default()
    })
}

fn write_scope(shared: &Shared, modules: &[Module]) -> Map<String, Value> {
    let targets = if shared.targets.is_all_linear() { json!(linear_paths(modules)) } else { json!(shared.targets) };
    let object = json!({
        "auto_mapping": null,
        "bias": shared.bias,
        "fan_in_fan_out": modules.iter().any(|module| module.transposed),
        "inference_mode": true,
        "layers_pattern": or_null(shared.layers_pattern.is_empty(), json!(shared.layers_pattern)),
        "layers_to_transform": or_null(shared.layers.is_empty(), json!(shared.layers)),
        "modules_to_save": or_null(shared.modules_to_save.is_empty(), json!(shared.modules_to_save)),
        "peft_version": PEFT_VERSION,
        "revision": null,
        "target_modules": targets,
    });
    object.as_object().cloned().unwrap_or_default()
}

fn or_null(empty: bool, value: Value) -> Value {
    if empty { Value::Null } else { value }
}

fn read_lora(fields: &mut Fields, scope: Shared, warnings: &mut Vec<String>) -> Result<AdapterConfig, InputError> {
    let shared = Shared {
        rank: fields.take_raw("r").map_or(Ok(8), |value| rank("r", value))?,
        alpha: fields.number("lora_alpha", 8.0)?,
        rslora: fields.boolean("use_rslora")?,
        dropout: dropout(fields, "lora_dropout")?,
        rank_pattern: fields.table("rank_pattern", rank)?,
        alpha_pattern: fields.table("alpha_pattern", fields::number)?,
        ..scope
    };
    let init = init(fields.take("init_lora_weights").unwrap_or(Value::Bool(true)))?;
    for alpha in std::iter::once(&shared.alpha).chain(shared.alpha_pattern.values()) {
        if *alpha <= 0.0 {
            let effect = if *alpha == 0.0 { "switches the adapter off" } else { "subtracts the adapter" };
            warnings.push(format!("lora_alpha {alpha} {effect}"));
        }
    }
    Ok(match fields.boolean("use_dora")? {
        true => DoraConfig { init, ..DoraConfig::default().with(shared) }.into(),
        false => LoraConfig { init, ..LoraConfig::default().with(shared) }.into(),
    })
}

fn write_lora(adapter: &AdapterConfig) -> Option<Map<String, Value>> {
    let (shared, init, use_dora) = match adapter {
        AdapterConfig::Lora(lora) => (lora.shared(), lora.init, false),
        AdapterConfig::Dora(dora) => (dora.shared(), dora.init, true),
        _ => return None,
    };
    let init = match init {
        LoraInit::Default => json!(true),
        other => json!(other),
    };
    let mut object = lora_keys(&shared);
    object.insert("init_lora_weights".into(), init);
    object.insert("use_dora".into(), json!(use_dora));
    Some(object)
}

/// The keys of a product of two factors.
fn lora_keys(shared: &Shared) -> Map<String, Value> {
    let alphas = shared.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), whole(*alpha)));
    let object = json!({
        "alpha_pattern": alphas.collect::<Map<_, _>>(),
        "exclude_modules": or_null(shared.exclude == Targets::Names(Vec::new()), json!(shared.exclude)),
        "lora_alpha": whole(shared.alpha),
        "lora_bias": false,
        "lora_dropout": shared.dropout,
        "r": shared.rank,
        "rank_pattern": shared.rank_pattern,
        "use_rslora": shared.rslora,
    });
    object.as_object().cloned().unwrap_or_default()
}

fn read_vera(fields: &mut Fields, scope: Shared, _: &mut Vec<String>) -> Result<AdapterConfig, InputError> {
    let shared = Shared {
        rank: fields.take_raw("r").map_or(Ok(256), |value| rank("r", value))?,
        dropout: dropout(fields, "vera_dropout")?,
        ..scope
    };
    let (key, save) = (fields.take_raw("projection_prng_key"), fields.take_raw("save_projection"));
    let config = VeraConfig {
        projection_prng_key: key.map_or(Ok(0), |value| prng_key("projection_prng_key", value))?,
        d_initial: fields.number("d_initial", 0.1)?,
        save_projection: save.map_or(Ok(true), |value| fields::boolean("save_projection", value))?,
        ..VeraConfig::default()
    };
    // Where d and b started no longer matters.
    fields.boolean("init_weights")?;
    Ok(config.with(shared).into())
}

fn write_vera(adapter: &AdapterConfig) -> Option<Map<String, Value>> {
    let AdapterConfig::Vera(vera) = adapter else { return None };
    let bias = if vera.bias == BiasMode::LoraOnly { json!("vera_only") } else { json!(vera.bias) };
    let object = json!({
        "bias": bias,
        "d_initial": vera.d_initial,
        "init_weights": true,
        "projection_prng_key": vera.projection_prng_key,
        "r": vera.rank,
        "save_projection": vera.save_projection,
        "vera_dropout": vera.dropout,
    });
    object.as_object().cloned()
}

/// PyTorch takes larger keys and uses their low 32 bits; PEFT's documentation knows none.
fn prng_key(key: &str, value: Value) -> Result<u64, InputError> {
    value.as_u64().filter(|number| *number <= u32::MAX.into()).ok_or_else(|| {
        InputError::new("not a key that the projections can be drawn from")
            .key(key)
            .found(brief(&value))
            .expected(format!("a whole number from 0 to {}", u32::MAX))
    })
}

pub(super) fn dropout(fields: &mut Fields, key: &str) -> Result<f64, InputError> {
    let p = fields.number(key, 0.0)?;
    if (0.0..1.0).contains(&p) {
        return Ok(p);
    }
    Err(InputError::new("dropout is a probability").key(key).found(p).expected("0 to 1"))
}

pub(super) fn rank(key: &str, value: Value) -> Result<usize, InputError> {
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
        Some("lora_only" | "vera_only") => Ok(BiasMode::LoraOnly),
        Some(other) => Err(InputError::new("unknown bias mode")
            .key("bias")
            .found(printable(other, 80))
            .expected("none, all, lora_only or vera_only")),
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
    let names = ModelType::find(model_type).map_or(&[][..], |row| row.default_targets);
    if names.is_empty() {
        return Err(InputError::new("the adapter names no target modules, and there is no default for this model")
            .key("target_modules")
            .found(format!("model_type {}", printable(model_type, 80))));
    }
    Ok(Targets::Names(names.iter().map(ToString::to_string).collect()))
}

/// PEFT's alphas are integers where they can be.
pub(super) fn whole(alpha: f64) -> Value {
    if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) }
}
