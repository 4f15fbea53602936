//! The generated world: entities of a few kinds with typed attributes.

use std::sync::LazyLock;

use super::draw::Draw;
use super::grammar::{Section, drawn, fill, sections};

static KINDS: LazyLock<Vec<Section>> = LazyLock::new(|| sections(include_str!("world.txt")));

/// Something with a name and facts, in the order of its kind's rules.
#[derive(Clone, Debug)]
pub struct Entity {
    pub kind: &'static str,
    pub facts: Vec<(&'static str, String)>,
}

impl Entity {
    /// A new entity of a kind, every attribute drawn. An unknown kind has no facts.
    pub fn invent(kind: &'static str, draw: &mut Draw) -> Self {
        let rules = KINDS.iter().filter(|section| section.names.contains(&kind)).flat_map(|section| &section.lines);
        let facts = rules
            .filter_map(|rule| rule.split_once(" = "))
            .filter_map(|(attribute, pattern)| Some((attribute, fill(pattern, |slot| drawn(slot, draw))?)))
            .collect();
        Self { kind, facts }
    }

    pub fn get(&self, attribute: &str) -> Option<&str> {
        self.facts.iter().find(|(name, _)| *name == attribute).map(|(_, value)| value.as_str())
    }

    /// The entity with its name and only `count` of its other facts, in their order.
    pub fn with_some_facts(&self, count: usize, draw: &mut Draw) -> Self {
        let mut order: Vec<usize> = (1..self.facts.len()).collect();
        draw.shuffle(&mut order);
        order.truncate(count);
        order.sort_unstable();
        let facts = std::iter::once(0).chain(order).filter_map(|at| self.facts.get(at).cloned()).collect();
        Self { kind: self.kind, facts }
    }

    /// Personal pronoun of the subject, and possessive.
    pub fn pronouns(&self) -> [&'static str; 2] {
        match self.kind {
            "woman" => ["she", "her"],
            "man" => ["he", "his"],
            _ => ["it", "its"],
        }
    }
}

/// The kinds that documents describe, the more frequent ones repeated.
pub const DESCRIBED: &[&str] = &[
    "restaurant",
    "restaurant",
    "restaurant",
    "restaurant",
    "restaurant",
    "restaurant",
    "restaurant",
    "restaurant",
    "town",
    "woman",
    "man",
    "animal",
    "tool",
    "street",
    "book",
    "dish",
    "train",
];

/// Entity `number` of those that come back in many documents.
pub fn resident(seed: u64, number: u64) -> Entity {
    let mut draw = Draw::new(seed, u64::MAX - number);
    Entity::invent(draw.pick(DESCRIBED), &mut draw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_draws_a_value() {
        for section in KINDS.iter() {
            for &kind in &section.names {
                let entity = Entity::invent(kind, &mut Draw::new(0, 0));
                assert_eq!(entity.facts.len(), section.lines.len(), "{kind}: {:?}", entity.facts);
            }
        }
    }

    #[test]
    fn every_described_kind_has_a_name_first() {
        for &kind in DESCRIBED {
            let entity = Entity::invent(kind, &mut Draw::new(0, 0));
            assert_eq!(entity.facts.first().map(|(attribute, _)| *attribute), Some("name"), "{kind}");
        }
    }

    #[test]
    fn residents_stay_the_same_and_differ_among_themselves() {
        assert_eq!(resident(1, 5).facts, resident(1, 5).facts);
        assert_ne!(resident(1, 5).facts, resident(1, 6).facts);
    }

    #[test]
    fn a_part_of_the_facts_keeps_the_name_and_the_order() {
        let entity = Entity::invent("restaurant", &mut Draw::new(0, 0));
        let part = entity.with_some_facts(3, &mut Draw::new(0, 1));
        let all: Vec<_> = entity.facts.iter().filter(|fact| part.facts.contains(fact)).cloned().collect();
        assert_eq!((part.facts.len(), &part.facts[0]), (4, &entity.facts[0]));
        assert_eq!(part.facts, all);
    }
}
