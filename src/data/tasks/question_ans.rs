//! `question_ans`: where in a context the answer to a question is. Contexts longer than `max_len` become several windows that share
//! `data.stride` tokens, each behind the whole question (Devlin et al., 2018, appendix A; `stride` of transformers).

use std::ops::Range;

use serde_json::Value;

use super::columns::{Need, Part, as_number};
use super::{Fields, Made, Purpose, RowEncoder, Unusable};
use crate::data::encode::Note;
use crate::data::tokenizer::Piece;
use crate::data::{Answer, Passage, Reference, Sequence, Window};
use crate::error::InputError;
use crate::{Error, Result};

pub const PARTS: [Part; 5] = [
    Part { names: &["question"], called: &[&["question"]], need: Need::Always },
    Part { names: &["context"], called: &[&["context"]], need: Need::Always },
    Part { names: &["answers"], called: &[&["answers"]], need: Need::Never },
    Part { names: &["answer"], called: &[&["answer"]], need: Need::Never },
    Part { names: &["answer_start"], called: &[&["answer_start"]], need: Need::Never },
];

/// What a row says about the answer.
#[derive(Default)]
struct Wanted {
    /// Bytes of the context; `None` where it has no answer.
    span: Option<Range<usize>>,
    /// Every answer that is right.
    references: Vec<String>,
    /// Whether the row said where the answer is.
    searched: bool,
}

pub fn encode(encoder: &RowEncoder, fields: &Fields) -> Result<Made, Unusable> {
    let (question, context) = (fields.text("question")?, fields.text("context")?);
    let wanted = match encoder.purpose {
        Purpose::Predict => Wanted::default(),
        _ => wanted(fields, context)?,
    };
    let mut notes = encoder.notes(&[question, context]);
    notes.extend(wanted.searched.then_some(Note::AnswerSearched));
    let asked = encoder.tokenizer.split(question)?;
    let told = encoder.tokenizer.split(context)?;
    if told.is_empty() {
        return Err(Unusable::Untrained);
    }
    let tokens = match &wanted.span {
        None => None,
        Some(span) => Some(covering(&told, span).ok_or_else(|| {
            fields.error("the tokenizer leaves nothing of the answer").found(format!("`{}`", &context[span.clone()]))
        })?),
    };
    let (mut sequences, mut windows) = (Vec::new(), Vec::new());
    for part in parts(encoder, asked.len(), told.len())? {
        let (mut sequence, window) = one(encoder, &asked, &told[part.clone()])?;
        if encoder.purpose == Purpose::Predict {
            sequence.answer = Answer::Unknown;
        } else {
            let held = tokens.clone().filter(|tokens| part.start <= tokens.start && tokens.end <= part.end);
            answer(&mut sequence, &window, held.map(|tokens| tokens.start - part.start..tokens.end - part.start));
        }
        sequences.push(sequence);
        windows.push(window);
    }
    let passage = Passage {
        row: fields.number_of_row(),
        question: question.to_owned(),
        context: context.to_owned(),
        references: wanted.references,
    };
    let reference = Reference::Windows { passages: vec![passage], windows };
    Ok(Made { sequences, reference, notes, ..Made::default() })
}

/// Which tokens of the context each window holds: as many as the question leaves room for, `data.stride` of them again in the next.
fn parts(encoder: &RowEncoder, question: usize, context: usize) -> Result<Vec<Range<usize>>, Unusable> {
    let (room, stride) = (encoder.room(2)?.saturating_sub(question), encoder.data.stride);
    if context > room && room <= stride {
        let shortest = question + encoder.tokenizer.added(2) + stride + 1;
        return match encoder.purpose {
            // Nothing is left out here, and a question that fills the window cannot be cut without changing it.
            Purpose::Predict => Err(Error::input("the question leaves its context no room beside data.stride")
                .found(format!("a question of {question} tokens"))
                .expected(format!("data.max_len of {shortest} or more, or a smaller data.stride"))
                .into()),
            _ => Err(Unusable::TooLong(shortest)),
        };
    }
    let mut parts = Vec::new();
    for start in (0..context).step_by(room.saturating_sub(stride).max(1)) {
        parts.push(start..context.min(start + room));
        if start + room >= context {
            break;
        }
    }
    Ok(parts)
}

/// The question and a part of the context, and the bytes of the context that stand at each position.
fn one(encoder: &RowEncoder, question: &[Piece], part: &[Piece]) -> Result<(Sequence, Window)> {
    let joined = encoder.tokenizer.join(question, Some(part))?;
    let span = |piece: &Option<(usize, usize)>| match piece {
        Some((1, number)) => Some(part[*number].span.clone()),
        _ => None,
    };
    let spans = joined.piece.iter().map(span).collect();
    Ok((joined.into_sequence(), Window { passage: 0, spans }))
}

/// Marks the tokens of the answer, or the first token where the window does not hold all of it.
fn answer(sequence: &mut Sequence, window: &Window, tokens: Option<Range<usize>>) {
    let context = window.spans.iter().position(Option::is_some).unwrap_or(0);
    let [first, last] = tokens.map_or([0, 0], |tokens| [context + tokens.start, context + tokens.end - 1]);
    sequence.trained[first..=last].fill(true);
    sequence.answer = Answer::Span([first as u32, last as u32]);
}

/// The tokens that share a byte with a span; `None` where there are none.
fn covering(pieces: &[Piece], span: &Range<usize>) -> Option<Range<usize>> {
    let shares = |piece: &Piece| piece.span.start < span.end && span.start < piece.span.end;
    let first = pieces.iter().position(shares)?;
    let last = pieces.iter().rposition(shares)?;
    Some(first..last + 1)
}

fn wanted(fields: &Fields, context: &str) -> Result<Wanted, InputError> {
    let answers = match (fields.value("answers"), fields.value("answer")) {
        (Some(Value::Array(answers)), _) => answers.iter().map(|answer| stated(fields, answer)).collect(),
        (Some(Value::Object(lists)), _) => paired(fields, lists.get("text"), lists.get("answer_start")),
        (Some(_), _) => Err(fields.wrong("answers", "a set of answers", "{ text = [...], answer_start = [...] }")),
        (None, Some(_)) => {
            let text = fields.text("answer")?;
            let start = fields.value("answer_start").map(|start| offset(fields, start)).transpose()?;
            // SQuAD 2 in a table: an empty answer is none.
            Ok(if text.is_empty() { Vec::new() } else { vec![(text, start)] })
        }
        (None, None) if fields.has("answer") => Ok(Vec::new()),
        (None, None) => Err(fields
            .error("the row says nothing of its answer")
            .expected("`answer` and `answer_start`, or `answers` (an empty list where there is none)")),
    }?;
    let mut wanted = Wanted::default();
    for (text, start) in answers {
        let span = located(fields, context, text, start)?;
        wanted.searched |= start.is_none();
        wanted.span.get_or_insert(span);
        if !wanted.references.iter().any(|known| known == text) {
            wanted.references.push(text.to_owned());
        }
    }
    Ok(wanted)
}

/// `{ text, answer_start }` of SQuAD's own files.
fn stated<'a>(fields: &Fields, answer: &'a Value) -> Result<(&'a str, Option<usize>), InputError> {
    let text = answer.get("text").and_then(Value::as_str);
    let text = text.ok_or_else(|| fields.wrong("answers", "a list of answers", "entries with `text`, a text"))?;
    let start = answer.get("answer_start").map(|start| offset(fields, start)).transpose()?;
    Ok((text, start))
}

/// `{ text = [...], answer_start = [...] }` of the datasets hub.
fn paired<'a>(
    fields: &Fields,
    texts: Option<&'a Value>,
    starts: Option<&'a Value>,
) -> Result<Vec<(&'a str, Option<usize>)>, InputError> {
    let wrong = || fields.wrong("answers", "a set of answers", "lists `text` and `answer_start` of one length");
    let texts = texts.and_then(Value::as_array).ok_or_else(wrong)?;
    let starts = match starts {
        None => vec![None; texts.len()],
        Some(starts) => starts.as_array().ok_or_else(wrong)?.iter().map(Some).collect(),
    };
    if starts.len() != texts.len() {
        return Err(wrong().found(format!("{} texts and {} starts", texts.len(), starts.len())));
    }
    let pair = |(text, start): (&'a Value, Option<&Value>)| {
        Ok((text.as_str().ok_or_else(wrong)?, start.map(|start| offset(fields, start)).transpose()?))
    };
    texts.iter().zip(starts).map(pair).collect()
}

fn offset(fields: &Fields, value: &Value) -> Result<usize, InputError> {
    let whole = as_number(value).filter(|number| *number >= 0.0 && number.fract() == 0.0 && *number < 1e9);
    whole.map(|number| number as usize).ok_or_else(|| {
        fields.error("`answer_start` counts characters").found(value).expected("a whole number, 0 or more")
    })
}

/// The bytes of an answer in its context, without white space around it. `start` counts characters; without it the first occurrence.
fn located(fields: &Fields, context: &str, text: &str, start: Option<usize>) -> Result<Range<usize>, InputError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(fields.error("an answer is empty").hint("a question without an answer has an empty list of them"));
    }
    let Some(start) = start else {
        let at = context
            .find(trimmed)
            .ok_or_else(|| fields.error("the answer does not occur in the context").found(format!("`{text}`")))?;
        return Ok(at..at + trimmed.len());
    };
    let characters = context.chars().count();
    let Some(at) = context.char_indices().map(|(at, _)| at).nth(start) else {
        let error = fields.error("the answer starts outside the context").found(format!("character {start}"));
        return Err(error.expected(format!("below {characters}, its length in characters")));
    };
    if !context[at..].starts_with(text) {
        let there: String = context[at..].chars().take(text.chars().count()).collect();
        let error = fields.error(format!("at character {start} the context does not have the answer"));
        let error = error.found(format!("`{there}`")).expected(format!("`{text}`"));
        return Err(match context.find(text) {
            Some(byte) => error.hint(format!("it is at character {}", context[..byte].chars().count())),
            None => error.hint("it is nowhere in the context"),
        });
    }
    let before = text.len() - text.trim_start().len();
    Ok(at + before..at + before + trimmed.len())
}
