//! Reference numbers of `tests/golden/metrics`; each file says in `how` which package they are from.

use serde_json::Value;

/// The objects of one list of a file, each with its name.
pub fn cases(file: &str, list: &str) -> Vec<(String, Value)> {
    let file: Value = serde_json::from_str(file).unwrap();
    let cases = file[list].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases.into_iter().map(|case| (case["name"].as_str().unwrap_or(list).to_string(), case)).collect()
}

pub fn of<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// Within 1e-9, relative; `null` in the file is not a number.
#[track_caller]
pub fn assert_close(found: f64, expected: &Value, what: &str) {
    match expected.as_f64() {
        Some(expected) => assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{what}: {found} != {expected}"),
        None => assert!(expected.is_null() && found.is_nan(), "{what}: {found} != {expected}"),
    }
}
