//! The tokenizer of the embedded base: byte-level BPE trained on the generated corpus.

use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::{Error, Result};

/// Special tokens in the order of their ids.
const SPECIAL: [&str; 6] = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"];
const BOS: &str = SPECIAL[1];
const BOS_ID: u32 = 1;

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] \
                      + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}\
                      {{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The two files of a tokenizer as Hugging Face libraries read them.
pub struct TinyTokenizer {
    pub tokenizer_json: Vec<u8>,
    pub tokenizer_config_json: Vec<u8>,
}

/// Trains a tokenizer of at most `vocab_size` tokens, special ones and all 256 bytes included, that puts `<s>` in
/// front of every text. Equal documents give equal files, whatever their order.
pub fn train_tokenizer(documents: impl Iterator<Item = String> + Send, vocab_size: usize) -> Result<TinyTokenizer> {
    let smallest = SPECIAL.len() + 256;
    if vocab_size < smallest {
        let error = Error::input("vocabulary too small for byte-level BPE").found(vocab_size);
        return Err(error.expected(format!("at least {smallest} tokens")).into());
    }
    let mut trainer = TrainerWrapper::from(
        BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)).to_vec())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build(),
    );
    let beginning = TemplateProcessing::builder()
        .try_single(format!("{BOS} $A"))
        .and_then(|builder| builder.try_pair(format!("{BOS} $A {BOS} $B")))
        .map_err(Error::Failed)?
        .special_tokens(vec![(BOS, BOS_ID)])
        .build()
        .map_err(|error| Error::Failed(error.to_string()))?;
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(false, false, true)))
        .with_decoder(Some(ByteLevel::new(false, false, true)))
        .with_post_processor(Some(beginning));
    tokenizer.train(&mut trainer, documents).map_err(failed)?;
    let tokenizer_json = tokenizer.to_string(true).map_err(failed)?.into_bytes();
    Ok(TinyTokenizer { tokenizer_json, tokenizer_config_json: config().into_bytes() })
}

fn config() -> String {
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": BOS,
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "model_max_length": 256,
        "clean_up_tokenization_spaces": false,
        "chat_template": CHATML,
    });
    format!("{config:#}\n")
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Failed(format!("cannot train the tokenizer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::{corpus, pairs};
    use super::*;

    fn trained() -> TinyTokenizer {
        train_tokenizer(corpus(0, 1000), 1024).unwrap()
    }

    #[test]
    fn equal_documents_give_equal_files() {
        assert_eq!(trained().tokenizer_json, trained().tokenizer_json);
    }

    #[test]
    fn any_text_comes_back_behind_one_bos() {
        let tokenizer = Tokenizer::from_bytes(trained().tokenizer_json).unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), 1024);
        for text in ["name: The Blue Fox =>", "Žižka <3 ☕\n\tend", " "] {
            let encoding = tokenizer.encode(text, true).unwrap();
            assert_eq!(encoding.get_ids()[0], BOS_ID);
            assert_eq!(tokenizer.decode(&encoding.get_ids()[1..], false).unwrap(), text);
        }
    }

    #[test]
    fn special_tokens_have_the_first_ids() {
        let tokenizer = Tokenizer::from_bytes(trained().tokenizer_json).unwrap();
        let ids = SPECIAL.map(|token| tokenizer.token_to_id(token));
        assert_eq!(ids, std::array::from_fn(|id| Some(id as u32)));
        let ids = tokenizer.encode("<|im_start|>user", false).unwrap().get_ids().to_vec();
        assert_eq!(ids[0], 4);
    }

    #[test]
    fn prompt_and_completion_tokenise_apart_as_together() {
        let tokenizer = Tokenizer::from_bytes(trained().tokenizer_json).unwrap();
        let ids = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        for (prompt, completion) in pairs("menu").into_iter().chain(pairs("kitchen")).flatten().step_by(37) {
            assert_eq!([ids(&prompt), ids(&completion)].concat(), ids(&format!("{prompt}{completion}")));
        }
    }

    #[test]
    fn a_vocabulary_below_the_bytes_is_refused() {
        assert_eq!(train_tokenizer(corpus(0, 1), 100).err().map(|error| error.exit_code()), Some(2));
    }
}
