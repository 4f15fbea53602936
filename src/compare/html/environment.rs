//! On what the runs ran: versions, devices, commands, hashes.

use indexmap::IndexMap;

use super::table;
use crate::compare::figure::escape;
use crate::compare::group::Group;
use crate::compare::history::Run;

/// Each fact once where all runs agree; else each of its values with the runs that have it.
pub fn environment(groups: &[Group]) -> String {
    let runs: Vec<_> = groups.iter().flat_map(|group| &group.runs).collect();
    // Fact → value → runs.
    let mut facts: IndexMap<String, IndexMap<String, Vec<String>>> = IndexMap::new();
    for run in &runs {
        for (name, value) in of(run) {
            let whose = format!("{} {}", run.variant, run.seed);
            facts.entry(name).or_default().entry(value).or_default().push(whose);
        }
    }
    let cell = |value: &String, whose: &Vec<String>| {
        let value = format!("<code>{}</code>", escape(value));
        if whose.len() == runs.len() { value } else { format!("{value} <small>{}</small>", escape(&whose.join(", "))) }
    };
    let row = |(name, values): (&String, &IndexMap<String, Vec<String>>)| {
        vec![escape(name), values.iter().map(|(value, whose)| cell(value, whose)).collect::<Vec<_>>().join("<br>")]
    };
    let rows: Vec<_> = facts.iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    table(&["fact".into(), "value".into()], &rows, "environment")
}

fn of(run: &Run) -> Vec<(String, String)> {
    let Some(start) = &run.start else { return Vec::new() };
    let versions = start.versions.iter().map(|(name, version)| (format!("version of {name}"), version.clone()));
    let hashes = start.hashes.iter().map(|(name, hash)| (format!("sha256 of {name}"), hash.clone()));
    let rest = [("device".to_string(), start.device.clone()), ("command".into(), start.command.join(" "))];
    versions.chain(rest).chain(hashes).collect()
}
