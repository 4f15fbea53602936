//! In which keys the recipes of variants differ.

use std::collections::BTreeMap;

use serde_json::Value;

use super::group::Group;

/// A key that not all variants have with one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `adapter` for the method, `adapter.rank` for a key of its table, `train.batch`.
    pub key: String,
    /// As TOML would have it, in the order of the variants; none where the variant's recipe lacks the key.
    pub values: Vec<Option<String>>,
}

/// Keys that differ, sorted. The seed does not count: it tells runs of one variant apart.
pub fn differences(groups: &[Group]) -> Vec<Difference> {
    let flat: Vec<_> = groups.iter().map(|group| group.plan().map(leaves).unwrap_or_default()).collect();
    let mut keys: Vec<_> = flat.iter().flat_map(BTreeMap::keys).filter(|key| *key != "seed").collect();
    keys.sort();
    keys.dedup();
    let values = |key: &String| flat.iter().map(|plan| plan.get(key).cloned()).collect::<Vec<_>>();
    let rows = keys.into_iter().map(|key| Difference { key: key.clone(), values: values(key) });
    rows.filter(|row| row.values.windows(2).any(|pair| pair[0] != pair[1]) && !is_of_methods(row, &flat)).collect()
}

/// Whether a key is missing only where the method does not have it, and has one value in all methods that do.
fn is_of_methods(row: &Difference, plans: &[BTreeMap<String, String>]) -> bool {
    if !row.key.starts_with("adapter.") {
        return false;
    }
    let of = plans.iter().zip(&row.values).filter_map(|(plan, value)| Some((plan.get("adapter")?, value.as_ref()?)));
    let (mut methods, mut values): (Vec<_>, Vec<_>) = of.unzip();
    methods.sort();
    methods.dedup();
    values.dedup();
    methods.len() > 1 && values.len() == 1
}

fn leaves(plan: &Value) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    for (name, value) in plan.as_object().into_iter().flatten() {
        // One table of many: its name is the value that differs, and methods share most of its keys.
        match value.as_object().filter(|_| name == "adapter").and_then(|table| table.iter().next()) {
            Some((method, keys)) => {
                leaves.insert(name.clone(), method.clone());
                if keys.as_object().is_some_and(|keys| !keys.is_empty()) {
                    collect(name, keys, &mut leaves);
                }
            }
            None => collect(name, value, &mut leaves),
        }
    }
    leaves
}

fn collect(key: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (name, value) in table {
                collect(&format!("{key}.{name}"), value, leaves);
            }
        }
        Value::Null => {}
        leaf => _ = leaves.insert(key.into(), leaf.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::group;
    use serde_json::json;

    #[test]
    fn keys_that_differ_are_listed_with_what_each_variant_has() {
        let groups = [
            group("a", json!({"seed": 0, "adapter": {"lora": {"rank": 8, "bias": "none"}}, "optim": {"clip": 1.0}})),
            group(
                "b",
                json!({"seed": 1, "adapter": {"dora": {"rank": 2, "bias": "none"}}, "optim": {"clip": 1.0}, "x": null}),
            ),
            group("c", json!({"seed": 0, "adapter": {"none": {}}, "optim": {"clip": 1.0, "ratio": 4}})),
        ];
        let rows = differences(&groups);
        let row = |key: &str, values: [Option<&str>; 3]| Difference {
            key: key.into(),
            values: values.map(|value| value.map(String::from)).into(),
        };
        assert_eq!(
            rows,
            [
                row("adapter", [Some("lora"), Some("dora"), Some("none")]),
                row("adapter.rank", [Some("8"), Some("2"), None]),
                row("optim.ratio", [None, None, Some("4")]),
            ]
        );
    }
}
