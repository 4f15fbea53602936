//! From files of rows to sequences, task by task, with tokenizers whose ids are known.

mod features;
mod labels;
mod question_ans;
mod seq2seq;
mod seq_cls;
mod token_cls;

use std::fs;

use indexmap::IndexMap;
use tempfile::TempDir;

use super::*;
use crate::data::testing::{bert, roberta, t5, tokenizer};
use crate::data::{Answer, IGNORE, collate};

pub struct Trial {
    dir: TempDir,
    pub data: Data,
    pub setting: Setting,
    pub tokenizer: Tokenizer,
}

impl Trial {
    /// The files `train.jsonl` (unless another is named) and what it trains, with BERT's tokenizer.
    pub fn new(task: Task, train: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("train.jsonl"), train).unwrap();
        let data = Data {
            train: "train.jsonl".into(),
            eval: None,
            format: Format::Auto,
            template: "none".into(),
            max_len: 32,
            over_length: OverLength::Drop,
            stride: 2,
            pack: false,
            loss_on: LossOn::Completion,
            max_rows: None,
        };
        let setting = Setting { task, reads: Reads::First, ..Setting::default() };
        Self { dir, data, setting, tokenizer: bert() }
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.dir.path().join(name), text).unwrap();
        self
    }

    pub fn columns(mut self, pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs.iter().map(|(ours, theirs)| (ours.to_string(), theirs.to_string()));
        self.data.format = Format::Columns(pairs.collect::<IndexMap<_, _>>());
        self
    }

    pub fn labels(mut self, names: &[&str]) -> Self {
        self.setting.head.labels = names.iter().map(|name| name.to_string()).collect();
        self
    }

    pub fn load(&self) -> Result<Splits> {
        load(&self.data, &self.setting, &self.tokenizer, self.dir.path())
    }

    pub fn train(&self) -> Dataset {
        self.load().unwrap().train
    }

    /// What is said against the data: one error of the user's, with exit code 2.
    pub fn refusal(&self) -> String {
        let error = self.load().unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    }

    /// The same rows, to predict on.
    pub fn predicted(&self) -> Result<Dataset> {
        let table = read_inputs(&self.data.train, &self.setting, self.dir.path())?;
        encode_inputs(&table, &self.data, &self.setting, &self.tokenizer)
    }
}

pub fn answers(dataset: &Dataset) -> Vec<Answer> {
    dataset.sequences.iter().map(|sequence| sequence.answer.clone()).collect()
}

pub fn ids(dataset: &Dataset) -> Vec<Vec<u32>> {
    dataset.sequences.iter().map(|sequence| sequence.ids.clone()).collect()
}

pub fn warnings(dataset: &Dataset) -> Vec<(&str, usize)> {
    dataset.report.warnings.iter().map(|warning| (warning.code.as_str(), warning.count)).collect()
}
