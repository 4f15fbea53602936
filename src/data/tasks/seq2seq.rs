//! `seq2seq_lm`: a source for the encoder, and a target for the decoder.

use super::columns::{Need, Part};
use super::{Fields, Made, Purpose, RowEncoder, Unusable};
use crate::data::Answer;
use crate::data::encode::{Note, Prompt};

pub const PARTS: [Part; 1] = [Part {
    names: &["source", "target"],
    called: &[
        &["source", "target"],
        &["prompt", "completion"],
        &["document", "summary"],
        &["text", "summary"],
        &["input", "output"],
    ],
    need: Need::Always,
}];

pub const INPUTS: [Part; 2] = [
    Part {
        names: &["source"],
        called: &[&["source"], &["prompt"], &["document"], &["text"], &["input"]],
        need: Need::Always,
    },
    Part { names: &["target"], called: &[&["target"]], need: Need::Never },
];

pub fn encode(encoder: &RowEncoder, fields: &Fields) -> Result<Made, Unusable> {
    let source = fields.text("source")?;
    let target = if encoder.purpose == Purpose::Predict { "" } else { fields.text("target")? };
    let (joined, mut cut) = encoder.joined(source, None)?;
    let mut sequence = joined.into_sequence();
    let mut notes = encoder.notes(&[source, target]);
    sequence.answer = Answer::Unknown;
    if encoder.purpose != Purpose::Predict {
        let (ids, target_cut) = text(encoder, target, &mut notes)?;
        sequence.answer = Answer::Text(ids);
        cut |= target_cut;
    }
    let prompt_ids = sequence.ids.clone();
    let prompt = Some(Prompt { prompt_ids, prompt: source.to_owned(), reference: target.to_owned() });
    Ok(Made { sequences: vec![sequence], prompt, cut, notes, ..Made::default() })
}

/// What the decoder starts with, the target, and `eos`, within `max_len` tokens to say.
fn text(encoder: &RowEncoder, target: &str, notes: &mut Vec<Note>) -> Result<(Vec<u32>, bool), Unusable> {
    if target.trim().is_empty() {
        return Err(Unusable::Untrained);
    }
    let mut pieces = encoder.tokenizer.split(target)?;
    let whole = encoder.tokenizer.join(&pieces, None)?.ids;
    let ended = whole.last().copied() == encoder.tokenizer.eos();
    let missing = encoder.tokenizer.eos().filter(|_| !ended);
    let long = (whole.len() + missing.iter().len()).saturating_sub(encoder.data.max_len);
    if long > 0 && !encoder.may_cut() {
        return Err(Unusable::TooLong(encoder.data.max_len + long));
    }
    pieces.truncate(pieces.len().saturating_sub(long));
    if encoder.tokenizer.eos().is_none() {
        notes.push(Note::NoEos);
    }
    let said = encoder.tokenizer.join(&pieces, None)?.ids.into_iter().chain(missing);
    Ok((std::iter::once(encoder.setting.decoder_start).chain(said).collect(), long > 0))
}
