//! Keys in which the variants' resolved recipes differ.

use super::table;
use crate::compare::difference::{self, Difference};
use crate::compare::figure::escape;
use crate::compare::group::Group;

/// A row for each key, a column for each variant; what is not as in the reference is marked.
pub fn differences(groups: &[Group], reference: usize) -> String {
    let differences = difference::differences(groups);
    if differences.is_empty() {
        return String::new();
    }
    let names = groups.iter().enumerate().map(|(i, group)| {
        let role = if i == reference { " (reference)" } else { "" };
        escape(&group.name) + role
    });
    let head: Vec<_> = ["key".to_string()].into_iter().chain(names).collect();
    let rows: Vec<_> = differences.iter().map(|row| cells(row, reference)).collect();
    table(&head, &rows, "recipes")
}

fn cells(Difference { key, values }: &Difference, reference: usize) -> Vec<String> {
    let cell = |value: &Option<String>| {
        let text = value.as_ref().map_or_else(|| "–".into(), |value| format!("<code>{}</code>", escape(value)));
        if *value == values[reference] { text } else { format!("<mark>{text}</mark>") }
    };
    let key = format!("<code>{}</code>", escape(key));
    [key].into_iter().chain(values.iter().map(cell)).collect()
}
