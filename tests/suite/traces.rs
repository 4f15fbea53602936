//! Losses of twenty steps of every row of the conformance matrix: `tests/golden/traces.json`, written by burn-flex.
//!
//! Where PEFT has the method, other tests hold its traces against PEFT's. This file holds the backends against each other, and
//! today's arithmetic against yesterday's: `LOWRANK_WRITE_TRACES=1 cargo test --test main conformance` writes it anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::golden::e2e;

fn file() -> PathBuf {
    e2e("..").join("traces.json")
}

/// What `name` gave; `found` itself where the file is being written.
pub fn known(name: &str, found: &[f64]) -> Vec<f64> {
    let text = std::fs::read_to_string(file()).unwrap_or_else(|_| "{}".into());
    let mut traces: BTreeMap<String, Vec<f64>> = serde_json::from_str(&text).unwrap();
    if std::env::var_os("LOWRANK_WRITE_TRACES").is_some() {
        traces.insert(name.into(), found.to_vec());
        std::fs::write(file(), format!("{}\n", serde_json::to_string_pretty(&traces).unwrap())).unwrap();
    }
    traces.remove(name).unwrap_or_else(|| panic!("no trace of `{name}` in {}", file().display()))
}
