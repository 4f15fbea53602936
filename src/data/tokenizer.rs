//! Text to token ids and back: a Hugging Face `tokenizer.json` with its special tokens and chat template.

mod joined;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::tokenizer_config::TokenizerConfig;
use crate::{Error, Result};
pub use joined::{Joined, Piece, fit};

/// Ids of the tokens that begin, end and pad a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
}

/// What the name of a special token means when it occurs in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// The special token: for text a chat template made.
    Parse,
    /// Ordinary characters: for text that comes from data.
    AsText,
}

/// A tokenizer as the model was trained with it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    chat_template: Option<String>,
    source: Option<PathBuf>,
    /// `tokenizer.json`, byte for byte where it was read from one.
    json: Vec<u8>,
    config: Map<String, Value>,
    controls: HashSet<u32>,
    control_names: Option<Regex>,
    prefix: Vec<u32>,
    marks_start: bool,
    vocab_size: usize,
}

impl Tokenizer {
    /// Wraps a tokenizer built in memory (from a GGUF file, say). Truncation and padding are switched off.
    pub fn new(inner: tokenizers::Tokenizer, special: SpecialTokens, chat_template: Option<String>) -> Self {
        let config = TokenizerConfig::describe(&inner, special, chat_template.as_deref());
        let json = inner.to_string(false).unwrap_or_default().into_bytes();
        Self::build(inner, special, chat_template, json, config)
    }

    /// Reads `tokenizer.json`, `tokenizer_config.json` and, if there is one, `chat_template.jinja`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let json = read(&path)?.ok_or_else(|| {
            Error::input("the model has no tokenizer").file(&path).hint("only the tokenizer.json format is read")
        })?;
        let config = read(&dir.join("tokenizer_config.json"))?;
        let template =
            read(&dir.join("chat_template.jinja"))?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let tokenizer = Self::from_json(&json, config.as_deref(), &path)?;
        Ok(match template {
            Some(template) => tokenizer.with_chat_template(template),
            None => tokenizer,
        })
    }

    /// Parses the two files' contents; `label` names `tokenizer.json` in messages.
    pub fn from_json(tokenizer_json: &[u8], tokenizer_config_json: Option<&[u8]>, label: &Path) -> Result<Self> {
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(tokenizer_json)).map_err(|why| {
            let error = Error::input(format!("not a usable tokenizer: {why}")).file(label);
            match tokenizer_json.trim_ascii_start() {
                text if text.starts_with(b"version https://git-lfs") => {
                    error.found("a Git LFS pointer").hint("run `git lfs pull` there, or download the file itself")
                }
                text if text.starts_with(b"<") => error.found("a web page").hint("download the file itself"),
                _ => error,
            }
        })?;
        let config_label = label.with_file_name("tokenizer_config.json");
        let config = TokenizerConfig::parse(tokenizer_config_json.unwrap_or(b"{}"), &config_label)?;
        let special = config.special_tokens(&inner, &config_label)?;
        let template = config.chat_template();
        let mut built = Self::build(inner, special, template, tokenizer_json.to_vec(), config.keys);
        built.source = Some(label.to_path_buf());
        // A post-processor that names tokens which do not exist shows only when it is used.
        built.run("", true).map(|_| built)
    }

    /// The same tokenizer with another chat template.
    pub fn with_chat_template(mut self, template: String) -> Self {
        self.config.insert("chat_template".into(), Value::String(template.clone()));
        self.chat_template = Some(template);
        self
    }

    fn build(
        mut inner: tokenizers::Tokenizer,
        special: SpecialTokens,
        chat_template: Option<String>,
        json: Vec<u8>,
        config: Map<String, Value>,
    ) -> Self {
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        let mut controls: HashSet<u32> = [special.bos, special.eos, special.pad].into_iter().flatten().collect();
        controls.extend(inner.get_added_tokens_decoder().iter().filter(|(_, token)| token.special).map(|(&id, _)| id));
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let mut built = Self {
            control_names: names(&inner, &controls),
            source: None,
            prefix: Vec::new(),
            marks_start: false,
            inner,
            special,
            chat_template,
            json,
            config,
            controls,
            vocab_size,
        };
        built.prefix = built.find_prefix().unwrap_or_default();
        built.marks_start = built.find_start_mark().unwrap_or(false);
        built
    }

    /// Tokens that the post-processor puts before a text.
    fn find_prefix(&self) -> Result<Vec<u32>> {
        let (bare, wrapped) = (self.run("a", false)?, self.run("a", true)?);
        let at = wrapped.windows(bare.len().max(1)).position(|window| window == bare);
        Ok(wrapped[..at.unwrap_or(0)].to_vec())
    }

    /// Whether the first word of a text is encoded unlike the same letters after a line break.
    fn find_start_mark(&self) -> Result<bool> {
        let (alone, after) = (self.run("x", false)?, self.run("\nx", false)?);
        Ok(!after.ends_with(&alone))
    }

    fn run(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        guarded(|| self.inner.encode_fast(text, add_special_tokens))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|why| self.error(format!("the tokenizer fails on a text: {why}")).found(excerpt(text)).into())
    }

    fn error(&self, what: String) -> crate::error::InputError {
        let error = Error::input(what);
        match &self.source {
            Some(path) => error.file(path),
            None => error,
        }
    }

    /// Ids of a text, without the tokens that begin or end a sequence.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        self.encode_cut(text, special, Place::Start)
    }

    /// Ids of a text that goes on where another one ended: as [`encode`](Self::encode), but without
    /// the mark (`▁`) that some tokenizers put before the first word of a text.
    pub fn encode_continuation(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        self.encode_cut(text, special, Place::Inside)
    }

    /// What `tok(text)` gives in Python: special tokens parsed, and added as the post-processor says.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.run(text, true)
    }

    /// Names of special tokens are cut after their first character, which is enough to keep them text.
    fn encode_cut(&self, text: &str, special: Special, place: Place) -> Result<Vec<u32>> {
        let cuts = if special == Special::AsText { self.cuts(text) } else { Vec::new() };
        let mut ids = Vec::new();
        let mut start = 0;
        for end in cuts.into_iter().chain([text.len()]) {
            let part = &text[start..end];
            ids.extend(if start == 0 && place == Place::Start { self.run(part, false)? } else { self.inside(part)? });
            start = end;
        }
        Ok(ids)
    }

    fn inside(&self, text: &str) -> Result<Vec<u32>> {
        if self.marks_start {
            let (anchor, whole) = (self.run("\n", false)?, self.run(&format!("\n{text}"), false)?);
            if let Some(rest) = whole.strip_prefix(anchor.as_slice()) {
                return Ok(rest.to_vec());
            }
        }
        self.run(text, false)
    }

    /// Where to cut `text` so that no part contains the name of a special token.
    pub(super) fn cuts(&self, text: &str) -> Vec<usize> {
        let mut cuts = Vec::new();
        let mut from = 0;
        while let Some(found) = self.control_names.as_ref().and_then(|names| names.find_at(text, from)) {
            from = found.start() + found.as_str().chars().next().map_or(1, char::len_utf8);
            if from == text.len() {
                break;
            }
            cuts.push(from);
        }
        cuts
    }

    /// Text of the ids; special tokens are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        guarded(|| self.inner.decode(ids, true)).unwrap_or_default()
    }

    /// What each id adds to the text, special tokens included. A character that spans several tokens
    /// appears with the last of them.
    pub fn pieces(&self, ids: &[u32]) -> Vec<String> {
        let mut stream = self.inner.decode_stream(false);
        let mut piece = |id| guarded(|| stream.step(id)).unwrap_or_else(|_| self.inner.id_to_token(id));
        ids.iter().map(|&id| piece(id).unwrap_or_default()).collect()
    }

    /// The vocabulary's spelling of a token.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Whether the token steers the model instead of standing for text.
    pub fn is_special(&self, id: u32) -> bool {
        self.controls.contains(&id)
    }

    /// The largest id + 1.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Tokens that the tokenizer itself puts before every text: usually nothing or `bos`.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    pub fn pad(&self) -> Option<u32> {
        self.special.pad
    }

    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Hex digest of `tokenizer.json` and the configuration beside it.
    pub fn sha256(&self) -> String {
        let config = Value::Object(self.config.clone()).to_string();
        let digest = Sha256::new().chain_update(&self.json).chain_update(config).finalize();
        super::hex(&digest)
    }

    /// Refuses a tokenizer whose ids reach past the model's embedding.
    pub fn check_fits(&self, embedding_rows: usize) -> Result<()> {
        if self.vocab_size <= embedding_rows {
            return Ok(());
        }
        let last = (self.vocab_size - 1) as u32;
        let name = self.token_text(last).map_or(String::new(), |text| format!(" (`{text}`)"));
        Err(self
            .error("the tokenizer has ids that the model has no embedding for".into())
            .found(format!("token id {last}{name}"))
            .expected(format!("ids below {embedding_rows}, the rows of the embedding"))
            .hint("the tokenizer and the weights belong to different models")
            .into())
    }

    /// `tokenizer.json` and `tokenizer_config.json`, as names and bytes.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let config = format!("{:#}\n", Value::Object(self.config.clone()));
        vec![("tokenizer.json".into(), self.json.clone()), ("tokenizer_config.json".into(), config.into_bytes())]
    }

    /// Writes [`Self::files`] into `dir`.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.files().into_iter().try_for_each(|(name, bytes)| {
            let path = dir.join(name);
            std::fs::write(&path, bytes).map_err(Error::io(&path))
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Inside,
}

/// Matches the name of any special token.
fn names(inner: &tokenizers::Tokenizer, controls: &HashSet<u32>) -> Option<Regex> {
    let mut names: Vec<String> = controls.iter().filter_map(|&id| inner.id_to_token(id)).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    let any = names.iter().map(|name| regex::escape(name)).collect::<Vec<_>>().join("|");
    RegexBuilder::new(&any).size_limit(1 << 28).build().ok().filter(|_| !names.is_empty())
}

/// The tokenizers crate may panic on hostile files; that is bad input too.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_else(|| "it is damaged".into())),
    }
}

fn excerpt(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    format!("{shown:?}")
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::input(format!("cannot be read: {error}")).file(path).into()),
    }
}

#[cfg(test)]
mod tests;
