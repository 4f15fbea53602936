//! The small tokenizer that the data tests use: byte-level BPE of 512 tokens; it puts `<s>` before a text.

use tokenizers::AddedToken;

use super::tokenizer::{SpecialTokens, Tokenizer};

pub(super) const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tokenizer");

pub(super) fn tokenizer() -> Tokenizer {
    Tokenizer::from_dir(DIR.as_ref()).unwrap()
}

/// The same with more special tokens, from id 512 on.
pub(super) fn tokenizer_with(special: &[&str]) -> Tokenizer {
    let mut inner = tokenizers::Tokenizer::from_file(format!("{DIR}/tokenizer.json")).unwrap();
    let tokens: Vec<_> = special.iter().map(|&text| AddedToken::from(text, true)).collect();
    inner.add_special_tokens(&tokens);
    Tokenizer::new(inner, SpecialTokens { bos: Some(1), eos: Some(2), pad: Some(0) }, None)
}
