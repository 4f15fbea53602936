//! The rows of the conformance matrix: every method with its defaults, and with what changes its arithmetic.

use lowrank::adapters::METHODS;
use lowrank::recipe::{BaseStorage, Blocks, Quant};

#[derive(Clone, Copy)]
pub struct Case {
    /// The recipe's table `[adapter.METHOD]`, and its keys as JSON.
    pub method: &'static str,
    pub keys: &'static str,
    pub base: Base,
    /// Properties that do not hold, and why.
    pub except: &'static [(&'static str, &'static str)],
}

/// How the base is stored.
#[derive(Clone, Copy, PartialEq)]
pub enum Base {
    Dense,
    /// NF4 in blocks of 64, scales nested.
    Nf4,
}

impl Base {
    pub const ALL: [Base; 2] = [Base::Dense, Base::Nf4];

    pub fn storage(self) -> BaseStorage {
        let quant = (self == Base::Nf4).then(|| Quant::Nf4(Blocks::default()));
        BaseStorage { quant, ..BaseStorage::default() }
    }
}

impl Case {
    pub fn name(&self) -> String {
        let keys = self.keys.trim_matches(['{', '}', ' ']).replace('"', "").replace(": ", "=");
        let base = if self.base == Base::Nf4 { "nf4 " } else { "" };
        format!("{base}{} {keys}", self.method).trim_end().to_string()
    }
}

/// Methods that are not listed here are held to everything, with their defaults; over NF4 each method is, as it is first listed.
pub fn cases() -> Vec<Case> {
    let unlisted = METHODS.iter().filter(|method| CASES.iter().all(|case| case.method != method.name));
    let dense: Vec<Case> = CASES.iter().copied().chain(unlisted.map(|method| case(method.name, "{}"))).collect();
    let first = |method: &str| dense.iter().copied().find(|case| case.method == method);
    let mut methods: Vec<&str> = dense.iter().map(|case| case.method).collect();
    methods.dedup();
    let nf4: Vec<Case> =
        methods.iter().filter_map(|method| first(method)).map(|case| Case { base: Base::Nf4, ..case }).collect();
    dense.into_iter().chain(nf4).collect()
}

const fn case(method: &'static str, keys: &'static str) -> Case {
    Case { method, keys, base: Base::Dense, except: &[] }
}

const DETACHED: (&str, &str) =
    ("gradient", "the lengths of rows are constants going back, so it is not that of the loss");

const MOVED: (&str, &str) =
    ("gradient", "the weight moves along with the product, and the gradient of that part is left out");

const COMPENSATES: (&str, &str) = ("identity", "it starts closer to the unquantised weights than its base is");

const NOWHERE_ELSE: (&str, &str) = ("trace", "an unquantised base leaves it nothing to start from");

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
    Case { base: Base::Nf4, except: &[COMPENSATES, NOWHERE_ELSE], ..case("lora", r#"{"init": "loftq"}"#) },
    Case {
        base: Base::Nf4,
        except: &[COMPENSATES, NOWHERE_ELSE],
        ..case("lora", r#"{"init": "loftq_iter_3", "rslora": true, "alpha": 4}"#)
    },
    Case { base: Base::Nf4, ..case("lora", r#"{"init": "pissa"}"#) },
    Case { base: Base::Nf4, ..case("lora", r#"{"init": "olora"}"#) },
    Case { except: &[DETACHED], ..case("dora", "{}") },
    Case { except: &[DETACHED], ..case("dora", r#"{"init": "pissa", "rslora": true}"#) },
    Case {
        base: Base::Nf4,
        except: &[DETACHED, COMPENSATES, NOWHERE_ELSE],
        ..case("dora", r#"{"init": "loftq_iter_2"}"#)
    },
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
