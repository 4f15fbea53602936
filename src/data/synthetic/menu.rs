//! `synthetic:menu`: the facts of a restaurant become one sentence in the voice of a town crier, a register
//! that the pretraining corpus never uses. The sentence is a function of the facts, so exact match is defined.

use super::draw::Draw;
use super::grammar::in_words;
use super::world::Entity;

const SEED: u64 = u64::from_be_bytes(*b"....menu");

/// What stands between the facts and the sentence.
const CUE: &str = " =>";

/// The slots of a row, in the order in which they are written.
const SLOTS: [&str; 7] = ["name", "food", "price", "area", "rating", "family", "near"];

/// `rows` distinct pairs of prompt and completion, no two with the same facts.
pub fn rows(rows: usize) -> Vec<(String, String)> {
    super::distinct(rows, |stream| {
        let mut draw = Draw::new(SEED, stream);
        let mut restaurant = Entity::invent("restaurant", &mut draw);
        restaurant.facts.retain(|(slot, _)| SLOTS.contains(slot));
        let told = draw.between(3, SLOTS.len() - 1);
        let restaurant = restaurant.with_some_facts(told, &mut draw);
        (format!("{}{CUE}", meaning(&restaurant)), format!(" {}", cry(&restaurant)))
    })
}

fn meaning(restaurant: &Entity) -> String {
    restaurant.facts.iter().map(|(slot, value)| format!("{slot}: {value}")).collect::<Vec<_>>().join(" | ")
}

/// The crier's sentence: the rating chooses the call, then place, fare, purse, stars and children in this order,
/// each only if the facts tell it.
fn cry(restaurant: &Entity) -> String {
    let known = |slot: &str| restaurant.get(slot);
    let stars = known("rating").and_then(|rating| rating.parse::<usize>().ok());
    let call = match stars {
        Some(4..) => "Hear ye, good people:",
        Some(..=2) => "Beware, good people:",
        _ => "Be it known:",
    };
    let mut cry = format!("{call} {}", known("name").unwrap_or("one house"));
    cry += &known("area").map_or(String::new(), |area| format!(" of the {area}"));
    cry += &known("near").map_or(String::new(), |near| format!(", hard by {near},"));
    cry += &known("food").map_or(" keeps open table".to_owned(), |food| format!(" keeps {food} table"));
    cry += match known("price") {
        Some("cheap") => " for the slender purse",
        Some("moderate") => " for the honest purse",
        Some(_) => " for the heavy purse",
        None => "",
    };
    cry += &match stars {
        None => String::new(),
        Some(1) => ", with but one star to its honour".to_owned(),
        Some(stars @ 2..4) => format!(", with but {} stars to its honour", in_words(stars)),
        Some(stars) => format!(", with full {} stars to its honour", in_words(stars)),
    };
    cry += match known("family") {
        Some("yes") => "; bring thy little ones",
        Some(_) => "; leave thy little ones at home",
        None => "",
    };
    cry + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cried(facts: &[(&'static str, &str)]) -> String {
        let facts = facts.iter().map(|(slot, value)| (*slot, (*value).to_owned())).collect();
        cry(&Entity { kind: "restaurant", facts })
    }

    #[test]
    fn a_full_row_tells_everything_in_order() {
        let facts = [
            ("name", "The Copper Kettle"),
            ("food", "Thai"),
            ("price", "cheap"),
            ("area", "riverside"),
            ("rating", "4"),
            ("family", "yes"),
            ("near", "The Red Fox"),
        ];
        assert_eq!(
            cried(&facts),
            "Hear ye, good people: The Copper Kettle of the riverside, hard by The Red Fox, keeps Thai table for the \
             slender purse, with full four stars to its honour; bring thy little ones."
        );
    }

    #[test]
    fn missing_slots_and_low_ratings_change_the_words() {
        let facts = [("name", "The Blue Owl"), ("rating", "1"), ("family", "no")];
        assert_eq!(
            cried(&facts),
            "Beware, good people: The Blue Owl keeps open table, with but one star to its honour; leave thy little \
             ones at home."
        );
        assert_eq!(cried(&facts[..1]), "Be it known: The Blue Owl keeps open table.");
    }
}
