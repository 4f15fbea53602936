//! What can be said about an entity: sentences, questions with answers, and listings in several notations.

use std::sync::LazyLock;

use super::draw::Draw;
use super::grammar::{Section, capitalised, fill, sections, slots};
use super::world::Entity;

static SAYINGS: LazyLock<Vec<Section>> = LazyLock::new(|| sections(include_str!("registers.txt")));

/// A template that holds for an entity, and the attributes that it tells.
struct Line {
    template: &'static str,
    tells: Vec<&'static str>,
}

/// Lines of one verb (`define`, `say`, `ask`) that hold for the entity, shuffled.
fn lines(entity: &Entity, verb: &str, draw: &mut Draw) -> Vec<Line> {
    let of_kind = SAYINGS.iter().filter(|section| section.names.contains(&entity.kind));
    let mut lines: Vec<_> =
        of_kind.flat_map(|section| &section.lines).filter_map(|rule| applicable(entity, verb, rule)).collect();
    draw.shuffle(&mut lines);
    lines
}

/// The line of a rule `verb template` or `verb[attribute=value] template`, if the entity has what it needs.
fn applicable(entity: &Entity, verb: &str, rule: &'static str) -> Option<Line> {
    let (head, template) = rule.split_once(' ')?;
    let condition = head.strip_prefix(verb)?.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let condition = condition.and_then(|condition| condition.split_once('='));
    let holds = condition.is_none_or(|(attribute, value)| entity.get(attribute) == Some(value));
    let needed = condition.map(|(attribute, _)| attribute).into_iter().chain(slots(template));
    let tells: Vec<_> = needed.filter(|slot| !REFERENCES.contains(slot)).collect();
    (holds && tells.iter().all(|slot| entity.get(slot).is_some())).then_some(Line { template, tells })
}

/// Slots that refer to the entity and tell nothing about it.
const REFERENCES: [&str; 5] = ["name", "It", "it", "its", "Whose"];

/// Fills a template about an entity, by its name or by its pronoun.
fn said(entity: &Entity, template: &str, named: bool) -> Option<String> {
    let [it, its] = entity.pronouns();
    let name = match entity.kind {
        "tool" | "dish" => format!("the {}", entity.get("name")?),
        _ => entity.get("name")?.to_owned(),
    };
    fill(template, |slot| match slot {
        "it" if named => Some(name.clone()),
        "whose" if named => Some(format!("{name}'s")),
        "it" => Some(it.to_owned()),
        "its" | "whose" => Some(its.to_owned()),
        attribute => entity.get(attribute).map(str::to_owned),
    })
}

/// A first sentence that names the entity and up to `count` further ones, none telling an attribute again.
pub fn sentences(entity: &Entity, count: usize, draw: &mut Draw) -> Vec<String> {
    let mut told: Vec<&str> = Vec::new();
    let mut sentences = Vec::new();
    let first = lines(entity, "define", draw).into_iter().take(1);
    for Line { template, tells } in first.chain(lines(entity, "say", draw)) {
        let opening = sentences.is_empty();
        let nameless = opening && !slots(template).any(|slot| REFERENCES.contains(&slot));
        if sentences.len() > count || nameless || tells.iter().any(|attribute| told.contains(attribute)) {
            continue;
        }
        let sentence = said(entity, template, opening || draw.chance(25));
        sentences.extend(sentence.map(|sentence| capitalised(&sentence)));
        told.extend(tells);
    }
    sentences
}

/// Up to `count` questions about the entity: question, answer as a sentence, answer in a word.
pub fn questions(entity: &Entity, count: usize, draw: &mut Draw) -> Vec<[String; 3]> {
    let asked = lines(entity, "ask", draw).into_iter().take(count);
    asked
        .filter_map(|Line { template, .. }| {
            let mut parts = template.split(" | ").map(|part| said(entity, part, false));
            let (question, answer, word) = (parts.next()??, parts.next()??, parts.next()??);
            Some([capitalised(&question), capitalised(&answer), word])
        })
        .collect()
}

/// Ways of writing facts down: before each, between name and value, after the value, between facts.
const NOTATIONS: [[&str; 4]; 7] = [
    ["", ": ", "", " | "],
    ["", ": ", "", " | "],
    ["- ", ": ", "", "\n"],
    ["", " = ", "", "; "],
    ["(", " ", ")", " "],
    ["", "[", "]", " "],
    ["\"", "\": \"", "\"", ", "],
];

/// The facts as a listing: the name first, the others in any order, in a notation drawn at random.
pub fn listing(entity: &Entity, draw: &mut Draw) -> String {
    let mut facts: Vec<_> = entity.facts.iter().collect();
    if facts.len() > 1 && draw.chance(60) {
        draw.shuffle(&mut facts[1..]);
    }
    let [open, middle, close, between] = NOTATIONS[draw.below(NOTATIONS.len())];
    let facts: Vec<_> = facts.iter().map(|(name, value)| format!("{open}{name}{middle}{value}{close}")).collect();
    facts.join(between)
}

#[cfg(test)]
mod tests {
    use super::super::world::DESCRIBED;
    use super::*;

    #[test]
    fn every_line_can_be_said() {
        for section in SAYINGS.iter() {
            for (kind, line) in section.names.iter().flat_map(|kind| section.lines.iter().map(move |line| (kind, line)))
            {
                let entities = (0..300).map(|stream| Entity::invent(kind, &mut Draw::new(0, stream)));
                let verb = line.split([' ', '[']).next().unwrap();
                let filled = entities
                    .filter_map(|entity| applicable(&entity, verb, line).map(|line| (entity, line.template)))
                    .find_map(|(entity, template)| said(&entity, template, false));
                assert!(matches!(verb, "define" | "say" | "ask") && filled.is_some(), "{kind}: {line}");
            }
        }
    }

    #[test]
    fn every_kind_is_defined_and_asked_about() {
        for &kind in DESCRIBED {
            let entity = Entity::invent(kind, &mut Draw::new(3, 0));
            assert!(!lines(&entity, "define", &mut Draw::new(0, 0)).is_empty(), "{kind}");
            assert_eq!(questions(&entity, 3, &mut Draw::new(0, 0)).len(), 3, "{kind}");
        }
    }

    #[test]
    fn every_fact_can_be_told_alone() {
        for (&kind, stream) in DESCRIBED.iter().flat_map(|kind| (0..20).map(move |stream| (kind, stream))) {
            let entity = Entity::invent(kind, &mut Draw::new(0, stream));
            for fact in &entity.facts[1..] {
                let alone = Entity { kind, facts: vec![entity.facts[0].clone(), fact.clone()] };
                let told = sentences(&alone, 1, &mut Draw::new(1, stream));
                let name = &entity.facts[0].1[1..];
                assert!(told.first().is_some_and(|first| first.contains(name)), "{kind}: {fact:?} {told:?}");
            }
        }
    }

    #[test]
    fn only_known_facts_are_told_and_each_once() {
        let mut entity = Entity::invent("restaurant", &mut Draw::new(0, 0));
        entity.facts =
            vec![("name", "The Blue Fox".to_owned()), ("rating", "4".to_owned()), ("food", "Thai".to_owned())];
        for stream in 0..50 {
            let text = sentences(&entity, 9, &mut Draw::new(1, stream)).join(" ");
            assert!(text.contains("The Blue Fox") && text.matches("Thai").count() == 1, "{text}");
            assert!(!text.contains('{') && !text.contains("o'clock"), "{text}");
        }
    }

    #[test]
    fn listings_hold_every_fact() {
        let entity = Entity::invent("book", &mut Draw::new(0, 0));
        let listing = listing(&entity, &mut Draw::new(0, 1));
        assert!(
            entity.facts.iter().all(|(name, value)| listing.contains(*name) && listing.contains(value)),
            "{listing}"
        );
    }
}
