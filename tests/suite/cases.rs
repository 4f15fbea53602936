//! The methods of the conformance matrix, each with its defaults and with what changes its arithmetic.

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

const fn case(method: &'static str, keys: &'static str) -> Case {
    Case { method, keys, except: &[] }
}

pub const CASES: &[Case] = &[
    case("lora", "{}"),
    case("lora", r#"{"rslora": true}"#),
    case("lora", r#"{"init": "gaussian"}"#),
    Case { except: &[("identity", "both factors start away from zero")], ..case("lora", r#"{"init": "orthogonal"}"#) },
    Case {
        except: &[("peft", "a saved embedding is read back without the frozen table beside it")],
        ..case("lora", r#"{"targets": ["embed_tokens", "q_proj"]}"#)
    },
];
