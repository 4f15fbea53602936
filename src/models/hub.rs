//! Models by their id on the Hugging Face hub, through the cache that Python's `huggingface_hub` uses.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};

use crate::{Error, Result};

const SMALL_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

/// Downloads what is not in the cache yet and returns the directory. `HF_HOME`, `HF_ENDPOINT` and the
/// stored token count as they do in Python.
pub(super) fn directory(id: &str) -> Result<PathBuf> {
    let failed = |error| Error::Failed(format!("cannot download {id} from the hub: {error}"));
    let repo = ApiBuilder::from_env().build().map_err(failed)?.model(id.to_string());
    let config = download(&repo).map_err(failed)?;
    Ok(config.parent().unwrap_or(Path::new("")).to_path_buf())
}

/// Path of `config.json` in the cache, the other files beside it.
fn download(repo: &ApiRepo) -> Result<PathBuf, ApiError> {
    let weights = |name: &str| name.starts_with("model") && name.ends_with(".safetensors") && !name.contains('/');
    for file in repo.info()?.siblings {
        if SMALL_FILES.contains(&file.rfilename.as_str()) || weights(&file.rfilename) {
            repo.get(&file.rfilename)?;
        }
    }
    repo.get("config.json")
}
