//! `peft_type` `ADALORA`: LoRA's keys, the schedule, and which triplets are left.

use serde_json::{Map, Value, json};

use super::fields::{self, Fields, is_active, printable, unexpected};
use super::form::{dropout, rank, whole};
use crate::adapters::adalora::Outcome;
use crate::adapters::{AdaLoraConfig, AdapterConfig, Shared};
use crate::error::InputError;

/// Keys of LoRA that PEFT reads into an AdaLoRA adapter and never looks at.
const IGNORED: [&str; 4] = ["alpha_pattern", "init_lora_weights", "r", "use_rslora"];
/// Those of them that someone may have counted on.
const MISLEADING: [&str; 2] = ["alpha_pattern", "use_rslora"];

pub(super) fn read(
    fields: &mut Fields,
    scope: Shared,
    warnings: &mut Vec<String>,
) -> Result<AdapterConfig, InputError> {
    let init_rank = fields.take_raw("init_r").map_or(Ok(12), |value| rank("init_r", value))?;
    let mut whole_number = |key: &str, default| fields.take(key).map_or(Ok(default), |value| fields::index(key, value));
    let target_rank = whole_number("target_r", 8)?;
    let (warmup_steps, final_steps) = (whole_number("tinit", 0)?, whole_number("tfinal", 0)?);
    let (interval, total_steps) = (whole_number("deltaT", 1)?, whole_number("total_step", 0)?);
    let config = AdaLoraConfig {
        init_rank,
        target_rank,
        alpha: fields.number("lora_alpha", 8.0)?,
        warmup_steps,
        final_steps,
        interval,
        beta1: fields.number("beta1", 0.85)?,
        beta2: fields.number("beta2", 0.85)?,
        orth_weight: fields.number("orth_reg_weight", 0.5)?,
        outcome: Outcome { total_steps, rank_pattern: fields.table("rank_pattern", flags)? },
        ..AdaLoraConfig::default()
    };
    config.outcome.rank_pattern.iter().try_for_each(|(name, kept)| check_pattern(name, kept.len(), init_rank))?;
    if config.alpha <= 0.0 {
        warnings.push(format!("lora_alpha {} stands for init_r, {init_rank}", config.alpha));
    }
    if fields.boolean("use_dora")? {
        return Err(InputError::new("AdaLoRA has no DoRA, in PEFT neither").key("use_dora").found("true"));
    }
    for key in IGNORED {
        if fields.take(key).is_some_and(|value| is_active(&value)) && MISLEADING.contains(&key) {
            warnings.push(format!("{key} is passed over, as PEFT does in AdaLoRA"));
        }
    }
    let dropout = dropout(fields, "lora_dropout")?;
    Ok(config.with(Shared { dropout, ..scope }).into())
}

fn check_pattern(name: &str, len: usize, init_rank: usize) -> Result<(), InputError> {
    let problem = |what: &str| InputError::new(format!("{}: {what}", printable(name, 120))).key("rank_pattern");
    if !name.ends_with(".lora_E") {
        return Err(problem("not the name of a module's lora_E").expected("MODULE.lora_E"));
    }
    if len != init_rank {
        return Err(problem("must say of each triplet whether it is left")
            .found(len)
            .expected(format!("init_r = {init_rank}")));
    }
    Ok(())
}

fn flags(key: &str, value: Value) -> Result<Vec<bool>, InputError> {
    let flags = value.as_array().and_then(|items| items.iter().map(Value::as_bool).collect());
    flags.ok_or_else(|| unexpected(key, &value, "a list of true and false"))
}

pub(super) fn write(adapter: &AdapterConfig) -> Option<Map<String, Value>> {
    let AdapterConfig::AdaLora(config) = adapter else { return None };
    let object = json!({
        "alpha_pattern": {},
        "beta1": config.beta1,
        "beta2": config.beta2,
        "deltaT": config.interval,
        "init_lora_weights": true,
        "init_r": config.init_rank,
        "lora_alpha": whole(config.alpha),
        "lora_bias": false,
        "lora_dropout": config.dropout,
        "orth_reg_weight": config.orth_weight,
        // Not looked at; any other value makes PEFT warn of that.
        "r": 8,
        "rank_pattern": config.outcome.rank_pattern,
        "target_r": config.target_rank,
        "tfinal": config.final_steps,
        "tinit": config.warmup_steps,
        "total_step": config.outcome.total_steps,
        "use_dora": false,
        "use_rslora": false,
    });
    object.as_object().cloned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::adapters::modules::tiny;
    use crate::adapters::peft::{self, CONFIG_FILE, PeftConfig, TENSORS_FILE};
    use crate::adapters::{Module, Origin};
    use crate::tensors;

    const NAME: &str = "model.layers.0.self_attn.q_proj.lora_E";

    fn golden() -> String {
        format!("{}/tests/golden/e2e/llama/adapters/adalora", env!("CARGO_MANIFEST_DIR"))
    }

    fn parse(change: Value) -> Result<PeftConfig, InputError> {
        let text = std::fs::read_to_string(Path::new(&golden()).join(CONFIG_FILE)).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        change.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        PeftConfig::parse(&config.to_string(), "llama")
    }

    #[test]
    fn ranks_come_from_the_pattern_and_the_scale_from_init_r() {
        let config = parse(json!({})).unwrap();
        let sites = config.adapter.select(&Module::list(&tiny::llama()), Origin::AdapterFile).unwrap();
        assert!(sites.iter().all(|site| site.rank == 4 && (site.scaling - 4.0 / 6.00001).abs() < 1e-12));
        assert_eq!(sites.len(), 4);
        let config = parse(json!({ "lora_alpha": 0, "use_rslora": true })).unwrap();
        let sites = config.adapter.select(&Module::list(&tiny::llama()), Origin::AdapterFile).unwrap();
        assert!((sites[0].scaling - 6.0 / 6.00001).abs() < 1e-12);
        assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_refused_by_name() {
        for pattern in [
            json!([true]),
            json!({ NAME: [true, false] }),
            json!({ NAME: [1, 0, 1, 0, 1, 0] }),
            json!({ NAME: true }),
            json!({ "model.layers.0.self_attn.q_proj": [true, true, true, true, true, true] }),
        ] {
            let error = parse(json!({ "rank_pattern": pattern })).unwrap_err();
            assert_eq!(error.place, Some(("key", "rank_pattern".into())), "{pattern}");
        }
        let stray = parse(json!({ "rank_pattern": { "a.lora_E": [true, true, true, true, true, true] } })).unwrap();
        let error = stray.adapter.select(&Module::list(&tiny::llama()), Origin::AdapterFile).unwrap_err().to_string();
        assert!(error.contains("rank_pattern") && error.contains("a.lora_E"), "{error}");
        for (key, value) in
            [("init_r", json!(0)), ("init_r", json!(1u64 << 40)), ("tinit", json!(-1)), ("beta1", json!("x"))]
        {
            assert_eq!(parse(json!({ key: value })).unwrap_err().place, Some(("key", key.into())));
        }
    }

    #[test]
    fn a_module_without_triplets_is_read_and_one_with_the_wrong_number_refused() {
        let modules = Module::list(&tiny::llama());
        let (config, mut tensors) = peft::read(Path::new(&golden()), "llama", &modules).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let write = |pattern: [bool; 6], tensors: &peft::AdapterTensors| {
            let AdapterConfig::AdaLora(mut adapter) = config.adapter.clone() else { panic!("{config:?}") };
            adapter.outcome.rank_pattern.insert(NAME.into(), pattern.into());
            let bytes = tensors::encode(tensors).unwrap();
            std::fs::write(dir.path().join(TENSORS_FILE), bytes).unwrap();
            let text = PeftConfig::new(adapter, "base").to_json(&modules).to_string();
            std::fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
            peft::read(dir.path(), "llama", &modules)
        };
        let error = write([true, false, false, false, false, false], &tensors).unwrap_err().to_string();
        assert!(error.contains("q_proj.lora_A") && error.contains("rank_pattern"), "{error}");
        for (part, shape) in [("A", [0, 96]), ("E", [0, 1]), ("B", [96, 0])] {
            let name = format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{part}");
            tensors[&name] = tensors::HostTensor { shape: shape.into(), values: Vec::new() };
        }
        let (config, tensors) = write([false; 6], &tensors).unwrap();
        assert_eq!(config.adapter.select(&modules, Origin::AdapterFile).unwrap()[0].rank, 0);
        assert_eq!(peft::from_file(tensors).len(), 3 * 3);
    }
}
