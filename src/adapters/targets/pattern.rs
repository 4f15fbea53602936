//! Python's `re` as PEFT uses it on module paths, run by a linear-time engine with bounded memory.

use regex::{Regex, RegexBuilder};

use crate::error::InputError;

/// Longest pattern that is compiled, in bytes.
const MAX_PATTERN_BYTES: usize = 4 << 10;
/// Largest compiled pattern, in bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// `re.fullmatch(pattern, path)`
pub(super) fn full(pattern: &str) -> Result<Regex, InputError> {
    compile(pattern, format!(r"\A(?:{pattern})\z"))
}

/// `re.match(r"(.*\.)?(KEY)$", path)`: keys of `rank_pattern` and `alpha_pattern`.
pub(super) fn suffix(key: &str) -> Result<Regex, InputError> {
    compile(key, format!(r"\A(?:(.*\.)?({key})\z)"))
}

/// `re.match(r"(^|.*\.)NAME($|\..*)", path)`: names of `modules_to_save`.
pub(super) fn segment(name: &str) -> Result<Regex, InputError> {
    compile(name, format!(r"\A(?:(^|.*\.){name}(\z|\..*))"))
}

/// The layer index of a path as group `index`: the first numbered segment after any other, or the one
/// after `pattern`.
pub(super) fn layer_index(pattern: Option<&str>) -> Result<Regex, InputError> {
    match pattern {
        None => compile("", r"\A.*?\.[^.]*\.(?<index>[0-9]+)\.".into()),
        Some(pattern) => compile(pattern, format!(r"\A(?:\A|.*?\.)(?:{pattern})\.(?<index>[0-9]+)\.")),
    }
}

/// Compiles `whole`, once the user's part has been seen to be a pattern of its own: `a)|(b` must
/// not escape the group it is put into.
fn compile(part: &str, whole: String) -> Result<Regex, InputError> {
    if part.len() > MAX_PATTERN_BYTES {
        return Err(InputError::new("the regular expression is too long")
            .found(format!("{} bytes", part.len()))
            .expected(format!("at most {MAX_PATTERN_BYTES} bytes")));
    }
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build();
    build(part).and_then(|_| build(&whole)).map_err(|error| refusal(part, &error))
}

fn refusal(pattern: &str, error: &regex::Error) -> InputError {
    let message = error.to_string();
    let what = if message.contains("look-around") {
        "lookaround is not supported in module patterns".to_string()
    } else if message.contains("backreference") {
        "backreferences are not supported in module patterns".to_string()
    } else if matches!(error, regex::Error::CompiledTooBig(_)) {
        "the regular expression is too large to run".to_string()
    } else {
        let reason = message.lines().last().unwrap_or_default();
        format!("not a regular expression ({})", reason.trim_start_matches("error: "))
    };
    InputError::new(what).found(pattern).hint("list the module names instead")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_both_ends_of_every_alternative() {
        let regex = full("q_proj|a|ab").unwrap();
        assert!(regex.is_match("q_proj") && regex.is_match("ab"));
        assert!(!regex.is_match("x.q_proj") && !regex.is_match("abc"));
        let regex = suffix("q_proj|v_proj").unwrap();
        assert!(regex.is_match("v_proj") && regex.is_match("a.b.v_proj"));
        assert!(!regex.is_match("a.xv_proj") && !regex.is_match("v_proj.lora"));
        let regex = segment("head").unwrap();
        assert!(regex.is_match("head") && regex.is_match("m.head.out") && !regex.is_match("m.lm_head"));
    }

    #[test]
    fn refuses_what_the_engine_lacks_by_name() {
        assert!(full("(?=q)q_proj").unwrap_err().what.contains("lookaround"));
        assert!(full(r"(a)\1").unwrap_err().what.contains("backreferences"));
        assert!(full("a)|(b").unwrap_err().what.contains("not a regular expression"));
        assert!(full(&"a".repeat(5000)).unwrap_err().what.contains("too long"));
        assert!(full(r"(\w{500}){500}").unwrap_err().what.contains("too large"));
    }

    #[test]
    fn catastrophic_patterns_run_in_linear_time() {
        assert!(!full("(a+)+$").unwrap().is_match(&format!("{}!", "a".repeat(20_000))));
    }
}
