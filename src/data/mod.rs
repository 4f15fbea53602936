//! From files of rows to batches of token ids: `rows` → `format` → `template` → `encode` → `pack` → `collate`; for tasks beside
//! predicting tokens `rows` → `tasks` → `collate`.

mod batch;
mod collate;
mod dataset;
mod encode;
mod format;
mod inspect;
mod messages;
mod order;
mod pack;
mod reference;
mod rows;
mod sample;
pub mod synthetic;
mod tasks;
mod template;
mod tokenizer;
mod tokenizer_config;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use batch::*;
pub use collate::collate;
pub use dataset::{Dataset, Report, Warning};
pub use encode::{Encoded, Encoder, Note, Prompt};
pub use format::{Example, Layout, Wording};
pub use inspect::{Style, render};
pub use messages::{Message, Role};
pub use order::{batches, permutation};
pub use pack::pack;
pub use reference::{Passage, Reference, Window, Words};
pub use rows::{EXTENSIONS, Row, Table, part};
pub use sample::stratified;
pub use tasks::{Labels, Reads, Setting, encode_inputs, read_inputs, unfit};
pub use template::{GenerationPrompt, Template};
pub use tokenizer::{Special, SpecialTokens, Tokenizer};

use crate::recipe::{Data, EvalData, Format, Task};
use crate::{Error, Result};
use dataset::Examples;

/// The training rows, and those held out.
#[derive(Clone, Debug, PartialEq)]
pub struct Splits {
    pub train: Dataset,
    /// Never packed: one sequence is one row.
    pub eval: Option<Dataset>,
    /// Hex digest of the bytes of the training file, the evaluation file and the template file, in this order.
    pub sha256: String,
    /// Tokens after which a generated answer is over.
    pub stop: Vec<u32>,
    /// Names of the classes, in the order of the head's outputs; empty where the answers are no classes.
    pub labels: Vec<String>,
}

/// Decides which rows are held out, whatever the run's seed: runs that differ in the seed alone are
/// evaluated on the same rows.
const SPLIT_SEED: u64 = 0;

/// Reads, splits and encodes what `[data]` names. Relative paths start at `root`.
///
/// # Errors
/// Any fault in the files, the columns, the template or the values, with file and row; or no usable row.
pub fn load(data: &Data, setting: &Setting, tokenizer: &Tokenizer, root: &Path) -> Result<Splits> {
    match setting.task {
        Task::CausalLm => load_tokens(data, tokenizer, root),
        _ => tasks::load(data, setting, tokenizer, root),
    }
}

fn load_tokens(data: &Data, tokenizer: &Tokenizer, root: &Path) -> Result<Splits> {
    let template = Template::resolve(&data.template, tokenizer, root)?;
    let encoder = Encoder { tokenizer, template: template.as_ref(), loss_on: data.loss_on };
    let mut hash = Sha256::new();
    let (mut train, eval) = split(data, root, &mut hash)?;
    train.rows.truncate(data.max_rows.unwrap_or(usize::MAX));
    let mut train = dataset::build(&train, &encoder, data)?;
    let mut eval = eval.map(|eval| dataset::build(&eval, &encoder, data)).transpose()?;
    if let Some(eval) = &mut eval {
        eval.compare_with(&train);
    }
    if data.pack {
        train.sequences = pack(train.sequences, data.max_len);
    }
    if let Some(template) = &template {
        hash.update(template.source());
        if template.is_dated() {
            let text = "the chat template writes a date; it is 26 July 2024 on every day";
            train.report.warnings.push(Warning::new("template_date", text, train.report.used));
        }
    }
    Ok(Splits { train, eval, sha256: hex(&hash.finalize()), stop: encoder.stop_ids(), labels: Vec::new() })
}

fn split(data: &Data, root: &Path, hash: &mut Sha256) -> Result<(Examples, Option<Examples>)> {
    let train = examples(&data.train, data, root, hash)?;
    match &data.eval {
        None => Ok((train, None)),
        Some(EvalData::Path(path)) => {
            let eval = examples(path, data, root, hash)?;
            Ok((train, Some(eval)))
        }
        Some(EvalData::Fraction { fraction }) => hold_out(&train, *fraction),
    }
}

fn hold_out(all: &Examples, fraction: f64) -> Result<(Examples, Option<Examples>)> {
    let (kept, held) = permuted(all.rows.len(), fraction, &all.origin)?;
    Ok((all.select(&kept), Some(all.select(&held))))
}

/// Indices of the rows to train on, and of those held out: at least one on either side, both in the file's order.
fn permuted(rows: usize, fraction: f64, origin: &Path) -> Result<(Vec<usize>, Vec<usize>)> {
    if !(fraction > 0.0 && fraction < 1.0) {
        let error = Error::input("not a share of the rows").key("data.eval.fraction").found(fraction);
        return Err(error.expected("a number above 0 and below 1").into());
    }
    if rows < 2 {
        return Err(Error::input("one row cannot be split into training and evaluation").file(origin).into());
    }
    let held = ((rows as f64 * fraction).round() as usize).clamp(1, rows - 1);
    let mut order = permutation(rows, SPLIT_SEED, 0);
    order[..held].sort_unstable();
    order[held..].sort_unstable();
    Ok((order[held..].to_vec(), order[..held].to_vec()))
}

/// The rows of a generated corpus or a file.
fn examples(source: &str, data: &Data, root: &Path, hash: &mut Sha256) -> Result<Examples> {
    if let Some(name) = source.strip_prefix("synthetic:") {
        return generated(name, data, hash);
    }
    let table = rows::read(&root.join(source), hash)?;
    let layout = Layout::resolve(&data.format, &table)?;
    let wording = if data.template == "none" { Wording::Standard } else { Wording::Bare };
    let example = |row: &Row| Ok((row.number, layout.example(&table, row, wording)?));
    let rows = table.rows.iter().map(example).collect::<Result<_>>()?;
    Ok(Examples { origin: table.path.clone(), place: table.place, rows })
}

fn generated(name: &str, data: &Data, hash: &mut Sha256) -> Result<Examples> {
    let Some(pairs) = synthetic::pairs(name) else {
        let error = Error::input("no such generated corpus").key("data").found(format!("`synthetic:{name}`"));
        let known: Vec<String> =
            synthetic::names(Task::CausalLm).iter().map(|name| format!("`synthetic:{name}`")).collect();
        return Err(error.expected(known.join(", ")).into());
    };
    if !matches!(data.format, Format::Auto | Format::PromptCompletion) {
        let error = Error::input("a generated corpus has its own format").key("data.format");
        return Err(error.expected("`auto` or `prompt_completion`").into());
    }
    let rows = pairs.into_iter().enumerate().map(|(index, (prompt, completion))| {
        hash.update(format!("{prompt:?}{completion:?}\n"));
        (index + 1, Example::PromptCompletion { prompt, completion })
    });
    let rows = rows.collect();
    Ok(Examples { origin: PathBuf::from(format!("synthetic:{name}")), place: "row", rows })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
