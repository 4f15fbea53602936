//! `seq_cls`: a text or two, and a class or a number.

use serde_json::Value;

use super::columns::{Columns, Need, Part};
use super::labels::{Labels, are_numbers};
use super::{Fields, Made, Purpose, Reads, RowEncoder, Setting, Unusable};
use crate::Result;
use crate::data::Answer;
use crate::data::rows::Table;
use crate::recipe::HeadKind;

pub const PARTS: [Part; 2] = [
    Part {
        names: &["text", "text_pair"],
        called: &[
            &["text", "text_pair"],
            &["sentence1", "sentence2"],
            &["question1", "question2"],
            &["premise", "hypothesis"],
            &["text"],
            &["sentence"],
            &["utterance"],
        ],
        need: Need::Always,
    },
    Part {
        names: &["label"],
        called: &[&["label"], &["labels"], &["intent"], &["class"], &["score"]],
        need: Need::Answered,
    },
];

/// The classes, or `None` where rows have numbers.
pub fn labels(
    table: &Table,
    columns: &Columns,
    setting: &Setting,
    given: Option<&Vec<String>>,
) -> Result<Option<Labels>> {
    let values = || table.rows.iter().filter_map(|row| columns.row(table, row).value("label"));
    let number = match setting.head.kind {
        HeadKind::Number => true,
        HeadKind::Classes => false,
        HeadKind::Auto => given.is_none() && are_numbers(values()),
    };
    match given {
        _ if number => Ok(None),
        Some(names) => Labels::given(names).map(Some),
        None => Labels::of(values()).map(Some),
    }
}

pub fn encode(encoder: &RowEncoder, fields: &Fields) -> Result<Made, Unusable> {
    let (text, pair) = (fields.text("text")?, fields.optional_text("text_pair")?);
    let answer = match (encoder.purpose, &encoder.labels) {
        (Purpose::Predict, _) => Answer::Unknown,
        (_, None) => Answer::Number(fields.number("label")?),
        (_, Some(labels)) => match fields.value("label") {
            None | Some(Value::Array(_) | Value::Object(_)) => {
                return Err(fields.wrong("label", "a label", "a text, a whole number or a boolean").into());
            }
            Some(value) => Answer::Class(labels.class(value)?),
        },
    };
    let (joined, cut) = encoder.joined(text, pair)?;
    let mut sequence = joined.into_sequence();
    let at = match encoder.setting.reads {
        Reads::First => 0,
        Reads::Last => sequence.ids.len() - 1,
    };
    sequence.trained[at] = true;
    sequence.answer = answer;
    let notes = encoder.notes(&[text, pair.unwrap_or_default()]);
    Ok(Made { sequences: vec![sequence], cut, notes, ..Made::default() })
}
