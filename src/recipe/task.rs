//! Tasks, and what their heads give.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Predict the next token.
    #[default]
    CausalLm,
    /// A class of, or a number about, a text or a pair of texts.
    SeqCls,
    /// A class of each word.
    TokenCls,
    /// Where in a context the answer to a question is.
    QuestionAns,
    /// A text from another, by an encoder and a decoder.
    Seq2seqLm,
    /// Vectors of texts that lie near each other as the texts mean the same.
    FeatureExtraction,
}

impl Task {
    /// Every task, in the order of its documentation.
    pub const ALL: [Task; 6] =
        [Task::CausalLm, Task::SeqCls, Task::TokenCls, Task::QuestionAns, Task::Seq2seqLm, Task::FeatureExtraction];

    /// Whether the head says tokens.
    pub fn predicts_tokens(self) -> bool {
        matches!(self, Task::CausalLm | Task::Seq2seqLm)
    }

    /// Whether the head says classes that have names.
    pub fn has_labels(self) -> bool {
        matches!(self, Task::SeqCls | Task::TokenCls)
    }

    /// The recipe's word.
    pub fn name(self) -> &'static str {
        match self {
            Task::CausalLm => "causal_lm",
            Task::SeqCls => "seq_cls",
            Task::TokenCls => "token_cls",
            Task::QuestionAns => "question_ans",
            Task::Seq2seqLm => "seq2seq_lm",
            Task::FeatureExtraction => "feature_extraction",
        }
    }
}

/// What the head of a task gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Head {
    /// Names of the classes, in the order of the head's outputs; those of the model's own head, else of the training rows, when
    /// empty.
    pub labels: Vec<String>,
    /// Whether `seq_cls` tells classes or a number.
    pub kind: HeadKind,
    /// Which of a text's token vectors make its own.
    pub pooling: Pooling,
    /// What similarities are divided by before they are compared.
    pub temperature: f64,
}

impl Default for Head {
    fn default() -> Self {
        Self { labels: Vec::new(), kind: HeadKind::default(), pooling: Pooling::default(), temperature: 0.05 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// Texts, whole numbers and booleans are classes; numbers with a fraction are numbers.
    #[default]
    Auto,
    /// One class of several.
    Classes,
    /// One number.
    Number,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of all.
    #[default]
    Mean,
    /// The first one's.
    Cls,
    /// The last one's.
    Last,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Recipe, parse};

    fn said(change: impl Fn(&mut Recipe)) -> String {
        let text = "version = 1\n[model]\npath = \"tiny\"\n[adapter.lora]\nrank = 4\n[data]\ntrain = \"rows.jsonl\"\n";
        let mut recipe = parse(text).unwrap();
        change(&mut recipe);
        recipe.check().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn heads_that_cannot_be_meant_are_refused() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(said(|recipe| recipe.head.labels = names(&["no", "yes"])), "");
        let error = said(|recipe| recipe.head.labels = names(&["no", "no"]));
        assert_eq!(error, "key head.labels: two labels have the same name; found `no` twice");
        let error = said(|recipe| recipe.head.labels = names(&["no", " "]));
        assert_eq!(error, "key head.labels[1]: `head.labels[1]` is empty");
        assert!(said(|recipe| recipe.head.temperature = 0.0).starts_with("key head.temperature: "));
        let error = said(|recipe| {
            recipe.head.labels = names(&["no", "yes"]);
            recipe.head.kind = HeadKind::Number;
        });
        assert!(error.starts_with("key head.labels: `head.labels` names classes"), "{error}");
    }

    #[test]
    fn data_of_another_task_is_refused() {
        let error = said(|recipe| {
            recipe.task = Task::QuestionAns;
            (recipe.data.pack, recipe.data.stride) = (true, 128);
            recipe.data.train = "synthetic:menu".into();
        });
        let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("key ")).collect();
        assert_eq!(
            lines,
            [
                "key data.train: no generated corpus `menu` of question_ans; expected synthetic:qa",
                "key data.pack: `data.pack` packs rows for causal_lm, and the task is question_ans",
                "key data.stride: windows that share all their tokens never end; found 128; expected below data.max_len = 128",
            ]
        );
        for name in ["rows.json#train", "rows.conll"] {
            assert_eq!(said(|recipe| recipe.data.train = name.into()), "");
        }
        assert!(said(|recipe| recipe.data.train = "rows.csv#train".into()).contains("names a file of unknown kind"));
    }

    #[test]
    fn one_of_several_arrays_is_a_file_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let text = "version = 1\n[model]\npath = \"tiny\"\n[adapter.lora]\n[data]\ntrain = \"d.json#train\"\n";
        std::fs::write(dir.path().join("my.toml"), text).unwrap();
        let resolved = crate::recipe::load(dir.path().join("my.toml").as_path(), &[]).unwrap();
        assert_eq!(resolved.missing_files().len(), 1);
        std::fs::write(dir.path().join("d.json"), "{}").unwrap();
        assert_eq!(resolved.missing_files().len(), 0);
        assert_eq!(std::path::Path::new(&resolved.anchored().data.train), dir.path().join("d.json#train"));
    }
}
