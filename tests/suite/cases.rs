//! The rows of the conformance matrix: every method with its defaults, and with what changes its arithmetic.

use lowrank::adapters::METHODS;

#[derive(Clone, Copy)]
pub struct Case {
    /// The recipe's table `[adapter.METHOD]`, and its keys as JSON.
    pub method: &'static str,
    pub keys: &'static str,
    /// Properties that do not hold, and why.
    pub except: &'static [(&'static str, &'static str)],
}

impl Case {
    pub fn name(&self) -> String {
        let keys = self.keys.trim_matches(['{', '}', ' ']).replace('"', "").replace(": ", "=");
        format!("{} {keys}", self.method).trim_end().to_string()
    }
}

/// Methods that are not listed here are held to everything, with their defaults.
pub fn cases() -> Vec<Case> {
    let unlisted = METHODS.iter().filter(|method| CASES.iter().all(|case| case.method != method.name));
    CASES.iter().copied().chain(unlisted.map(|method| case(method.name, "{}"))).collect()
}

const fn case(method: &'static str, keys: &'static str) -> Case {
    Case { method, keys, except: &[] }
}

const DETACHED: (&str, &str) =
    ("gradient", "the lengths of rows are constants going back, so it is not that of the loss");

const MOVED: (&str, &str) =
    ("gradient", "the weight moves along with the product, and the gradient of that part is left out");

const CASES: &[Case] = &[
    case("lora", "{}"),
    case("lora", r#"{"rslora": true}"#),
    case("lora", r#"{"init": "gaussian"}"#),
    Case { except: &[("identity", "both factors start away from zero")], ..case("lora", r#"{"init": "orthogonal"}"#) },
    Case {
        except: &[("peft", "a saved embedding is read back without the frozen table beside it")],
        ..case("lora", r#"{"targets": ["embed_tokens", "q_proj"]}"#)
    },
    case("lora", r#"{"init": "pissa"}"#),
    case("lora", r#"{"init": "pissa_niter_2", "rslora": true}"#),
    case("lora", r#"{"init": "olora"}"#),
    Case { except: &[DETACHED], ..case("dora", "{}") },
    Case { except: &[DETACHED], ..case("dora", r#"{"init": "pissa", "rslora": true}"#) },
    Case {
        except: &[DETACHED, ("peft", "a saved embedding is read back without the frozen table beside it")],
        ..case("dora", r#"{"targets": ["embed_tokens", "q_proj"]}"#)
    },
    case("lora_drop", "{}"),
    case("lora_drop", r#"{"keep": ["model.layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj"]}"#),
    case("lora_fa", "{}"),
    case("lora_fa", r#"{"corrected": false, "rslora": true}"#),
    case("vera", "{}"),
    case("vera", r#"{"save_projection": false, "projection_prng_key": 7}"#),
    Case { except: &[MOVED], ..case("delta_lora", r#"{"start_step": 1}"#) },
    case("delta_lora", r#"{"start_step": 1, "lambda": 0}"#),
    case("adalora", "{}"),
    case("adalora", r#"{"init_rank": 4, "target_rank": 1, "final_steps": 3, "warmup_steps": 1}"#),
];
