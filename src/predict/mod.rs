//! What a head's outputs say about rows, and how right it is: plain numbers and text, one file for each kind of answer.

mod classes;
mod spans;
mod tags;
mod vectors;

pub use classes::Chosen;
pub use spans::Found;

use std::ops::Range;

use crate::Result;
use crate::data::{Batch, Dataset, IGNORE};
use crate::metrics::Scores;
use crate::recipe::{Pooling, Task};

/// What a model says about the rows of a dataset, in their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Predictions {
    Classes(Vec<Chosen>),
    Numbers(Vec<f64>),
    /// The class of each word of each row; none of words that were cut off.
    Tags(Vec<Vec<Option<usize>>>),
    /// One for each passage, whatever windows it was read in.
    Spans(Vec<Found>),
    /// Of each row's own text, and of the text that it should be like where the rows have one; of length 1.
    Vectors {
        texts: Vec<Vec<f32>>,
        others: Vec<Vec<f32>>,
    },
}

/// How outputs are read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    pub task: Task,
    /// Names of the classes; empty where outputs are numbers.
    pub labels: &'a [String],
    pub pooling: Pooling,
}

impl Reading<'_> {
    /// Nothing yet about a dataset; none of a task whose outputs are tokens.
    pub fn start(&self, dataset: &Dataset) -> Option<Predictions> {
        Some(match self.task {
            Task::CausalLm | Task::Seq2seqLm => return None,
            Task::SeqCls if self.labels.is_empty() => Predictions::Numbers(Vec::new()),
            Task::SeqCls => Predictions::Classes(Vec::new()),
            Task::TokenCls => Predictions::Tags(Vec::new()),
            Task::QuestionAns => Predictions::Spans(spans::unread(&dataset.reference)),
            Task::FeatureExtraction => Predictions::Vectors { texts: Vec::new(), others: Vec::new() },
        })
    }

    /// Reads the outputs `[rows × len × outputs]` of a batch made of the sequences of those numbers.
    pub fn read(&self, into: &mut Predictions, dataset: &Dataset, of: Range<usize>, batch: &Batch, outputs: &[f32]) {
        let (first, rows) = (of.start, of.len());
        let width = outputs.len() / (batch.rows * batch.len).max(1);
        let at = |position: usize| &outputs[position * width..(position + 1) * width];
        match into {
            Predictions::Classes(found) => found.extend(asked(batch).map(|i| Chosen::of(at(i)))),
            Predictions::Numbers(found) => found.extend(asked(batch).map(|i| f64::from(at(i)[0]))),
            Predictions::Tags(found) => {
                found.extend((0..rows).map(|row| {
                    tags::of_row(&dataset.reference, first + row, |position| at(row * batch.len + position))
                }))
            }
            Predictions::Spans(found) => (0..rows).for_each(|row| {
                spans::read_window(found, &dataset.reference, first + row, |position| at(row * batch.len + position));
            }),
            Predictions::Vectors { texts, others } => {
                let vectors = vectors::pooled(batch, outputs, self.pooling);
                let pairs = if batch.rows > rows { rows } else { 0 };
                let mut vectors = vectors.into_iter();
                texts.extend(vectors.by_ref().take(rows));
                others.extend(vectors.take(pairs));
            }
        }
    }

    /// The task's metrics.
    ///
    /// # Errors
    /// If there is nothing to score.
    pub fn scores(&self, predictions: &Predictions, dataset: &Dataset) -> Result<Scores> {
        match predictions {
            Predictions::Classes(found) => classes::scores(found, dataset, self.labels.len()),
            Predictions::Numbers(found) => classes::number_scores(found, dataset),
            Predictions::Tags(found) => tags::scores(found, dataset, self.labels),
            Predictions::Spans(found) => spans::scores(found, &dataset.reference),
            Predictions::Vectors { texts, others } => vectors::scores(texts, others, dataset),
        }
    }
}

/// Positions of a batch that the head is asked about, in order.
fn asked(batch: &Batch) -> impl Iterator<Item = usize> {
    batch.targets.iter().enumerate().filter(|(_, target)| **target != IGNORE).map(|(position, _)| position)
}
