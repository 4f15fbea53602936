//! `synthetic:ner`: news in one sentence, with the names of persons, places, organisations and events tagged in IOB2.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::draw::Draw;
use super::grammar::{Section, drawn, list, sections};

static REPORTS: LazyLock<Vec<Section>> = LazyLock::new(|| sections(include_str!("reports.txt")));

const SEED: u64 = u64::from_be_bytes(*b".reports");

/// `tokens` and `tags`.
pub fn ner(number: u64) -> Value {
    let mut draw = Draw::new(SEED, number);
    let report = draw.pick(&REPORTS[0].lines);
    let (mut tokens, mut tags) = (Vec::new(), Vec::new());
    for part in report.split_whitespace() {
        let slot = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let kind = slot.filter(|slot| slot.chars().all(char::is_uppercase));
        let text = match (kind, slot) {
            (Some(kind), _) => name(kind, &mut draw),
            (None, Some(slot)) => drawn(slot, &mut draw).unwrap_or_default(),
            (None, None) => part.to_owned(),
        };
        for (at, word) in text.split_whitespace().enumerate() {
            tokens.push(word.to_owned());
            tags.push(match kind {
                None => "O".to_owned(),
                Some(kind) => format!("{}-{kind}", if at == 0 { "B" } else { "I" }),
            });
        }
    }
    json!({"tokens": tokens, "tags": tags})
}

/// A name of a kind. Surnames and cities are in names of several kinds, so that a word alone does not tell its tag.
fn name(kind: &str, draw: &mut Draw) -> String {
    let given = if draw.chance(50) { "female" } else { "male" };
    let lists: &[&str] = match (kind, draw.below(3)) {
        ("PER", 0) => &[given],
        ("PER", _) => &[given, "surname"],
        ("LOC", 0) => &["bearing", "city"],
        ("LOC", _) => &["city"],
        ("ORG", 0) => &["surname", "firm"],
        ("ORG", _) => &["city", "institution"],
        (_, 0) => &["city", "contest"],
        (_, _) => &["scope", "contest"],
    };
    lists.iter().map(|name| draw.pick(list(name))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_tagged_and_nothing_else_is() {
        let mut seen = BTreeSet::new();
        for number in 0..300 {
            let row = ner(number);
            let (tokens, tags) = (row["tokens"].as_array().unwrap(), row["tags"].as_array().unwrap());
            assert_eq!(tokens.len(), tags.len());
            let mut before = "O";
            for (token, tag) in tokens.iter().zip(tags) {
                let (token, tag) = (token.as_str().unwrap(), tag.as_str().unwrap());
                let kind = tag.strip_prefix("I-");
                assert!(kind.is_none_or(|kind| before.ends_with(kind)), "{row}");
                assert!(tag == "O" || token.starts_with(char::is_uppercase), "{row}");
                assert!(!token.contains(['{', '}']), "{row}");
                seen.insert(tag.to_owned());
                before = tag;
            }
        }
        let kinds = ["LOC", "MISC", "ORG", "PER"];
        let tags = ["B", "I"].iter().flat_map(|place| kinds.map(|kind| format!("{place}-{kind}")));
        assert_eq!(seen, tags.chain(["O".to_owned()]).collect());
    }
}
