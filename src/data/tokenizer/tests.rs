use std::fs;

use serde_json::json;

use super::*;
use crate::data::testing::{DIR, tokenizer, tokenizer_with};

fn file() -> Value {
    serde_json::from_slice(&fs::read(format!("{DIR}/tokenizer.json")).unwrap()).unwrap()
}

fn parse(tokenizer: &Value, config: Value) -> Result<Tokenizer> {
    let (json, config) = (tokenizer.to_string(), config.to_string());
    Tokenizer::from_json(json.as_bytes(), Some(config.as_bytes()), Path::new("m/tokenizer.json"))
}

#[test]
fn ids_and_text_are_those_of_the_reference() {
    #[derive(serde::Deserialize)]
    struct Sample {
        text: String,
        ids: Vec<u32>,
        ids_no_special: Vec<u32>,
        decoded: String,
    }
    let samples: Vec<Sample> = serde_json::from_slice(&fs::read(format!("{DIR}/samples.json")).unwrap()).unwrap();
    let tokenizer = tokenizer();
    assert!(samples.len() >= 8);
    for Sample { text, ids, ids_no_special, decoded } in samples {
        assert_eq!(tokenizer.encode_prompt(&text).unwrap(), ids);
        assert_eq!(tokenizer.encode(&text, Special::Parse).unwrap(), ids_no_special);
        assert_eq!(tokenizer.decode(&ids), decoded);
        let as_text = tokenizer.encode(&text, Special::AsText).unwrap();
        assert_eq!(tokenizer.pieces(&as_text).concat(), text);
        assert!(!as_text.iter().any(|&id| tokenizer.is_special(id)));
    }
}

#[test]
fn special_tokens_and_prefix_are_known() {
    let tokenizer = tokenizer();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(1), Some(2), Some(0)));
    assert_eq!((tokenizer.prefix(), tokenizer.vocab_size()), ([1].as_slice(), 512));
    assert_eq!(tokenizer.token_text(2).as_deref(), Some("</s>"));
    assert_eq!(tokenizer.token_text(9999), None);
}

#[test]
fn pieces_show_a_character_with_the_last_of_its_tokens() {
    let tokenizer = tokenizer();
    let pieces = tokenizer.pieces(&tokenizer.encode("é🙂", Special::Parse).unwrap());
    assert!(pieces.len() > 2 && pieces.iter().any(String::is_empty));
    assert_eq!(pieces.concat(), "é🙂");
}

/// A sentence-piece-like tokenizer, which writes `▁` before the first word.
fn sentence_pieces() -> Tokenizer {
    let vocab: Map<String, Value> = ["<unk>", "</s>", "▁", "▁a", "a", "\n", "b", "▁b"]
        .iter()
        .enumerate()
        .map(|(id, piece)| (piece.to_string(), json!(id)))
        .collect();
    let file = json!({
        "version": "1.0",
        "added_tokens": [{"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["▁", "a"], ["▁", "b"]], "unk_token": "<unk>"},
    });
    parse(&file, json!({"eos_token": {"content": "</s>"}})).unwrap()
}

#[test]
fn a_continuation_gets_no_mark_of_a_start() {
    let tokenizer = sentence_pieces();
    let text =
        |ids: Result<Vec<u32>>| ids.unwrap().iter().map(|&id| tokenizer.token_text(id).unwrap()).collect::<Vec<_>>();
    assert_eq!(text(tokenizer.encode("a b", Special::AsText)), ["▁a", "▁b"]);
    assert_eq!(text(tokenizer.encode_continuation("b", Special::AsText)), ["b"]);
    assert_eq!(text(tokenizer.encode_continuation(" b", Special::AsText)), ["▁b"]);
    assert!(tokenizer.prefix().is_empty());
}

#[test]
fn pieces_tell_the_bytes_they_stand_for() {
    let tokenizer = tokenizer();
    let text = "the </s> \u{e9}\u{1f642} end";
    let pieces = tokenizer.split(text).unwrap();
    assert_eq!(pieces.iter().map(|p| p.id).collect::<Vec<_>>(), tokenizer.encode(text, Special::AsText).unwrap());
    assert!(pieces.iter().all(|piece| !tokenizer.is_special(piece.id) && text.is_char_boundary(piece.span.start)));
    let mut covered = 0;
    for piece in &pieces {
        assert!(piece.span.start <= covered, "a gap before {piece:?}");
        covered = covered.max(piece.span.end);
    }
    assert_eq!(covered, text.len());
    // After the name of a special token the text goes on, without the mark of a start.
    let tokenizer = sentence_pieces();
    let pieces = tokenizer.split("</s>b b").unwrap();
    assert_eq!(pieces.iter().map(|p| p.id).collect::<Vec<_>>(), tokenizer.encode("</s>b b", Special::AsText).unwrap());
    let last: Vec<_> = pieces[pieces.len() - 2..].iter().map(|p| (p.spelling.as_str(), p.span.clone())).collect();
    assert_eq!(last, [("b", 4..5), ("▁b", 5..7)]);
}

#[test]
fn every_word_is_encoded_as_if_alone() {
    let words = ["the", "</s>", "end"].map(str::to_owned);
    let tokenizer = tokenizer();
    let pieces = tokenizer.split_words(&words).unwrap();
    for (number, word) in words.iter().enumerate() {
        let of = pieces.iter().filter(|piece| piece.word == number).map(|piece| piece.id).collect::<Vec<_>>();
        assert_eq!(of, tokenizer.encode(&format!(" {word}"), Special::AsText).unwrap());
    }
    assert_eq!(pieces.iter().filter(|piece| piece.word == 2).map(|piece| piece.span.end).max(), Some(3));
    // Where a start has a mark, every word has it, and no space before it.
    let pieces = sentence_pieces().split_words(&["a", "b"].map(str::to_owned)).unwrap();
    assert_eq!(pieces.iter().map(|piece| piece.spelling.as_str()).collect::<Vec<_>>(), ["▁a", "▁b"]);
}

#[test]
fn the_longer_text_is_cut_first_and_then_both() {
    let piece = || Piece { id: 0, spelling: String::new(), span: 0..0, word: 0 };
    for (lengths, room, expected) in [
        ([3, 9], 8, [3, 5]),
        ([9, 3], 8, [5, 3]),
        ([9, 9], 7, [3, 4]),
        ([8, 9], 7, [3, 4]),
        ([9, 0], 4, [4, 0]),
        ([2, 2], 4, [2, 2]),
    ] {
        let [mut first, mut second] = lengths.map(|len| vec![piece(); len]);
        fit(&mut first, &mut second, room);
        assert_eq!([first.len(), second.len()], expected, "{lengths:?} {room}");
    }
}

#[test]
fn chat_templates_come_from_either_file() {
    let named = json!([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]);
    assert_eq!(parse(&file(), json!({"chat_template": named})).unwrap().chat_template(), Some("D"));
    assert_eq!(parse(&file(), json!({"chat_template": "S"})).unwrap().chat_template(), Some("S"));
    let dir = tempfile::tempdir().unwrap();
    parse(&file(), json!({"chat_template": "S", "eos_token": "</s>", "odd": 1})).unwrap().save(dir.path()).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "J").unwrap();
    let both = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!((both.chat_template(), both.eos(), both.bos()), (Some("J"), Some(2), None));
    assert_eq!(both.config["odd"], 1);
}

#[test]
fn saving_keeps_the_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let same = |tokenizer: &Tokenizer| {
        tokenizer.save(dir.path()).unwrap();
        let read = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!(read.sha256(), tokenizer.sha256());
        assert_eq!((read.special, read.chat_template()), (tokenizer.special, tokenizer.chat_template()));
        let text = "Hi <|x|></s>";
        assert_eq!(read.encode_prompt(text).unwrap(), tokenizer.encode_prompt(text).unwrap());
    };
    same(&tokenizer());
    assert_eq!(
        fs::read(dir.path().join("tokenizer.json")).unwrap(),
        fs::read(format!("{DIR}/tokenizer.json")).unwrap()
    );
    same(&tokenizer_with(&["<|x|>"]).with_chat_template("{{ x }}".into()));
    assert_ne!(tokenizer().sha256(), tokenizer().with_chat_template("{{ x }}".into()).sha256());
}

#[test]
fn truncation_and_padding_of_the_file_are_switched_off() {
    let mut file = file();
    file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
                             "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"});
    let read = parse(&file, json!({})).unwrap();
    assert_eq!(read.encode_prompt("Hello, world!").unwrap(), tokenizer().encode_prompt("Hello, world!").unwrap());
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused() {
    let tokenizer = tokenizer_with(&["<|new|>"]);
    assert!(tokenizer.check_fits(513).is_ok());
    let error = tokenizer.check_fits(512).unwrap_err().to_string();
    assert!(error.contains("found token id 512 (`<|new|>`); expected ids below 512"), "{error}");
}

#[test]
fn hostile_files_are_input_errors() {
    let refused = |file: Value| {
        let error = parse(&file, json!({})).and_then(|tokenizer| tokenizer.check_fits(1 << 20)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().starts_with("m/tokenizer.json: "), "{error}");
    };
    let changed = |pointer: &str, value: Value| {
        let mut file = file();
        *file.pointer_mut(pointer).unwrap() = value;
        file
    };
    refused(changed("/model/merges", json!([["nowhere", "nothing"]])));
    refused(changed("/model/vocab/a", json!(4_000_000_000_u32)));
    refused(changed("/model/vocab/a", json!(1_u64 << 40)));
    refused(changed("/post_processor/special_tokens", json!({})));
    refused(changed("/model", json!({"type": "Unigram", "vocab": [], "unk_id": 7})));
    refused(changed("/model", json!({"type": "NoSuch"})));
    refused(json!([]));
    let deep = "[".repeat(100_000);
    assert!(Tokenizer::from_json(deep.as_bytes(), None, Path::new("t")).is_err());
    assert!(Tokenizer::from_json(b"", None, Path::new("t")).is_err());
    assert!(Tokenizer::from_json(b"\xFF", Some(b"{}"), Path::new("t")).is_err());
}

#[test]
fn a_tokenizer_that_cannot_encode_says_so() {
    let mut file = file();
    file["model"] = json!({"type": "WordLevel", "vocab": {"x": 5}, "unk_token": "absent"});
    let tokenizer = parse(&file, json!({})).unwrap();
    let error = tokenizer.encode("hello", Special::Parse).unwrap_err();
    assert!(error.to_string().contains("the tokenizer fails on a text"), "{error}");
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let says = |config| parse(&file(), config).unwrap_err().to_string();
    let error = says(json!({"eos_token": "<|end|>"}));
    assert!(error.contains("m/tokenizer_config.json: key eos_token") && error.contains("<|end|>"), "{error}");
    assert!(says(json!([])).contains("m/tokenizer_config.json"));
    assert!(says(json!({"bos_token": 5})).contains("m/tokenizer_config.json"));
    let dir = tempfile::tempdir().unwrap();
    assert!(Tokenizer::from_dir(dir.path()).unwrap_err().to_string().contains("no tokenizer"));
}
