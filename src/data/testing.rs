//! The small tokenizers that the data tests use. [`tokenizer`] is a byte-level BPE of 512 tokens; it puts `<s>` before a text.

use serde_json::{Value, json};
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

/// The vocabulary of [`bert`], by id.
pub(super) const WORDS: [&str; 24] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "anna", "sings", "in", "kel", "##so", ".", "who", "?", "the", "town", "of",
    "is", "old", "[", "sep", "]", "a", "b", "c", "##s",
];

/// WordPiece as BERT has it: lower case, `[CLS] a [SEP] b [SEP]`.
pub(super) fn bert() -> Tokenizer {
    let vocab: serde_json::Map<String, Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true})
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    });
    let config = json!({"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"});
    Tokenizer::from_json(file.to_string().as_bytes(), Some(config.to_string().as_bytes()), "bert.json".as_ref())
        .unwrap()
}

/// The byte-level tokenizer with another post-processor.
fn processed(post_processor: Value) -> Tokenizer {
    let mut file: Value = serde_json::from_slice(&std::fs::read(format!("{DIR}/tokenizer.json")).unwrap()).unwrap();
    file["post_processor"] = post_processor;
    let config = std::fs::read(format!("{DIR}/tokenizer_config.json")).unwrap();
    Tokenizer::from_json(file.to_string().as_bytes(), Some(&config), "processed.json".as_ref()).unwrap()
}

/// `<s> a </s></s> b </s>`, as RoBERTa has it.
pub(super) fn roberta() -> Tokenizer {
    processed(json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": true,
        "add_prefix_space": false}))
}

/// `a </s>`, as T5 has it.
pub(super) fn t5() -> Tokenizer {
    let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    processed(
        json!({"type": "TemplateProcessing", "single": [text("A"), end], "pair": [text("A"), end, text("B"), end],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}),
    )
}
