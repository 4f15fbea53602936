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
