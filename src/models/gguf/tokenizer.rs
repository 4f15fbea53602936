//! The tokenizer of a GGUF file, rewritten as `tokenizer.json` and `tokenizer_config.json`.
//!
//! Two kinds: `gpt2`, byte-level BPE whose way of cutting words goes by a name, and `llama`, SentencePiece BPE,
//! whose merges follow from the scores. A name we cannot reproduce exactly is refused.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::{Error, Result};

/// What a Hugging Face directory would hold.
pub struct TokenizerFiles {
    pub tokenizer_json: Vec<u8>,
    pub tokenizer_config_json: Vec<u8>,
}

/// Kinds of token, as SentencePiece numbers them.
const NORMAL: i128 = 1;
const UNKNOWN: i128 = 2;
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;

pub(super) fn files(metadata: &Metadata) -> Result<TokenizerFiles> {
    let vocabulary = Vocabulary::new(metadata)?;
    let (pipeline, defaults) = match metadata.text("tokenizer.ggml.model")? {
        Some("gpt2") => byte_level(metadata, &vocabulary)?,
        Some("llama") => sentence_piece(metadata, &vocabulary)?,
        other => {
            let error = metadata.error("tokenizer.ggml.model", "unsupported tokenizer");
            return Err(error.found(format!("{other:?}")).expected("gpt2 or llama").into());
        }
    };
    let Pipeline { normalizer, pre_tokenizer, decoder, model } = pipeline;
    let special = Special::new(metadata, &vocabulary, defaults)?;
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": special.post_processor(), "decoder": decoder, "model": model,
    });
    Ok(TokenizerFiles {
        tokenizer_json: tokenizer.to_string().into_bytes(),
        tokenizer_config_json: special.config(metadata)?.to_string().into_bytes(),
    })
}

struct Vocabulary<'a> {
    tokens: &'a [String],
    kinds: Vec<i128>,
    ids: Map<String, Value>,
}

impl<'a> Vocabulary<'a> {
    fn new(metadata: &'a Metadata) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let tokens = metadata.texts(key)?.unwrap_or_default();
        if tokens.is_empty() {
            return Err(metadata.error(key, "no tokenizer in this file").into());
        }
        let kinds = match metadata.ints("tokenizer.ggml.token_type")? {
            Some(kinds) => kinds.to_vec(),
            None => vec![NORMAL; tokens.len()],
        };
        if kinds.len() != tokens.len() {
            let error = metadata.error("tokenizer.ggml.token_type", "not one type per token");
            return Err(error.found(kinds.len()).expected(tokens.len()).into());
        }
        let mut ids = Map::new();
        for (id, token) in tokens.iter().enumerate() {
            if ids.insert(token.clone(), json!(id)).is_some() {
                return Err(metadata.error(key, "the same token twice").found(format!("{token:?}")).into());
            }
        }
        Ok(Self { tokens, kinds, ids })
    }

    fn token(&self, id: u32) -> Option<&'a str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// Tokens that are cut out of the text before anything else.
    fn added(&self) -> Vec<Value> {
        let added = |(id, kind): (usize, &i128)| {
            [UNKNOWN, CONTROL, USER_DEFINED].contains(kind).then(|| {
                json!({
                    "id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind != USER_DEFINED,
                })
            })
        };
        self.kinds.iter().enumerate().filter_map(added).collect()
    }
}

/// The parts of `tokenizer.json` that differ between the kinds.
struct Pipeline {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
}

/// What holds when the metadata do not say.
struct Defaults {
    add_bos: bool,
    bos: Option<u32>,
    eos: Option<u32>,
}

/// How llama.cpp's names for ways of cutting text into words read in a `tokenizer.json`.
fn byte_level(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<(Pipeline, Defaults)> {
    let split = |digits: &str| {
        let words = format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        json!({ "type": "Split", "pattern": { "Regex": words }, "behavior": "Isolated", "invert": false })
    };
    let bytes = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let sequence = |first: Value, last: Value| json!({ "type": "Sequence", "pretokenizers": [first, last] });
    let name = metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let (normalizer, pre_tokenizer, ignore_merges) = match name {
        "default" | "gpt-2" | "gpt2" => (Value::Null, bytes(true), false),
        "smollm" | "starcoder" | "refact" | "codeshell" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            (Value::Null, sequence(digits, bytes(true)), false)
        }
        "llama-bpe" | "llama3" | "llama-v3" => (Value::Null, sequence(split(r"\p{N}{1,3}"), bytes(false)), true),
        "qwen2" | "deepseek-r1-qwen" => (json!({ "type": "NFC" }), sequence(split(r"\p{N}"), bytes(false)), false),
        other => {
            let error = metadata.error("tokenizer.ggml.pre", "unknown way of cutting words").found(other);
            let error = error.expected("default, gpt-2, smollm, starcoder, refact, codeshell, llama-bpe or qwen2");
            return Err(error.hint("open the Hugging Face directory of this model instead").into());
        }
    };
    let merges = metadata.texts("tokenizer.ggml.merges")?;
    let merges = merges.ok_or_else(|| metadata.error("tokenizer.ggml.merges", "missing from the metadata"))?;
    let pipeline = Pipeline {
        normalizer,
        pre_tokenizer,
        decoder: bytes(true),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": ignore_merges, "vocab": vocabulary.ids, "merges": merges,
        }),
    };
    Ok((pipeline, Defaults { add_bos: ignore_merges, bos: None, eos: None }))
}

fn sentence_piece(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<(Pipeline, Defaults)> {
    if metadata.has("tokenizer.ggml.precompiled_charsmap") {
        return Err(metadata.error("tokenizer.ggml.precompiled_charsmap", "unsupported text normalisation").into());
    }
    let mut normalizers = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let unknown = match metadata.token_id("tokenizer.ggml.unknown_token_id")? {
        Some(id) => vocabulary.token(id),
        None => vocabulary.kinds.iter().position(|&kind| kind == UNKNOWN).map(|id| vocabulary.tokens[id].as_str()),
    };
    let pipeline = Pipeline {
        normalizer: json!({ "type": "Sequence", "normalizers": normalizers }),
        pre_tokenizer: Value::Null,
        decoder: json!({ "type": "Sequence", "decoders": decoders }),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary.ids, "merges": merges_of(metadata, vocabulary)?,
        }),
    };
    Ok((pipeline, Defaults { add_bos: true, bos: Some(1), eos: Some(2) }))
}

/// SentencePiece joins the neighbours whose union has the best score: so every way to split a token in two
/// tokens is a merge, ranked by the score of the token (and among equals as Hugging Face's converter does).
fn merges_of(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Vec<[String; 2]>> {
    let key = "tokenizer.ggml.scores";
    let scores = metadata.floats(key)?.ok_or_else(|| metadata.error(key, "missing from the metadata"))?;
    if scores.len() != vocabulary.tokens.len() {
        let error = metadata.error(key, "not one score per token").found(scores.len());
        return Err(error.expected(vocabulary.tokens.len()).into());
    }
    let usable = |id: usize| [NORMAL, USER_DEFINED].contains(&vocabulary.kinds[id]);
    let id = |text: &str| vocabulary.ids.get(text).and_then(Value::as_u64).filter(|&id| usable(id as usize));
    let mut merges = Vec::new();
    for (whole, token) in vocabulary.tokens.iter().enumerate().filter(|(whole, _)| usable(*whole)) {
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut found: Vec<_> = splits.filter_map(|(l, r)| Some((id(l)?, id(r)?, l, r))).collect();
        found.sort_by_key(|&(left, right, ..)| (left, right));
        merges.extend(found.into_iter().map(|(_, _, left, right)| (scores[whole], left, right)));
    }
    let chars = |text: &str| text.chars().count();
    merges.sort_by(|a, b| {
        let score = b.0.total_cmp(&a.0);
        score.then_with(|| chars(b.1).cmp(&chars(a.1))).then_with(|| chars(b.2).cmp(&chars(a.2)))
    });
    Ok(merges.into_iter().map(|(_, left, right)| [left.to_string(), right.to_string()]).collect())
}

/// Tokens with a role, by text.
struct Special<'a> {
    bos: Option<(u32, &'a str)>,
    eos: Option<(u32, &'a str)>,
    pad: Option<(u32, &'a str)>,
    add_bos: bool,
    add_eos: bool,
}

impl<'a> Special<'a> {
    fn new(metadata: &Metadata, vocabulary: &Vocabulary<'a>, defaults: Defaults) -> Result<Self> {
        let role = |key: &str, default: Option<u32>| -> Result<Option<(u32, &'a str)>> {
            let Some(id) = metadata.token_id(key)?.or(default) else { return Ok(None) };
            let token = vocabulary.token(id).ok_or_else(|| -> Error {
                let error = metadata.error(key, "no such token").found(id);
                error.expected(format!("below {}", vocabulary.tokens.len())).into()
            })?;
            Ok(Some((id, token)))
        };
        Ok(Self {
            bos: role("tokenizer.ggml.bos_token_id", defaults.bos)?,
            eos: role("tokenizer.ggml.eos_token_id", defaults.eos)?,
            pad: role("tokenizer.ggml.padding_token_id", None)?,
            add_bos: metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(defaults.add_bos),
            add_eos: metadata.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        })
    }

    fn post_processor(&self) -> Value {
        let (bos, eos) = (self.bos.filter(|_| self.add_bos), self.eos.filter(|_| self.add_eos));
        let sequence = |sequence: &str, kind: u32| {
            let special = |(_, token): (u32, &str)| json!({ "SpecialToken": { "id": token, "type_id": kind } });
            let text = json!({ "Sequence": { "id": sequence, "type_id": kind } });
            bos.map(special).into_iter().chain([text]).chain(eos.map(special)).collect::<Vec<_>>()
        };
        let tokens = [bos, eos].into_iter().flatten();
        let table: Map<String, Value> = tokens
            .map(|(id, token)| (token.to_string(), json!({ "id": token, "ids": [id], "tokens": [token] })))
            .collect();
        let (single, second) = (sequence("A", 0), sequence("B", 1));
        let pair: Vec<_> = single.iter().chain(&second).cloned().collect();
        json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": table })
    }

    fn config(&self, metadata: &Metadata) -> Result<Value> {
        let text = |role: Option<(u32, &'a str)>| role.map(|(_, token)| token);
        Ok(json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
            "bos_token": text(self.bos), "eos_token": text(self.eos), "pad_token": text(self.pad),
            "add_bos_token": self.add_bos, "add_eos_token": self.add_eos,
            "chat_template": metadata.text("tokenizer.chat_template")?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::super::header::Value as Field;
    use super::*;

    const BYTE_LEVEL: &[u8] = include_bytes!("../../../tests/golden/gguf/tokenizer.json");
    const SENTENCE_PIECE: &[u8] = include_bytes!("../../../tests/golden/gguf/sentencepiece.json");
    const TEXTS: [&str; 6] = [
        "Once upon a time, there was a little girl.",
        "  two spaces, 12345 digits and a tab\t.\n\nNew line",
        "naïve café — 你好 🙂 it's he'll we'VE",
        "",
        "a <s> b</s>",
        "aaaaaaa theeeee    ",
    ];

    /// The metadata a converter would write for a `tokenizer.json`.
    fn metadata(tokenizer_json: &[u8], model: &str) -> HashMap<String, Field> {
        let json: Value = serde_json::from_slice(tokenizer_json).unwrap();
        let vocab = json["model"]["vocab"].as_object().unwrap();
        let mut tokens: Vec<(u64, String)> = vocab.iter().map(|(t, id)| (id.as_u64().unwrap(), t.clone())).collect();
        tokens.sort();
        let tokens: Vec<String> = tokens.into_iter().map(|(_, token)| token).collect();
        let added = json["added_tokens"].as_array().unwrap();
        let kind = |token: &String| match added.iter().any(|added| added["content"] == json!(token)) {
            true => CONTROL,
            false if token.starts_with("<0x") => 6,
            false => NORMAL,
        };
        let pair = |pair: &Value| match pair {
            Value::Array(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
            other => other.as_str().unwrap().to_string(),
        };
        let merges = json["model"]["merges"].as_array().unwrap().iter().map(pair).collect();
        let scores = (0..tokens.len()).map(|id| if id < 259 { 0.0 } else { 259.0 - id as f64 }).collect();
        let fields = [
            ("model", Field::Text(model.into())),
            ("token_type", Field::Ints(tokens.iter().map(kind).collect())),
            ("tokens", Field::Texts(tokens)),
            ("scores", Field::Floats(scores)),
            ("merges", Field::Texts(merges)),
            ("bos_token_id", Field::Int(1)),
            ("eos_token_id", Field::Int(2)),
            ("add_bos_token", Field::Bool(true)),
        ];
        fields.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect()
    }

    fn rebuilt(fields: HashMap<String, Field>) -> Result<TokenizerFiles> {
        files(&Metadata::new(fields, Path::new("t.gguf")))
    }

    fn same_ids(original: &[u8], model: &str) {
        let original_tokenizer = tokenizers::Tokenizer::from_bytes(original).unwrap();
        let files = rebuilt(metadata(original, model)).unwrap();
        let tokenizer = tokenizers::Tokenizer::from_bytes(&files.tokenizer_json).unwrap();
        for text in TEXTS {
            let (ours, theirs) =
                (tokenizer.encode(text, true).unwrap(), original_tokenizer.encode(text, true).unwrap());
            assert_eq!(ours.get_ids(), theirs.get_ids(), "{text:?}");
            let decoded = original_tokenizer.decode(theirs.get_ids(), true).unwrap();
            assert_eq!(tokenizer.decode(ours.get_ids(), true).unwrap(), decoded, "{text:?}");
        }
    }

    #[test]
    fn byte_level_tokens_are_those_of_the_original() {
        same_ids(BYTE_LEVEL, "gpt2");
    }

    #[test]
    fn sentence_piece_tokens_follow_from_the_scores() {
        same_ids(SENTENCE_PIECE, "llama");
    }

    #[test]
    fn words_are_cut_as_the_metadata_say() {
        let words = |name: &str, text: &str| {
            let mut fields = metadata(BYTE_LEVEL, "gpt2");
            fields.insert("tokenizer.ggml.pre".into(), Field::Text(name.into()));
            let files = rebuilt(fields).unwrap();
            let tokenizer = tokenizers::Tokenizer::from_bytes(&files.tokenizer_json).unwrap();
            let mut text = tokenizers::PreTokenizedString::from(text);
            use tokenizers::PreTokenizer;
            tokenizer.get_pre_tokenizer().unwrap().pre_tokenize(&mut text).unwrap();
            let splits = text.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
            splits.into_iter().map(|(word, ..)| word.replace('Ġ', " ").replace('Ċ', "\n")).collect::<Vec<_>>()
        };
        let text = "it's 1234 (now)\n\n ok";
        assert_eq!(words("gpt-2", text), ["it", "'s", " 1234", " (", "now", ")", "\n\n", " ok"]);
        assert_eq!(words("smollm", text), ["it", "'s", " ", "1", "2", "3", "4", " (", "now", ")", "\n\n", " ok"]);
        assert_eq!(words("llama-bpe", text), ["it", "'s", " ", "123", "4", " (", "now", ")\n\n", " ok"]);
        assert_eq!(words("qwen2", text), ["it", "'s", " ", "1", "2", "3", "4", " (", "now", ")\n\n", " ok"]);
    }

    #[test]
    fn special_tokens_and_template_reach_the_configuration() {
        let mut fields = metadata(BYTE_LEVEL, "gpt2");
        fields.insert("tokenizer.chat_template".into(), Field::Text("{{ x }}".into()));
        let config: Value = serde_json::from_slice(&rebuilt(fields).unwrap().tokenizer_config_json).unwrap();
        assert_eq!((&config["bos_token"], &config["eos_token"]), (&json!("<s>"), &json!("</s>")));
        assert_eq!((&config["pad_token"], &config["chat_template"]), (&Value::Null, &json!("{{ x }}")));
    }

    #[test]
    fn what_cannot_be_exact_is_refused_by_name() {
        let refusal = |key: &str, value: Field| {
            let mut fields = metadata(BYTE_LEVEL, "gpt2");
            fields.insert(format!("tokenizer.ggml.{key}"), value);
            rebuilt(fields).err().expect("accepted").to_string()
        };
        assert!(refusal("pre", Field::Text("falcon".into())).contains("falcon"));
        assert!(refusal("model", Field::Text("t5".into())).contains("t5"));
        assert!(refusal("token_type", Field::Ints(vec![1])).contains("one type per token"));
        assert!(refusal("bos_token_id", Field::Int(512)).contains("512"));
        assert!(refusal("tokens", Field::Texts(vec!["a".into(), "a".into()])).contains("token"));
    }
}
