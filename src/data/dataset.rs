//! Encoded rows, and an account of what became of every row read.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use rayon::prelude::*;
use serde::Serialize;

use super::encode::{Encoded, Encoder, Note, Prompt};
use super::{Batch, Example, Reference, Sequence, Tokenizer, collate};
use crate::error::InputError;
use crate::recipe::{Data, Head, OverLength};
use crate::{Error, Result};

/// What one side of the split gives the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// Rows, or packs of rows: what goes through the model.
    pub sequences: Vec<Sequence>,
    /// One per used row that has a prompt, in the order of the rows: for scoring by generation.
    pub prompts: Vec<Prompt>,
    /// What outputs about the sequences are read back with.
    pub reference: Reference,
    pub report: Report,
}

/// Counts of rows and, where said so, of tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Rows read.
    pub rows: usize,
    /// Rows trained or evaluated on.
    pub used: usize,
    /// Tokens in the used rows.
    pub tokens: usize,
    /// Tokens whose prediction the loss counts.
    pub trained_tokens: usize,
    /// Rows left out because they are longer than `max_len`.
    pub dropped_long: usize,
    /// Rows cut to `max_len`.
    pub truncated: usize,
    /// Rows left out because no token of theirs is trained.
    pub untrained: usize,
    /// Tokens of the longest, shortest and middle used row.
    pub longest: usize,
    pub shortest: usize,
    pub median: usize,
    /// Used evaluation rows that are also training rows.
    pub duplicates_with_train: usize,
    pub warnings: Vec<Warning>,
}

/// Something that is not an error, and how many rows it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    pub code: String,
    pub text: String,
    pub count: usize,
}

impl Warning {
    pub(super) fn new(code: &str, text: impl Into<String>, count: usize) -> Self {
        Self { code: code.to_owned(), text: text.into(), count }
    }
}

/// Rows before encoding, with where they came from.
#[derive(Clone, Debug)]
pub(super) struct Examples {
    /// A file, or `synthetic:NAME`.
    pub origin: PathBuf,
    /// What the numbers count: `line` or `row`.
    pub place: &'static str,
    pub rows: Vec<(usize, Example)>,
}

impl Examples {
    fn located(&self, row: usize, error: InputError) -> InputError {
        match error.place {
            Some(_) => error,
            None => error.file(&self.origin).place(self.place, row.to_string()),
        }
    }

    /// The rows at `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        let rows = indices.iter().map(|&index| self.rows[index].clone()).collect();
        Self { origin: self.origin.clone(), place: self.place, rows }
    }
}

/// Encodes every row and leaves out those that are too long or train nothing.
///
/// # Errors
/// The first row that cannot be encoded, a row over the length where that is an error, or no row left.
pub(super) fn build(examples: &Examples, encoder: &Encoder, data: &Data) -> Result<Dataset> {
    let encode =
        |(row, example): &(usize, Example)| encoder.encode(example).map_err(|error| examples.located(*row, error));
    let encoded: Vec<Result<Encoded, InputError>> = examples.rows.par_iter().map(encode).collect();
    let mut dataset = Dataset::default();
    let mut notes: IndexMap<Note, usize> = IndexMap::new();
    dataset.report.rows = encoded.len();
    for ((row, _), encoded) in examples.rows.iter().zip(encoded) {
        let encoded = encoded?;
        encoded.notes.iter().for_each(|&note| *notes.entry(note).or_default() += 1);
        let long = encoded.sequence.ids.len() > data.max_len;
        if long && data.over_length == OverLength::Error {
            return Err(examples.located(*row, too_long(encoded.sequence.ids.len(), data.max_len)).into());
        }
        dataset.add(encoded, data);
    }
    dataset.warn(notes);
    dataset.measure();
    match dataset.report.used {
        0 => Err(none_left(&examples.origin, &dataset.report, data).into()),
        _ => Ok(dataset),
    }
}

impl Dataset {
    fn add(&mut self, encoded: Encoded, data: &Data) {
        let Encoded { mut sequence, prompt, .. } = encoded;
        if sequence.ids.len() > data.max_len {
            if data.over_length == OverLength::Drop {
                self.report.dropped_long += 1;
                return;
            }
            self.report.truncated += 1;
            sequence.truncate(data.max_len);
        }
        if !sequence.trained.contains(&true) {
            self.report.untrained += 1;
            return;
        }
        self.sequences.push(sequence);
        self.prompts.extend(prompt);
    }

    /// Every sequence once and in order, `rows` of them in a batch, with their numbers.
    pub fn in_order(
        &self,
        rows: usize,
        tokenizer: &Tokenizer,
        head: &Head,
    ) -> impl Iterator<Item = (Range<usize>, Batch)> {
        let batch = move |(number, sequences): (usize, &[Sequence])| {
            let of = number * rows..number * rows + sequences.len();
            let sequences: Vec<_> = sequences.iter().collect();
            (of, collate(&sequences, tokenizer.pad().unwrap_or(0)).under(head))
        };
        self.sequences.chunks(rows).enumerate().map(batch)
    }

    pub(super) fn warn(&mut self, notes: IndexMap<Note, usize>) {
        let warning = |(note, count): (Note, usize)| Warning::new(note.code(), note.text(), count);
        self.report.warnings = notes.into_iter().map(warning).collect();
    }

    pub(super) fn measure(&mut self) {
        let mut lengths: Vec<usize> = self.sequences.iter().map(|sequence| sequence.ids.len()).collect();
        lengths.sort_unstable();
        let report = &mut self.report;
        report.used = lengths.len();
        report.tokens = lengths.iter().sum();
        report.trained_tokens = self.sequences.iter().map(Sequence::counted).sum();
        report.longest = lengths.last().copied().unwrap_or(0);
        report.shortest = lengths.first().copied().unwrap_or(0);
        report.median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    }

    /// Counts the rows that are in `train` too. Call it before packing.
    pub(super) fn compare_with(&mut self, train: &Dataset) {
        let seen: HashSet<&[u32]> = train.sequences.iter().map(|sequence| sequence.ids.as_slice()).collect();
        let twice = self.sequences.iter().filter(|sequence| seen.contains(sequence.ids.as_slice())).count();
        self.report.duplicates_with_train = twice;
        if twice > 0 {
            let text = "evaluation rows are training rows too; the score is not that of unseen rows";
            self.report.warnings.push(Warning::new("eval_rows_in_train", text, twice));
        }
    }
}

pub(super) fn too_long(tokens: usize, max_len: usize) -> InputError {
    Error::input("the row is longer than data.max_len")
        .found(format!("{tokens} tokens"))
        .expected(format!("at most {max_len}"))
        .hint("over_length = \"drop\" or \"truncate\" goes on without it")
}

pub(super) fn none_left(origin: &Path, report: &Report, data: &Data) -> InputError {
    let long = match data.over_length {
        OverLength::Truncate => report.truncated,
        _ => report.dropped_long,
    };
    let reasons = [
        (report.dropped_long, format!("they are longer than max_len = {}", data.max_len)),
        (report.untrained, "no token of theirs is trained".to_owned()),
    ];
    let why = reasons.into_iter().filter(|(count, _)| *count > 0);
    let why: Vec<String> = why.map(|(count, reason)| format!("{count} dropped because {reason}")).collect();
    let what = if why.is_empty() { "0 usable rows".to_owned() } else { format!("0 usable rows: {}", why.join(", ")) };
    let error = Error::input(what).file(origin);
    if long > 0 { error.hint("raise data.max_len") } else { error }
}
