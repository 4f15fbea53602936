//! In which keys the recipes of variants differ.

use std::collections::BTreeMap;

use serde_json::Value;

use super::group::Group;

/// A key that not all variants have with one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `adapter.lora.rank`
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
    rows.filter(|row| row.values.windows(2).any(|pair| pair[0] != pair[1])).collect()
}

fn leaves(plan: &Value) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    collect("", plan, &mut leaves);
    leaves
}

fn collect(key: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect(&key, value, leaves);
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
            group("a", json!({"seed": 0, "adapter": {"lora": {"rank": 8}}, "optim": {"clip": 1.0}})),
            group("b", json!({"seed": 1, "adapter": {"lora": {"rank": 2}}, "optim": {"clip": 1.0}, "x": null})),
            group("c", json!({"seed": 0, "adapter": {"none": {}}, "optim": {"clip": 1.0}})),
        ];
        let rows = differences(&groups);
        let row = |key: &str, values: [Option<&str>; 3]| Difference {
            key: key.into(),
            values: values.map(|value| value.map(String::from)).into(),
        };
        assert_eq!(
            rows,
            [row("adapter.lora.rank", [Some("8"), Some("2"), None]), row("adapter.none", [None, None, Some("{}")]),]
        );
    }
}
