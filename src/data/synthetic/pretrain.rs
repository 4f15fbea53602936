//! The pretraining corpus: short documents in several registers about the generated world.

use super::draw::Draw;
use super::grammar::{in_words, list};
use super::orders::{Change, Order};
use super::registers::{listing, questions, sentences};
use super::tales::tale;
use super::world::{DESCRIBED, Entity, resident};

/// Entities that many documents speak of; the others occur in one document only, so that the model must read
/// their facts where they stand instead of remembering them.
const RESIDENTS: usize = 300;

/// `documents` documents; number `n` depends on the seed and `n` only.
pub fn corpus(seed: u64, documents: usize) -> impl Iterator<Item = String> {
    (0..documents as u64).map(move |number| document(seed, &mut Draw::new(seed, number)))
}

fn document(seed: u64, draw: &mut Draw) -> String {
    match draw.below(100) {
        0..8 => prose(&known(seed, draw), draw),
        8..12 => listing(&known(seed, draw), draw),
        12..24 => copied(&known(seed, draw), draw),
        24..60 => facts_twice(&known(seed, draw), draw),
        60..72 => reading(&known(seed, draw), draw),
        72..77 => encyclopedia(&known(seed, draw), draw),
        77..84 => dialogue(&known(seed, draw), draw),
        84..92 => tale(draw),
        _ => bill(&Order::invent(draw), draw),
    }
}

/// Something to write about with some of its facts: a resident or, more often, a newcomer.
fn known(seed: u64, draw: &mut Draw) -> Entity {
    let entity = match draw.chance(30) {
        true => resident(seed, draw.below(RESIDENTS) as u64),
        false => Entity::invent(draw.pick(DESCRIBED), draw),
    };
    let count = draw.between(2, 7);
    entity.with_some_facts(count, draw)
}

fn prose(entity: &Entity, draw: &mut Draw) -> String {
    let count = draw.between(1, 5);
    sentences(entity, count, draw).join(" ")
}

/// The same facts listed twice, in two orders and notations.
fn copied(entity: &Entity, draw: &mut Draw) -> String {
    format!("{}\n\n{}", listing(entity, draw), listing(entity, draw))
}

/// A listing and sentences that tell the same facts, either first.
fn facts_twice(entity: &Entity, draw: &mut Draw) -> String {
    let listing = listing(entity, draw);
    let prose = sentences(entity, entity.facts.len(), draw).join(" ");
    if draw.chance(80) { format!("{listing}\n{prose}") } else { format!("{prose}\n{listing}") }
}

/// A listing or a text and questions about it, or questions alone, which only who knows the entity can answer.
fn reading(entity: &Entity, draw: &mut Draw) -> String {
    let text = match draw.below(5) {
        0 | 1 => listing(entity, draw),
        2 | 3 => sentences(entity, entity.facts.len(), draw).join(" "),
        _ => String::new(),
    };
    let brief = draw.chance(50);
    let count = draw.between(1, 4);
    let asked = questions(entity, count, draw).into_iter();
    let mut lines: Vec<_> =
        asked.map(|[question, full, word]| format!("Q: {question}\nA: {}", if brief { word } else { full })).collect();
    if !text.is_empty() || lines.is_empty() {
        lines.insert(0, if text.is_empty() { listing(entity, draw) } else { text });
    }
    lines.join("\n")
}

/// An entry with a headword, and a pointer to another entry.
fn encyclopedia(entity: &Entity, draw: &mut Draw) -> String {
    let headword = entity.get("name").unwrap_or_default().to_uppercase();
    let count = draw.between(2, 5);
    let entry = sentences(entity, count, draw).join(" ");
    let other = Entity::invent(entity.kind, draw);
    let other = other.get("name").unwrap_or_default();
    if draw.chance(50) { format!("{headword}. {entry} See also: {other}.") } else { format!("{headword}. {entry}") }
}

/// Two people talk about something.
fn dialogue(entity: &Entity, draw: &mut Draw) -> String {
    let (first, second) = (draw.pick(list("female")), draw.pick(list("male")));
    let mut turns = Vec::new();
    for sentence in sentences(entity, 2, draw) {
        let reply = draw.pick(&["Really?", "I did not know that.", "That is true.", "Who told you?", "How nice!"]);
        turns.push(format!("{first}: {sentence}\n{second}: {reply}"));
    }
    for [question, full, _] in questions(entity, 2, draw) {
        turns.push(format!("{second}: {question}\n{first}: {full}"));
    }
    turns.push(format!("{second}: {}", draw.pick(&["Thank you.", "Good to know.", "I see.", "Then let us go."])));
    turns.join("\n")
}

/// What the guests said and what the waiter wrote down.
fn bill(order: &Order, draw: &mut Draw) -> String {
    let spoken = order.spoken(draw);
    let mut lines: Vec<_> = order.items.iter().map(|item| format!("- {}: {}", item.what, item.count)).collect();
    if draw.chance(70) {
        lines.extend(order.table.map(|table| format!("- table: {table}")));
    }
    let written = lines.join("\n");
    let remark = order.items.iter().find_map(|item| match item.change? {
        Change::Without(what) => Some(format!("The {} must not have any {what} in it.", item.what)),
        Change::Extra(what) => Some(format!("The {} needs more {what}.", item.what)),
    });
    match (draw.below(4), remark) {
        (0, Some(remark)) => format!("{spoken} {remark}"),
        (1, _) => {
            let total: usize = order.items.iter().map(|item| item.count).sum();
            format!("{spoken}\nQ: How many things were ordered?\nA: {} ({total})", in_words(total))
        }
        (2, _) => format!("{written}\n{spoken}"),
        _ => format!("{spoken}\n{written}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn documents_repeat_and_are_independent_of_the_length() {
        let long: Vec<_> = corpus(7, 50).collect();
        assert_eq!(corpus(7, 20).collect::<Vec<_>>(), long[..20]);
        assert_ne!(corpus(8, 20).collect::<Vec<_>>(), long[..20]);
    }

    #[test]
    fn documents_are_varied_and_complete() {
        let documents: Vec<_> = corpus(0, 5000).collect();
        let distinct: BTreeSet<_> = documents.iter().collect();
        assert!(distinct.len() > 4800, "{} distinct documents", distinct.len());
        assert!(documents.iter().all(|document| document.len() > 10 && !document.contains('{')));
        let words = documents.iter().flat_map(|document| document.split(|letter: char| !letter.is_alphabetic()));
        let words: BTreeSet<_> = words.map(str::to_lowercase).collect();
        assert!((1200..2500).contains(&words.len()), "{} words", words.len());
    }

    #[test]
    fn residents_come_back() {
        let name = resident(0, 0).get("name").unwrap_or_default().to_owned();
        let count = corpus(0, 5000).filter(|document| document.contains(&name)).count();
        assert!(count > 3, "{name}: {count}");
    }
}
