//! `feature_extraction`: a text, one that it should be like, and perhaps ones that it should not; or a pair with a score.

use serde_json::Value;

use super::columns::{Need, Part};
use super::{Fields, Made, Purpose, RowEncoder, Unusable};
use crate::data::{Answer, Sequence};
use crate::error::InputError;

pub const PARTS: [Part; 3] = [
    Part {
        names: &["text", "positive"],
        called: &[
            &["text", "positive"],
            &["anchor", "positive"],
            &["query", "positive"],
            &["sentence1", "sentence2"],
            &["text1", "text2"],
        ],
        need: Need::Always,
    },
    Part { names: &["negative"], called: &[&["negative"]], need: Need::Never },
    Part { names: &["score"], called: &[&["score"]], need: Need::Never },
];

pub const INPUTS: [Part; 2] = [
    Part {
        names: &["text"],
        called: &[&["text"], &["anchor"], &["query"], &["sentence1"], &["text1"], &["sentence"]],
        need: Need::Always,
    },
    Part { names: &["positive", "negative", "score"], called: &[&[]], need: Need::Never },
];

pub fn encode(encoder: &RowEncoder, fields: &Fields) -> Result<Made, Unusable> {
    let text = fields.text("text")?;
    let (mut sequence, mut cut) = vector(encoder, text)?;
    let mut texts = vec![text];
    if encoder.purpose == Purpose::Predict {
        sequence.answer = Answer::Unknown;
    } else {
        texts.push(fields.text("positive")?);
        texts.extend(negatives(fields)?);
        let mut others = Vec::new();
        for other in &texts[1..] {
            let (sequence, other_cut) = vector(encoder, other)?;
            others.push(sequence);
            cut |= other_cut;
        }
        sequence.answer = Answer::Alike { others, score: score(encoder, fields)? };
    }
    let notes = encoder.notes(&texts);
    Ok(Made { sequences: vec![sequence], cut, notes, ..Made::default() })
}

/// A text every token of which counts.
fn vector(encoder: &RowEncoder, text: &str) -> Result<(Sequence, bool), Unusable> {
    let (joined, cut) = encoder.joined(text, None)?;
    let mut sequence = joined.into_sequence();
    sequence.trained.fill(true);
    Ok((sequence, cut))
}

/// None, a text or a list of texts.
fn negatives<'a>(fields: &Fields<'a>) -> Result<Vec<&'a str>, InputError> {
    let wrong = || fields.wrong("negative", "text", "a text, or a list of texts");
    match fields.value("negative") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|text| text.as_str().ok_or_else(wrong)).collect(),
        Some(other) => Ok(vec![other.as_str().ok_or_else(wrong)?]),
    }
}

fn score(encoder: &RowEncoder, fields: &Fields) -> Result<Option<f32>, InputError> {
    if fields.value("score").is_none() {
        return Ok(None);
    }
    if encoder.purpose == Purpose::Train {
        let error = fields.error("a pair with a score is for evaluation: it may say that two texts are unlike");
        return Err(error
            .expected("training rows without a score, whose two texts are alike")
            .hint("name such rows in data.eval, or map columns without `score`"));
    }
    fields.number("score").map(Some)
}
