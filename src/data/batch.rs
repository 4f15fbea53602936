//! Token sequences and the rectangular batches made of them. No tensors here.

/// Target value of a position that carries no loss.
pub const IGNORE: i32 = -1;

/// One tokenised row, or several packed into one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    pub ids: Vec<u32>,
    /// Whether the loss counts the prediction *of* this token; the first token never counts.
    pub trained: Vec<bool>,
    /// Document number of each token, from 0: attention stays inside a document.
    pub document: Vec<u32>,
}

/// A rectangle of `rows × len` tokens, right-padded, row-major.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub rows: usize,
    pub len: usize,
    pub ids: Vec<i32>,
    /// Token to predict at each position (the next one of the same document), or [`IGNORE`].
    pub targets: Vec<i32>,
    /// 0 for padding, otherwise 1 + document number.
    pub segment: Vec<i32>,
    /// Position of the token inside its document, for the rotary embedding.
    pub position: Vec<i32>,
}

impl Batch {
    /// Positions that carry a loss.
    pub fn trained_tokens(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORE).count()
    }
    /// Tokens without padding.
    pub fn tokens(&self) -> usize {
        self.segment.iter().filter(|&&segment| segment != 0).count()
    }
}
