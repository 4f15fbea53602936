//! `token_cls`: words, and a class of each. The first token of a word carries its class; the others carry none.

use serde_json::Value;

use super::columns::{Columns, Need, Part};
use super::labels::Labels;
use super::{Fields, Made, Purpose, RowEncoder, Unusable};
use crate::data::encode::Note;
use crate::data::rows::Table;
use crate::data::{Answer, IGNORE, Reference, Words};
use crate::error::InputError;
use crate::{Error, Result};

pub const PARTS: [Part; 2] = [
    Part { names: &["tokens"], called: &[&["tokens"], &["words"]], need: Need::Always },
    Part { names: &["tags"], called: &[&["tags"], &["ner_tags"], &["labels"]], need: Need::Answered },
];

/// For prediction a text will do, whose words have white space between them.
pub const INPUTS: [Part; 2] =
    [Part { names: &["tokens"], called: &[&["tokens"], &["words"], &["text"]], need: Need::Always }, PARTS[1]];

pub fn labels(table: &Table, columns: &Columns, given: Option<&Vec<String>>) -> Result<Labels> {
    if let Some(names) = given {
        return Labels::given(names);
    }
    let lists = table.rows.iter().filter_map(|row| columns.row(table, row).value("tags").and_then(Value::as_array));
    let tags: Vec<&Value> = lists.flatten().collect();
    if !tags.is_empty() && tags.iter().all(|tag| tag.is_number()) {
        let error = Error::input("the tags are numbers, and nothing says what they are called").file(&table.path);
        return Err(error.hint("name them in order: head.labels = [\"O\", \"B-PER\", ...]").into());
    }
    Labels::of(tags.into_iter())
}

pub fn encode(encoder: &RowEncoder, fields: &Fields) -> Result<Made, Unusable> {
    let words = words(encoder, fields)?;
    let classes = match &encoder.labels {
        Some(labels) => Some(classes(labels, fields, words.len())?),
        None => None,
    };
    let pieces = encoder.tokenizer.split_words(&words)?;
    let word: Vec<usize> = pieces.iter().map(|piece| piece.word).collect();
    let (joined, cut) = encoder.fitted(pieces, None)?;
    let mut position = vec![None; words.len()];
    for (piece, at) in joined.positions(0).into_iter().enumerate() {
        position[word[piece]].get_or_insert(at);
    }
    let mut sequence = joined.into_sequence();
    let mut tags = vec![IGNORE; sequence.ids.len()];
    for (number, at) in position.iter().enumerate().filter_map(|(number, at)| Some((number, (*at)?))) {
        sequence.trained[at] = true;
        tags[at] = classes.as_ref().map_or(0, |classes| classes[number] as i32);
    }
    sequence.answer = if classes.is_some() { Answer::Tags(tags) } else { Answer::Unknown };
    let mut notes = encoder.notes(&words.iter().map(String::as_str).collect::<Vec<_>>());
    notes.extend((0..words.len()).any(|number| !word.contains(&number)).then_some(Note::SilentWord));
    let reference = Reference::Words(vec![Words { position }]);
    Ok(Made { sequences: vec![sequence], reference, cut, notes, ..Made::default() })
}

fn words(encoder: &RowEncoder, fields: &Fields) -> Result<Vec<String>, InputError> {
    match fields.value("tokens") {
        Some(Value::String(text)) if encoder.purpose == Purpose::Predict => {
            Ok(text.split_whitespace().map(str::to_owned).collect())
        }
        _ => fields.texts("tokens"),
    }
}

fn classes(labels: &Labels, fields: &Fields, words: usize) -> Result<Vec<u32>, InputError> {
    let tags = fields.list("tags")?;
    if tags.len() != words {
        let error = fields.error("the row has not one tag for each word");
        return Err(error.found(format!("{} tags", tags.len())).expected(format!("{words}, the number of words")));
    }
    let class = |(at, tag): (usize, &Value)| {
        labels.class(tag).map_err(|error| {
            let what = format!("word {}: {}", at + 1, error.what);
            InputError { what, ..error }
        })
    };
    tags.iter().enumerate().map(class).collect()
}
