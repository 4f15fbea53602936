//! Rows to predict on: texts of the command line, or a file.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use lowrank::data::{Dataset, Row, Table, encode_inputs, read_inputs};
use lowrank::predict::{Predictions, Reading};
use lowrank::recipe::{Data, Format, Head};
use lowrank::train::{Subject, predict, setting};
use lowrank::{Error, Result};
use serde_json::Value;

use crate::pick;

/// Tokens of the longest row where no recipe says: what most encoders were trained on.
const MAX_LEN: usize = 512;
/// Rows per forward.
const BATCH: usize = 32;

/// A model with what it needs to read rows.
pub struct Rows {
    pub subject: Subject,
    pub head: Head,
    /// As the rows came.
    pub table: Table,
    pub dataset: Dataset,
}

impl Rows {
    /// Rows of `file`, or `typed` ones; columns are as the recipe of a run has them, where the rows are a file's.
    pub fn open(subject: Subject, typed: Vec<Vec<(&str, String)>>, file: Option<&Path>) -> Result<Self> {
        let task = subject.opened.config.task;
        let recipe = subject.recipe.as_ref();
        let head = recipe.map(|recipe| recipe.head.clone()).unwrap_or_default();
        let longest = subject.opened.config.positions().min(MAX_LEN);
        let mut data = recipe.map_or_else(|| Data { max_len: longest, ..Data::of("") }, |recipe| recipe.data.clone());
        let setting = setting(task, &head, &subject.opened);
        let table = match file {
            Some(file) if typed.is_empty() => read_inputs(&file.display().to_string(), &setting, Path::new(""))?,
            None if !typed.is_empty() => {
                data.format = Format::Auto;
                table(typed)
            }
            Some(_) => return Err(Error::input("rows come from the command line or from a file, not from both").into()),
            None => return Err(Error::input("nothing to read").hint("give texts, or a file with `--file`").into()),
        };
        let dataset = encode_inputs(&table, &data, &setting, &subject.opened.tokenizer)?;
        Ok(Self { subject, head, table, dataset })
    }

    /// What the model says about them.
    pub fn predict(&self, device: &str) -> Result<Predictions> {
        let (learner, warnings) = self.subject.load(&pick(device)?)?;
        warnings.iter().for_each(|warning| eprintln!("warn   {warning}"));
        self.dataset.report.warnings.iter().for_each(|warning| eprintln!("warn   {}: {}", warning.count, warning.text));
        let total = self.dataset.sequences.len();
        let shows = std::io::stderr().is_terminal() && total > BATCH;
        let mut progress = |done: usize| {
            if shows {
                eprint!("\rread {done}/{total} rows{}", if done == total { "\n" } else { "" });
            }
        };
        let rows = (&self.dataset, &self.subject.opened.tokenizer, BATCH);
        predict(learner.as_ref(), &self.reading(), &self.head, rows, &mut progress)
    }

    pub fn reading(&self) -> Reading<'_> {
        let config = &self.subject.opened.config;
        Reading { task: config.task, labels: &config.labels, pooling: self.head.pooling }
    }

    /// The text of a row, whatever its column is called.
    pub fn text(&self, row: usize) -> Value {
        self.table.rows[row].fields.values().find(|value| value.is_string()).cloned().unwrap_or_default()
    }

    /// What the class is called.
    pub fn label(&self, class: usize) -> &str {
        self.subject.opened.config.labels.get(class).map_or("", String::as_str)
    }
}

fn table(typed: Vec<Vec<(&str, String)>>) -> Table {
    let row = |(i, fields): (usize, Vec<(&str, String)>)| Row {
        number: i + 1,
        fields: fields.into_iter().map(|(name, text)| (name.to_string(), Value::String(text))).collect(),
    };
    let rows = typed.into_iter().enumerate().map(row).collect();
    Table { path: PathBuf::from("command line"), place: "row", rows }
}
