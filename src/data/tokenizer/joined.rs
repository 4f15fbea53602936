//! One or two texts, with the special tokens that the tokenizer's post-processor puts around them.

use std::ops::Range;

use tokenizers::PostProcessor;
use tokenizers::tokenizer::{Encoding, Token};

use super::{Place, Tokenizer, guarded};
use crate::Result;
use crate::data::Sequence;

/// A token of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    pub id: u32,
    /// The vocabulary's spelling.
    pub spelling: String,
    /// The bytes of the text it stands for; of its word, where words were encoded.
    pub span: Range<usize>,
    /// The word it is of, from 0; 0 where a text was encoded as one.
    pub word: usize,
}

/// What goes through the model for one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joined {
    pub ids: Vec<u32>,
    /// Which of two texts each token is of, as the model is told it.
    pub token_type: Vec<i32>,
    /// The text (0 or 1), and the piece of it, that each token is; `None` for the tokens around them.
    pub piece: Vec<Option<(usize, usize)>>,
}

impl Joined {
    /// Positions of the pieces of text `number` (0 or 1), in order.
    pub fn positions(&self, number: usize) -> Vec<usize> {
        let of = |at: &usize| self.piece[*at].is_some_and(|(text, _)| text == number);
        (0..self.ids.len()).filter(of).collect()
    }

    /// One document that trains nothing yet.
    pub fn into_sequence(self) -> Sequence {
        let len = self.ids.len();
        let told_apart = self.token_type.iter().any(|&kind| kind != 0);
        let token_type = if told_apart { self.token_type } else { Vec::new() };
        Sequence { ids: self.ids, trained: vec![false; len], document: vec![0; len], token_type, ..Sequence::default() }
    }
}

impl Tokenizer {
    /// The tokens of a text from data: names of special tokens in it are ordinary characters.
    pub fn split(&self, text: &str) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for end in self.cuts(text).into_iter().chain([text.len()]) {
            let place = if start == 0 { Place::Start } else { Place::Inside };
            pieces.extend(self.part(&text[start..end], place, start)?);
            start = end;
        }
        Ok(pieces)
    }

    /// The tokens of words that were told apart already, each encoded on its own (`is_split_into_words` of transformers). Where a
    /// tokenizer marks words by the space before them, every word has one (`add_prefix_space`, which transformers asks for there).
    pub fn split_words(&self, words: &[String]) -> Result<Vec<Piece>> {
        let spaced = !self.marks_start && self.run(" x", false)? != self.run("x", false)?;
        let mut all = Vec::new();
        for (number, word) in words.iter().enumerate() {
            let lead = usize::from(spaced && !word.is_empty() && !word.starts_with(char::is_whitespace));
            let mut pieces = if lead == 1 { self.split(&format!(" {word}"))? } else { self.split(word)? };
            for piece in &mut pieces {
                piece.word = number;
                piece.span = piece.span.start.saturating_sub(lead)..piece.span.end.saturating_sub(lead);
            }
            all.extend(pieces);
        }
        Ok(all)
    }

    /// Tokens that [`join`](Self::join) puts around one text, or two.
    pub fn added(&self, texts: usize) -> usize {
        self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(texts == 2))
    }

    /// `[CLS] a [SEP] b [SEP]` with BERT, `<s> a </s></s> b </s>` with RoBERTa: what `tok(a, b)` gives in Python.
    pub fn join(&self, first: &[Piece], second: Option<&[Piece]>) -> Result<Joined> {
        let encoding = guarded(|| {
            let second = second.map(|pieces| encoding(pieces, 1));
            self.inner.post_process(encoding(first, 0), second, true)
        });
        let encoding =
            encoding.map_err(|why| self.error(format!("the tokenizer's post-processor fails on a row: {why}")))?;
        let mut next = [0, 0];
        let number = |text: Option<usize>| {
            let text = text?;
            next[text] += 1;
            Some((text, next[text] - 1))
        };
        Ok(Joined {
            ids: encoding.get_ids().to_vec(),
            token_type: encoding.get_type_ids().iter().map(|&kind| kind as i32).collect(),
            piece: encoding.get_sequence_ids().into_iter().map(number).collect(),
        })
    }

    fn part(&self, text: &str, place: Place, offset: usize) -> Result<Vec<Piece>> {
        if place == Place::Inside && self.marks_start {
            let (anchor, whole) = (self.raw("\n")?, self.raw(&format!("\n{text}"))?);
            let same = |(a, b): (&Piece, &Piece)| a.id == b.id;
            if whole.len() >= anchor.len() && anchor.iter().zip(&whole).all(same) {
                let rest = whole.into_iter().skip(anchor.len());
                return Ok(rest.map(|piece| shifted(piece, |at| (at + offset).saturating_sub(1))).collect());
            }
        }
        Ok(self.raw(text)?.into_iter().map(|piece| shifted(piece, |at| at + offset)).collect())
    }

    fn raw(&self, text: &str) -> Result<Vec<Piece>> {
        let encoding = guarded(|| self.inner.encode(text, false))
            .map_err(|why| self.error(format!("the tokenizer fails on a text: {why}")).found(super::excerpt(text)))?;
        let of = |at: usize| {
            let (start, end) = encoding.get_offsets()[at];
            let spelling = encoding.get_tokens()[at].clone();
            Piece { id: encoding.get_ids()[at], spelling, span: start..end, word: 0 }
        };
        Ok((0..encoding.len()).map(of).collect())
    }
}

fn shifted(piece: Piece, by: impl Fn(usize) -> usize) -> Piece {
    Piece { span: by(piece.span.start)..by(piece.span.end), ..piece }
}

fn encoding(pieces: &[Piece], text: u32) -> Encoding {
    let token = |piece: &Piece| Token::new(piece.id, piece.spelling.clone(), (piece.span.start, piece.span.end));
    Encoding::from_tokens(pieces.iter().map(token).collect(), text)
}

/// Cuts the longer text's end, then both alike, until `room` tokens are left: `longest_first` of transformers.
pub fn fit(first: &mut Vec<Piece>, second: &mut Vec<Piece>, room: usize) {
    let (short, long) = (first.len().min(second.len()), first.len().max(second.len()));
    if short + long <= room {
        return;
    }
    let (short, long) = if 2 * short <= room { (short, room - short) } else { (room / 2, room - room / 2) };
    let first_is_short = first.len() <= second.len();
    first.truncate(if first_is_short { short } else { long });
    second.truncate(if first_is_short { long } else { short });
}
