//! Tasks beside predicting tokens: from rows to sequences that have an answer, one file a task.

mod build;
mod columns;
mod features;
mod labels;
mod question_ans;
mod seq2seq;
mod seq_cls;
mod squad;
mod token_cls;

#[cfg(test)]
mod tests;

use std::path::Path;

use sha2::{Digest, Sha256};

use super::dataset::Dataset;
use super::encode::{Note, Prompt};
use super::rows::{self, Row, Table};
use super::tokenizer::{Joined, Piece, Tokenizer, fit};
use super::{Reference, Sequence, Splits, hex, permuted, synthetic};
use crate::error::InputError;
use crate::recipe::{Data, EvalData, Format, Head, LossOn, OverLength, Task};
use crate::{Error, Result};
use columns::{Columns, Fields, Part};
pub use labels::Labels;

/// What rows are made into, beside what `[data]` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setting {
    pub task: Task,
    pub head: Head,
    /// Where the model reads a whole text.
    pub reads: Reads,
    /// Names of the classes that the model's own head has; empty where it has none, or only numbers them.
    pub labels: Vec<String>,
    /// The token that the model's decoder starts with; 0 with T5.
    pub decoder_start: u32,
}

impl Setting {
    /// For a decoder without a head of its own.
    pub fn new(task: Task, head: &Head) -> Self {
        Self { task, head: head.clone(), ..Self::default() }
    }
}

/// The token at which a model tells the class of a whole text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// The first: encoders, whose attention sees the whole text from everywhere.
    First,
    /// The last: decoders, whose attention has seen the whole text only there.
    #[default]
    Last,
}

/// What rows are encoded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Train,
    Evaluate,
    /// Answers are not asked for, and every row is kept.
    Predict,
}

/// Encodes rows of one task.
pub(super) struct RowEncoder<'a> {
    tokenizer: &'a Tokenizer,
    data: &'a Data,
    setting: &'a Setting,
    purpose: Purpose,
    /// Absent where rows are not answered by classes.
    labels: Option<Labels>,
}

/// A row that can be used.
#[derive(Default)]
pub(super) struct Made {
    sequences: Vec<Sequence>,
    prompt: Option<Prompt>,
    reference: Reference,
    cut: bool,
    notes: Vec<Note>,
}

/// Why a row cannot be used.
pub(super) enum Unusable {
    Bad(InputError),
    /// So many tokens.
    TooLong(usize),
    /// It has no token, or none that the loss would count.
    Untrained,
}

impl From<InputError> for Unusable {
    fn from(error: InputError) -> Self {
        Unusable::Bad(error)
    }
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        Unusable::Bad(super::encode::to_input(error))
    }
}

/// Reads, splits and encodes what `[data]` names for a task other than predicting tokens.
pub(super) fn load(data: &Data, setting: &Setting, tokenizer: &Tokenizer, root: &Path) -> Result<Splits> {
    if let Some((key, what, hint)) = unfit(data, setting.task).into_iter().next() {
        return Err(Error::input(what).key(key).hint(hint).into());
    }
    let mut hash = Sha256::new();
    let table = table(&data.train, setting.task, root, &mut hash)?;
    let columns = Columns::resolve(&data.format, &table, parts(setting.task, Purpose::Train), Purpose::Train)?;
    let labels = labels(&table, &columns, setting)?;
    let encoder = |purpose| RowEncoder { tokenizer, data, setting, purpose, labels: labels.clone() };
    let all: Vec<&Row> = table.rows.iter().collect();
    let (mut train, mut eval) = (all.clone(), None);
    match &data.eval {
        None => {}
        Some(EvalData::Path(path)) => {
            let other = self::table(path, setting.task, root, &mut hash)?;
            let encoder = encoder(Purpose::Evaluate);
            let columns = encoder.columns(&other)?;
            eval = Some(build::build(&encoder, &other, &columns, &other.rows.iter().collect::<Vec<_>>())?);
        }
        Some(EvalData::Fraction { fraction }) => {
            let (kept, held) = permuted(all.len(), *fraction, &table.path)?;
            train = kept.into_iter().map(|at| all[at]).collect();
            let held: Vec<&Row> = held.into_iter().map(|at| all[at]).collect();
            eval = Some(build::build(&encoder(Purpose::Evaluate), &table, &columns, &held)?);
        }
    }
    train.truncate(data.max_rows.unwrap_or(usize::MAX));
    let train = build::build(&encoder(Purpose::Train), &table, &columns, &train)?;
    if let Some(eval) = &mut eval {
        eval.compare_with(&train);
    }
    let labels = labels.map_or(Vec::new(), |labels| labels.names().to_vec());
    let stop = tokenizer.eos().into_iter().collect();
    Ok(Splits { train, eval, sha256: hex(&hash.finalize()), stop, labels })
}

/// Encodes rows that have no answers, for prediction: every row gives something, long ones are cut. Answers that are there are not
/// looked at, and the sequences say [`Answer::Unknown`](super::Answer::Unknown). The rows are those of [`read_inputs`] or
/// [`Table::single`], with the columns that `data.format` tells.
///
/// # Errors
/// A column that is missing, or a row without a token, with its number.
pub fn encode_inputs(table: &Table, data: &Data, setting: &Setting, tokenizer: &Tokenizer) -> Result<Dataset> {
    let encoder = RowEncoder { tokenizer, data, setting, purpose: Purpose::Predict, labels: None };
    let columns = encoder.columns(table)?;
    build::build(&encoder, table, &columns, &table.rows.iter().collect::<Vec<_>>())
}

/// The rows of a file, or of a generated corpus, for [`encode_inputs`].
///
/// # Errors
/// Anything that is not a readable, non-empty, well-formed file of rows: an input error with file and line.
pub fn read_inputs(source: &str, setting: &Setting, root: &Path) -> Result<Table> {
    table(source, setting.task, root, &mut Sha256::new())
}

/// What `[data]` says that a task has no use for: key, reason, remedy.
pub fn unfit(data: &Data, task: Task) -> Vec<(&'static str, String, &'static str)> {
    if task == Task::CausalLm {
        return Vec::new();
    }
    let name = task.name();
    let format = !matches!(data.format, Format::Auto | Format::Columns(_));
    let rules = [
        (data.pack, "data.pack", "packs rows", "set it to false"),
        (data.template != "none", "data.template", "renders conversations", "set it to \"none\""),
        (data.loss_on != LossOn::default(), "data.loss_on", "chooses tokens to predict", "leave it out"),
        (format, "data.format", "lays out conversations and completions", "\"auto\", or { columns = { ... } }"),
    ];
    let apply = rules.into_iter().filter(|(applies, ..)| *applies);
    apply
        .map(|(_, key, does, hint)| (key, format!("`{key}` {does} for causal_lm, and the task is {name}"), hint))
        .collect()
}

/// A generated corpus, or a file.
fn table(source: &str, task: Task, root: &Path, hash: &mut Sha256) -> Result<Table> {
    match source.strip_prefix("synthetic:") {
        Some(name) => synthetic::table(name, task, hash),
        None => squad::flattened(rows::read(&root.join(source), hash)?, task),
    }
}

fn parts(task: Task, purpose: Purpose) -> &'static [Part] {
    match (task, purpose) {
        (Task::CausalLm, _) => &[],
        (Task::SeqCls, _) => &seq_cls::PARTS,
        (Task::TokenCls, Purpose::Predict) => &token_cls::INPUTS,
        (Task::TokenCls, _) => &token_cls::PARTS,
        (Task::QuestionAns, _) => &question_ans::PARTS,
        (Task::Seq2seqLm, Purpose::Predict) => &seq2seq::INPUTS,
        (Task::Seq2seqLm, _) => &seq2seq::PARTS,
        (Task::FeatureExtraction, Purpose::Predict) => &features::INPUTS,
        (Task::FeatureExtraction, _) => &features::PARTS,
    }
}

/// The classes: those the recipe names, else those of the model's own head, else those of the training file's rows.
fn labels(table: &Table, columns: &Columns, setting: &Setting) -> Result<Option<Labels>> {
    let given = [&setting.head.labels, &setting.labels].into_iter().find(|names| !names.is_empty());
    match setting.task {
        Task::SeqCls => seq_cls::labels(table, columns, setting, given),
        Task::TokenCls => token_cls::labels(table, columns, given).map(Some),
        _ => Ok(None),
    }
}

impl RowEncoder<'_> {
    fn columns(&self, table: &Table) -> Result<Columns> {
        Columns::resolve(&self.data.format, table, parts(self.setting.task, self.purpose), self.purpose)
    }

    fn encode(&self, fields: &Fields) -> Result<Made, Unusable> {
        match self.setting.task {
            Task::CausalLm => Err(Error::input("causal_lm has its own encoder").into()),
            Task::SeqCls => seq_cls::encode(self, fields),
            Task::TokenCls => token_cls::encode(self, fields),
            Task::QuestionAns => question_ans::encode(self, fields),
            Task::Seq2seqLm => seq2seq::encode(self, fields),
            Task::FeatureExtraction => features::encode(self, fields),
        }
    }

    fn may_cut(&self) -> bool {
        self.purpose == Purpose::Predict || self.data.over_length == OverLength::Truncate
    }

    /// Tokens that `texts` texts may have together.
    fn room(&self, texts: usize) -> Result<usize, InputError> {
        let added = self.tokenizer.added(texts);
        self.data.max_len.checked_sub(added).filter(|&room| room > 0).ok_or_else(|| {
            let error = Error::input("no row is shorter than what the tokenizer puts around it").key("data.max_len");
            error.found(self.data.max_len).expected(format!("more than {added}"))
        })
    }

    /// One text or two with the tokens around them, within `max_len`; and whether anything was cut.
    fn joined(&self, first: &str, second: Option<&str>) -> Result<(Joined, bool), Unusable> {
        let first = self.tokenizer.split(first)?;
        let second = second.map(|text| self.tokenizer.split(text)).transpose()?;
        self.fitted(first, second)
    }

    fn fitted(&self, mut first: Vec<Piece>, second: Option<Vec<Piece>>) -> Result<(Joined, bool), Unusable> {
        let texts = if second.is_some() { 2 } else { 1 };
        let (room, is_pair) = (self.room(texts)?, second.is_some());
        let mut second = second.unwrap_or_default();
        let tokens = first.len() + second.len();
        if tokens == 0 {
            return Err(Unusable::Untrained);
        }
        if tokens > room && !self.may_cut() {
            return Err(Unusable::TooLong(tokens + self.tokenizer.added(texts)));
        }
        fit(&mut first, &mut second, room);
        Ok((self.tokenizer.join(&first, is_pair.then_some(second.as_slice()))?, tokens > room))
    }

    /// What is worth counting about texts of a row.
    fn notes(&self, texts: &[&str]) -> Vec<Note> {
        let literal = texts.iter().any(|text| !self.tokenizer.cuts(text).is_empty());
        literal.then_some(Note::LiteralSpecial).into_iter().collect()
    }
}
