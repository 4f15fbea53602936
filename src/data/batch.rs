//! Token sequences and the rectangular batches made of them. No tensors here.

use crate::recipe::{Head, Pooling};

/// Target value of a position that carries no loss.
pub const IGNORE: i32 = -1;

/// One tokenised row, or several packed into one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence {
    pub ids: Vec<u32>,
    /// Whether the loss counts the token: of its own tokens the prediction *of* this one (the first never counts), of a class or
    /// number what is said *at* it, of a span the tokens of the answer, of a vector every token. A source trains none.
    pub trained: Vec<bool>,
    /// Document number of each token, from 0: attention stays inside a document.
    pub document: Vec<u32>,
    /// Which of two texts each token is of, 0 or 1; empty where there is one text.
    pub token_type: Vec<i32>,
    /// What a task other than predicting tokens asks about the row.
    pub answer: Answer,
}

/// What is to be said about one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Answer {
    /// Its own tokens.
    #[default]
    Tokens,
    /// Nothing, as when predicting: the row is read, and its batch has class 0 wherever a class would be asked for.
    Unknown,
    /// A class of the whole row, an index into the labels.
    Class(u32),
    /// A number about the whole row.
    Number(f32),
    /// A class of each token; [`IGNORE`] where none is asked for.
    Tags(Vec<i32>),
    /// First and last token of the answer; both 0, which is the first token, where the row has none.
    Span([u32; 2]),
    /// Texts that this one should be like, the first of them, and unlike, the others; with a score of the first where the data has
    /// one, which is evaluated and not trained on.
    Alike { others: Vec<Sequence>, score: Option<f32> },
    /// Another text, by a decoder: from the token that decoders start with to `eos`, both included.
    Text(Vec<u32>),
}

/// A rectangle of `rows × len` tokens, right-padded, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub rows: usize,
    pub len: usize,
    pub ids: Vec<i32>,
    /// Class to predict at each position (of the decoder, where there is one), or [`IGNORE`]: the next token of the same document,
    /// or a label.
    pub targets: Vec<i32>,
    /// 0 for padding, otherwise 1 + document number.
    pub segment: Vec<i32>,
    /// Position of the token inside its document, for the rotary embedding.
    pub position: Vec<i32>,
    /// Which of two texts each token is of, 0 or 1; empty where no row has two, or the model does not tell them apart.
    pub token_type: Vec<i32>,
    /// What a decoder reads beside the tokens.
    pub decoder: Option<Decoder>,
    pub goal: Goal,
}

/// The decoder's rectangle of `rows × len`, right-padded, row-major: each target text shifted right by one, so that position `i` has
/// read `start, t1, ..., ti` and is to say `t(i+1)`, which is in [`Batch::targets`]; the last says `eos`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoder {
    pub len: usize,
    pub ids: Vec<i32>,
    /// 0 for padding, otherwise 1.
    pub segment: Vec<i32>,
}

/// What the loss of a batch compares.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Goal {
    /// The class of each position that has a target: cross-entropy, summed.
    #[default]
    Classes,
    /// One number for each position that has a target, in order: squared error, summed.
    Numbers(Vec<f32>),
    /// First and last position of the answer of each row: the mean of both cross-entropies over all positions, summed over rows.
    Spans(Vec<[i32; 2]>),
    /// In-batch contrast, summed over anchors.
    Alike(Contrast),
}

/// Which rows of a batch should be like which: the first are anchors, as many after them what each should be like, and the rest what
/// none should.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contrast {
    pub anchors: usize,
    pub pooling: Pooling,
    /// What similarities are divided by.
    pub temperature: f64,
}

impl Contrast {
    /// Under the defaults of `[head]`.
    pub fn of(anchors: usize) -> Self {
        let Head { pooling, temperature, .. } = Head::default();
        Self { anchors, pooling, temperature }
    }
}

impl Sequence {
    /// Keeps the first `len` tokens, with what is asked about them.
    pub fn truncate(&mut self, len: usize) {
        self.ids.truncate(len);
        self.trained.truncate(len);
        self.document.truncate(len);
        self.token_type.truncate(len);
        if let Answer::Tags(tags) = &mut self.answer {
            tags.truncate(len);
        }
    }

    /// Tokens that the loss counts.
    pub fn counted(&self) -> usize {
        match &self.answer {
            Answer::Text(_) => self.decoded(),
            _ => self.trained.iter().filter(|&&trained| trained).count(),
        }
    }

    /// Texts beside its own that it should be like, or unlike.
    pub fn others(&self) -> &[Sequence] {
        match &self.answer {
            Answer::Alike { others, .. } => others,
            _ => &[],
        }
    }

    /// Tokens that a decoder reads, and says, beside the row's own.
    pub fn decoded(&self) -> usize {
        match &self.answer {
            Answer::Text(ids) => ids.len().saturating_sub(1),
            _ => 0,
        }
    }
}

impl Batch {
    /// Terms of the loss: positions with a target, or rows where one is asked about each.
    pub fn terms(&self) -> usize {
        match self.goal {
            Goal::Classes | Goal::Numbers(_) => self.targets.iter().filter(|&&target| target != IGNORE).count(),
            Goal::Spans(_) => self.rows,
            Goal::Alike(contrast) => contrast.anchors,
        }
    }

    /// The same, its contrast as a recipe's head has it.
    pub fn under(mut self, head: &Head) -> Self {
        if let Goal::Alike(contrast) = &mut self.goal {
            (contrast.pooling, contrast.temperature) = (head.pooling, head.temperature);
        }
        self
    }

    /// Share of each token in its row's vector, `[rows, rows × len]`: the vectors are this times the tokens' own.
    pub fn pooling_weights(&self, pooling: Pooling) -> Vec<f32> {
        let n = self.rows * self.len;
        let mut weights = vec![0.0; self.rows * n];
        for row in 0..self.rows {
            let tokens: Vec<usize> = (row * self.len..(row + 1) * self.len).filter(|&i| self.segment[i] != 0).collect();
            let of_row = &mut weights[row * n..(row + 1) * n];
            match pooling {
                Pooling::Mean => tokens.iter().for_each(|&i| of_row[i] = 1.0 / tokens.len() as f32),
                Pooling::Cls => tokens.first().into_iter().for_each(|&i| of_row[i] = 1.0),
                Pooling::Last => tokens.last().into_iter().for_each(|&i| of_row[i] = 1.0),
            }
        }
        weights
    }

    /// Tokens without padding, those of the decoder too.
    pub fn tokens(&self) -> usize {
        let decoder = self.decoder.as_ref().map_or([].as_slice(), |decoder| &decoder.segment);
        self.segment.iter().chain(decoder).filter(|&&segment| segment != 0).count()
    }
}
