//! `tokenizer_config.json`: which tokens are special, and the chat template. Other keys are kept but never
//! acted on; nothing in the file is executed and no path in it is followed.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::tokenizer::SpecialTokens;
use crate::{Error, Result};

pub(super) struct TokenizerConfig {
    known: Known,
    /// Everything in the file.
    pub keys: Map<String, Value>,
}

#[derive(Deserialize)]
struct Known {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    pad_token: Option<Token>,
    chat_template: Option<Templates>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

impl TokenizerConfig {
    pub fn parse(bytes: &[u8], label: &Path) -> Result<Self> {
        let bad =
            |error: serde_json::Error| Error::input(format!("not a tokenizer configuration: {error}")).file(label);
        let keys: Map<String, Value> = serde_json::from_slice(bytes).map_err(bad)?;
        let known = Known::deserialize(Value::Object(keys.clone())).map_err(bad)?;
        Ok(Self { known, keys })
    }

    /// What to save beside a tokenizer that came without such a file.
    pub fn describe(
        inner: &tokenizers::Tokenizer,
        special: SpecialTokens,
        template: Option<&str>,
    ) -> Map<String, Value> {
        let text = |id: Option<u32>| id.and_then(|id| inner.id_to_token(id));
        let keys = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": text(special.bos),
            "eos_token": text(special.eos),
            "pad_token": text(special.pad),
            "chat_template": template,
        });
        let Value::Object(keys) = keys else { return Map::new() };
        keys.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    pub fn special_tokens(&self, inner: &tokenizers::Tokenizer, label: &Path) -> Result<SpecialTokens> {
        let id = |key: &str, token: &Option<Token>| match token {
            None => Ok(None),
            Some(Token::Text(text) | Token::Added { content: text }) => match inner.token_to_id(text) {
                Some(id) => Ok(Some(id)),
                None => Err(Error::input("a special token is not in tokenizer.json").file(label).key(key).found(text)),
            },
        };
        Ok(SpecialTokens {
            bos: id("bos_token", &self.known.bos_token)?,
            eos: id("eos_token", &self.known.eos_token)?,
            pad: id("pad_token", &self.known.pad_token)?,
        })
    }

    /// The only template, or the one named `default`.
    pub fn chat_template(&self) -> Option<String> {
        match self.known.chat_template.as_ref()? {
            Templates::One(template) => Some(template.clone()),
            Templates::Named(list) => {
                list.iter().find(|named| named.name == "default").map(|named| named.template.clone())
            }
        }
    }
}
