//! `synthetic:qa`: questions about people, places and things that a text describes, or does not.

use serde_json::{Value, json};

use super::draw::Draw;
use super::registers::{questions, sentences};
use super::world::Entity;

const SEED: u64 = u64::from_be_bytes(*b"......qa");

const KINDS: [&str; 8] = ["restaurant", "woman", "man", "animal", "tool", "book", "street", "dish"];

/// Of a hundred questions so many are about something that the text does not mention.
const UNANSWERABLE: usize = 15;

/// `question`, `context`, and `answers` as in SQuAD, an empty set where the context has none.
pub fn qa(number: u64) -> Value {
    let mut draw = Draw::new(SEED, number);
    // Drawn once: questions that come out wrong below are drawn again, and would shift the share.
    let answerable = !draw.chance(UNANSWERABLE);
    loop {
        // Every sixth text is long enough for several windows.
        let described = if number.is_multiple_of(6) { draw.between(6, 9) } else { draw.between(1, 3) };
        let entities: Vec<Entity> = (0..described).map(|_| Entity::invent(draw.pick(&KINDS), &mut draw)).collect();
        let told: Vec<String> = entities.iter().map(|entity| sentences(entity, 4, &mut draw).join(" ")).collect();
        let asked = draw.below(described);
        let subject = match answerable {
            true => entities[asked].clone(),
            false => Entity::invent(entities[asked].kind, &mut draw),
        };
        if let Some(row) = row(&subject, &told, asked, &mut draw) {
            return row;
        }
    }
}

/// A question about the subject whose answer the text about it has; or, where no text is about it, without an answer.
fn row(subject: &Entity, told: &[String], asked: usize, draw: &mut Draw) -> Option<Value> {
    let name = subject.get("name")?;
    let context = told.join(" ");
    let before = told[..asked].iter().map(|text| text.chars().count() + 1).sum::<usize>();
    let mentions = told.iter().filter(|text| text.to_lowercase().contains(&name.to_lowercase())).count();
    for [question, _, word] in questions(subject, usize::MAX, draw) {
        if mentions == 0 {
            return Some(
                json!({"question": question, "context": context, "answers": {"text": [], "answer_start": []}}),
            );
        }
        // A name that another text has too would leave open who is asked about.
        if let Some(at) = whole_word(&told[asked], &word).filter(|_| mentions == 1) {
            let start = before + told[asked][..at].chars().count();
            let answers = json!({"text": [word], "answer_start": [start]});
            return Some(json!({"question": question, "context": context, "answers": answers}));
        }
    }
    None
}

/// Where a text has the words, and has them once.
fn whole_word(text: &str, word: &str) -> Option<usize> {
    let letter = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
    let whole =
        |at: &usize| !letter(text[..*at].chars().next_back()) && !letter(text[at + word.len()..].chars().next());
    let mut found = text.match_indices(word).map(|(at, _)| at).filter(whole);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stand_where_they_are_said_to() {
        let (mut unanswerable, mut long) = (0, 0);
        for number in 0..300 {
            let row = qa(number);
            let context = row["context"].as_str().unwrap();
            long += usize::from(context.split_whitespace().count() > 150);
            match row["answers"]["text"].as_array().unwrap().as_slice() {
                [] => unanswerable += 1,
                [text] => {
                    let (text, start) = (text.as_str().unwrap(), row["answers"]["answer_start"][0].as_u64().unwrap());
                    let there: String = context.chars().skip(start as usize).take(text.chars().count()).collect();
                    assert_eq!(there, text, "{row}");
                }
                _ => panic!("{row}"),
            }
        }
        assert!((20..80).contains(&unanswerable), "{unanswerable}");
        assert!((25..60).contains(&long), "{long}");
    }

    #[test]
    fn an_answer_is_a_word_and_not_a_part_of_one() {
        assert_eq!(whole_word("The oaks and the oak.", "oak"), Some(17));
        assert_eq!(whole_word("oak, oak", "oak"), None);
        assert_eq!(whole_word("oaks", "oak"), None);
    }
}
