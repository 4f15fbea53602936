//! Keys and values that the recipe format keeps for methods this version does not have, so that a
//! recipe from a later version is refused for what it is and not as a typo.

/// `path.to.key`, or `path.to.key=value` for a value of a key that exists.
const RESERVED: [&str; 1] = ["task=reward"];

pub(super) fn key(path: &str) -> bool {
    RESERVED.contains(&path)
}

pub(super) fn value(path: &str, value: &str) -> bool {
    RESERVED.iter().any(|entry| entry.split_once('=') == Some((path, value))) || key(&format!("{path}.{value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_keys_and_values() {
        assert!(!key("adapter.lora"));
        assert!(value("task", "reward") && !value("adapter.lora.init", "gaussian"));
    }
}
