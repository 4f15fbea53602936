//! Opens a model by what the recipe calls it, and checks it whole before any tensor is made.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::arranged::is_of_head;
use super::bnb::FourBitCheckpoint;
use super::config_json::MAX_CONFIG_BYTES;
use super::gguf::{GgufFile, is_gguf};
use super::mapped::read_small;
use super::source::stored_format;
use super::{ModelConfig, Safetensors, WeightSource};
use crate::data::Tokenizer;
use crate::recipe::Task;
use crate::{Error, Result};

/// A model on the host: nothing is on a device yet, weights are read when asked for.
pub struct Opened {
    pub config: ModelConfig,
    pub weights: Box<dyn WeightSource>,
    pub tokenizer: Tokenizer,
    pub kind: Kind,
    /// What the file's own head is for.
    pub(super) own_task: Task,
    /// Tensors of the head that the file does not have.
    pub(super) fresh_head: Vec<String>,
    /// Of the weight files, once it was asked for: they are read whole for it.
    sha256: OnceCell<String>,
}

/// What a model was opened from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Embedded(&'static str),
    Directory(PathBuf),
    Gguf(PathBuf),
}

/// A model compiled into the program: the files of a Hugging Face directory.
pub struct Embedded {
    pub name: &'static str,
    pub config_json: &'static [u8],
    pub weights: &'static [u8],
    pub tokenizer_json: &'static [u8],
    pub tokenizer_config_json: &'static [u8],
}

/// Every embedded model.
pub const EMBEDDED: &[Embedded] = &[Embedded {
    name: "tiny",
    config_json: include_bytes!("tiny/config.json"),
    weights: include_bytes!("tiny/model.safetensors"),
    tokenizer_json: include_bytes!("tiny/tokenizer.json"),
    tokenizer_config_json: include_bytes!("tiny/tokenizer_config.json"),
}];

/// The embedded model of that name.
pub fn embedded(name: &str) -> Option<&'static Embedded> {
    EMBEDDED.iter().find(|model| model.name == name)
}

/// Opens an embedded model by name, a Hugging Face directory, a `.gguf` file or, with feature `hub`,
/// a hub id. Relative paths start at `root`. The result is [checked](Opened::check).
pub fn open(path: &str, root: &Path) -> Result<Opened> {
    open_for(path, root, None)
}

/// The same for a task, be it the file's own or not.
///
/// # Errors
/// Of [`open`], and where the family cannot do the task.
pub fn open_for(path: &str, root: &Path, task: Option<Task>) -> Result<Opened> {
    let at = root.join(path);
    let opened = match embedded(path) {
        Some(model) => from_embedded(model)?,
        None if at.is_dir() => from_directory(&at)?,
        None if at.exists() => from_file(&at)?,
        None if is_hub_id(path) => from_hub(path)?,
        None => return Err(no_such_model(path, &at)),
    };
    let task = task.unwrap_or(opened.config.task);
    let opened = opened.turned_to(task)?;
    opened.check()?;
    Ok(opened)
}

fn from_embedded(model: &'static Embedded) -> Result<Opened> {
    let label = PathBuf::from(format!("embedded:{}", model.name));
    let at = |file: &str| label.join(file);
    let config = ModelConfig::from_json(model.config_json, &at("config.json"))?;
    let weights = Safetensors::from_static(model.weights, &at("model.safetensors"))?;
    let settings = Some(model.tokenizer_config_json);
    let tokenizer = Tokenizer::from_json(model.tokenizer_json, settings, &at("tokenizer.json"))?;
    Ok(Opened::new(config, Box::new(weights), tokenizer, Kind::Embedded(model.name)))
}

fn from_directory(dir: &Path) -> Result<Opened> {
    let path = dir.join("config.json");
    let bytes = read_small(&path, MAX_CONFIG_BYTES)?.ok_or_else(|| {
        let error = Error::input("this directory holds no model")
            .file(dir)
            .expected("config.json, tokenizer.json and safetensors");
        match dir.join("adapter_config.json").exists() {
            true => error.hint("it is an adapter: give the model it was trained on"),
            false => error,
        }
    })?;
    let mut config = ModelConfig::from_json(&bytes, &path)?;
    add_generation_ends(&mut config, dir)?;
    let weights = Safetensors::open_dir(dir)?;
    let weights: Box<dyn WeightSource> = match ModelConfig::quantisation(&bytes, &path)? {
        None => Box::new(weights),
        Some(settings) => Box::new(FourBitCheckpoint::new(weights, &settings)?),
    };
    Ok(Opened::new(config, weights, Tokenizer::from_dir(dir)?, Kind::Directory(dir.to_path_buf())))
}

/// Chat models list the token that ends a turn in `generation_config.json` only.
fn add_generation_ends(config: &mut ModelConfig, dir: &Path) -> Result<()> {
    let path = dir.join("generation_config.json");
    let Some(bytes) = read_small(&path, MAX_CONFIG_BYTES)? else { return Ok(()) };
    let map: Map<String, Value> = serde_json::from_slice(&bytes)
        .map_err(|error| Error::input(format!("not a generation configuration: {error}")).file(&path))?;
    for id in ModelConfig::end_tokens(&map, &path)? {
        if !config.eos_token_ids.contains(&id) {
            config.eos_token_ids.push(id);
        }
    }
    config.check(&path)
}

fn from_file(path: &Path) -> Result<Opened> {
    if !is_gguf(path) {
        let error = Error::input("not a model").file(path).expected("a Hugging Face directory or a .gguf file");
        return Err(match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => {
                error.hint("give the directory that holds it, with its config.json and tokenizer.json")
            }
            Some("bin" | "pt" | "pth") => {
                error.hint("pickles can run code and are never opened: convert to safetensors first")
            }
            _ => error,
        }
        .into());
    }
    let file = GgufFile::open(path)?;
    let tokenizer = file.tokenizer()?;
    let tokenizer = Tokenizer::from_json(&tokenizer.tokenizer_json, Some(&tokenizer.tokenizer_config_json), path)?;
    Ok(Opened::new(file.config().clone(), Box::new(file), tokenizer, Kind::Gguf(path.to_path_buf())))
}

/// `organisation/name`, in the hub's alphabet.
fn is_hub_id(path: &str) -> bool {
    let word = |part: &str| {
        let letters = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        letters && !part.is_empty() && !part.starts_with('.') && !part.ends_with(".gguf")
    };
    path.split_once('/').is_some_and(|(organisation, name)| word(organisation) && word(name))
}

#[cfg(feature = "hub")]
fn from_hub(id: &str) -> Result<Opened> {
    from_directory(&super::hub::directory(id)?)
}

#[cfg(not(feature = "hub"))]
fn from_hub(id: &str) -> Result<Opened> {
    let hint = "if this is an id on the Hugging Face hub, build with `--features hub` or download the directory";
    Err(Error::input("no such model").found(id).expected("a directory or a .gguf file").hint(hint).into())
}

fn no_such_model(path: &str, at: &Path) -> Error {
    let names: Vec<_> = EMBEDDED.iter().map(|model| format!("\"{}\"", model.name)).collect();
    let expected = ["a Hugging Face directory".to_string(), "a .gguf file".to_string()];
    let error = Error::input(format!("no such model: {path}")).file(at);
    error.expected(names.into_iter().chain(expected).collect::<Vec<_>>().join(", ")).into()
}

impl Opened {
    fn new(config: ModelConfig, weights: Box<dyn WeightSource>, tokenizer: Tokenizer, kind: Kind) -> Self {
        let (own_task, fresh_head) = (config.task, Vec::new());
        Self { config, weights, tokenizer, kind, own_task, fresh_head, sha256: OnceCell::new() }
    }

    /// Whether the tensors are those that the configuration implies, in name and shape, and whether
    /// the embedding has a row for every token.
    pub fn check(&self) -> Result<()> {
        let expected = self.config.tensors();
        let names: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let is_fresh = |name: &str| self.fresh_head.iter().any(|fresh| fresh == name);
        let lacks = |name: &&str| self.weights.shape(name).is_none() && !is_fresh(name);
        let missing: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).filter(lacks).collect();
        let present = self.weights.names();
        let extra: Vec<&str> =
            present.iter().map(String::as_str).filter(|name| !names.contains(name) && !self.may_ignore(name)).collect();
        if !missing.is_empty() || !extra.is_empty() {
            let found = format!("missing: {}; extra: {}", first_ten(&missing), first_ten(&extra));
            let error = Error::input("the weights are not those of this configuration").file(self.weights.path());
            return Err(error.found(found).into());
        }
        for (name, shape) in expected.iter().filter(|(name, _)| !is_fresh(name)) {
            if let Some(found) = self.weights.shape(name).filter(|found| found != shape) {
                let error = Error::input("wrong shape for this configuration").file(self.weights.path()).tensor(name);
                return Err(error.found(format!("{found:?}")).expected(format!("{shape:?}")).into());
            }
        }
        self.tokenizer.check_fits(self.config.vocab_size)
    }

    /// Extras that carry nothing: rotary frequencies that old files store, the copy of a tied head, and the head of another task,
    /// be it one that is not done here, as predicting masked tokens.
    fn may_ignore(&self, name: &str) -> bool {
        name.ends_with("rotary_emb.inv_freq")
            || (self.config.has_tied_head() && name == "lm_head.weight")
            || (is_of_head(name) && (self.config.task != self.own_task || !self.is_of_any_head(name)))
            || self.config.architecture.family().ignored().iter().any(|end| name.ends_with(end))
    }

    /// Whether the files hold four-bit weights.
    pub fn is_quantised(&self) -> bool {
        stored_format(self.weights.as_ref()).is_some()
    }

    /// Which base this is: SHA-256 of the weight files, in hexadecimal.
    pub fn base_sha256(&self) -> String {
        self.sha256.get_or_init(|| self.weights.sha256()).clone()
    }
}

fn first_ten(names: &[&str]) -> String {
    match names.len() {
        0 => "none".to_string(),
        total @ 1..=10 => format!("{total} ({})", names[..total].join(", ")),
        total => format!("{total} ({}, ...)", names[..10].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

    fn refusal(path: &str, root: &Path) -> String {
        open(path, root).err().unwrap_or_else(|| panic!("{path} was accepted")).to_string()
    }

    /// A copy of the reference model that a test may damage.
    fn copy() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("m")).unwrap();
        for entry in fs::read_dir(Path::new(GOLDEN).join("e2e/qwen2/base")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join("m").join(entry.file_name())).unwrap();
        }
        dir
    }

    /// Replaces text in a file of the copy.
    fn edit(dir: &tempfile::TempDir, file: &str, from: &str, to: &str) {
        let path = dir.path().join("m").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    #[test]
    fn directories_and_gguf_files_open() {
        let qwen = open("e2e/qwen2/base", Path::new(GOLDEN)).unwrap();
        assert_eq!(qwen.kind, Kind::Directory(Path::new(GOLDEN).join("e2e/qwen2/base")));
        assert_eq!((qwen.config.vocab_size, qwen.tokenizer.vocab_size()), (512, 512));

        let llama = open("gguf/llama.gguf", Path::new(GOLDEN)).unwrap();
        assert!(matches!(llama.kind, Kind::Gguf(_)));
        assert_eq!((llama.tokenizer.bos(), llama.tokenizer.eos(), llama.tokenizer.pad()), (Some(1), Some(2), Some(0)));
        assert_eq!(llama.tokenizer.chat_template(), Some("{{ messages[0].content }}"));
    }

    #[test]
    fn the_hash_tells_bases_apart() {
        let dir = copy();
        let hash = || open("m", dir.path()).unwrap().base_sha256();
        let original = open("e2e/qwen2/base", Path::new(GOLDEN)).unwrap().base_sha256();
        assert_eq!(hash(), original);
        let shard = dir.path().join("m/model-00005-of-00005.safetensors");
        let mut bytes = fs::read(&shard).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&shard, bytes).unwrap();
        assert_ne!(hash(), original);
    }

    #[test]
    fn names_that_are_no_model_say_what_would_be() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "hello").unwrap();
        fs::write(dir.path().join("w.safetensors"), "hello").unwrap();
        fs::write(dir.path().join("fake.gguf"), "hello").unwrap();
        assert!(refusal("nothing/of/that/kind", dir.path()).contains("no such model"));
        assert!(refusal("notes.txt", dir.path()).contains("not a model"));
        assert!(refusal("w.safetensors", dir.path()).contains("give the directory"));
        assert!(refusal("fake.gguf", dir.path()).contains("GGUF"));
        assert!(refusal(".", dir.path()).contains("config.json"));
        #[cfg(not(feature = "hub"))]
        assert!(refusal("meta-llama/Llama-3.2-1B", dir.path()).contains("--features hub"));
    }

    #[test]
    fn ends_of_a_turn_come_from_the_generation_settings_too() {
        let dir = copy();
        edit(&dir, "generation_config.json", "\"eos_token_id\": 2", "\"eos_token_id\": [2, 9]");
        assert_eq!(open("m", dir.path()).unwrap().config.eos_token_ids, [2, 9]);
        edit(&dir, "generation_config.json", "[2, 9]", "[2, 512]");
        assert!(refusal("m", dir.path()).contains("generation_config.json: key eos_token_id"));
    }

    #[test]
    fn weights_of_another_configuration_are_listed() {
        let dir = copy();
        edit(&dir, "config.json", "\"layer_types\"", "\"listed\"");
        edit(&dir, "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
        let message = refusal("m", dir.path());
        assert!(message.contains("missing: 12 (model.layers.2.input_layernorm.weight, "), "{message}");
        assert!(message.contains(", ...); extra: none"), "{message}");

        let dir = copy();
        edit(&dir, "config.json", "\"layer_types\"", "\"listed\"");
        edit(&dir, "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
        assert!(refusal("m", dir.path()).contains("missing: none; extra: 12 (model.layers.1."));

        let dir = copy();
        edit(&dir, "config.json", "\"intermediate_size\": 160", "\"intermediate_size\": 161");
        let message = refusal("m", dir.path());
        assert!(message.contains("mlp.gate_proj.weight: wrong shape") && message.contains("[160, 64]"), "{message}");
    }

    #[test]
    fn a_tokenizer_larger_than_the_embedding_is_refused() {
        let dir = copy();
        edit(
            &dir,
            "tokenizer.json",
            "\"added_tokens\": [",
            "\"added_tokens\": [{\"id\": 512, \"content\": \"<new>\", \
            \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true},",
        );
        assert!(refusal("m", dir.path()).contains("512"));
    }

    #[test]
    fn an_interrupted_download_is_refused() {
        let dir = copy();
        let shard = dir.path().join("m/model-00003-of-00005.safetensors");
        let bytes = fs::read(&shard).unwrap();
        fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
        assert!(refusal("m", dir.path()).contains("model-00003-of-00005.safetensors"));
        fs::write(&shard, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n").unwrap();
        assert!(refusal("m", dir.path()).contains("git lfs pull"));
    }
}
