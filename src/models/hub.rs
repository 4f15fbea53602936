//! Models by their id on the Hugging Face hub, through the cache that Python's `huggingface_hub` uses.

use std::path::PathBuf;

use hf_hub::api::sync::{Api, ApiError};

use crate::{Error, Result};

const SMALL_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

/// Downloads what is not in the cache yet; returns the directory of the newest revision.
pub(super) fn directory(id: &str) -> Result<PathBuf> {
    let failed = |error: ApiError| Error::Failed(format!("cannot download {id} from the hub: {error}"));
    let repo = Api::new().map_err(failed)?.model(id.to_string());
    let files = repo.info().map_err(failed)?.siblings;
    let wanted = |name: &str| {
        let shard = name.starts_with("model") && name.ends_with(".safetensors") && !name.contains('/');
        shard || SMALL_FILES.contains(&name)
    };
    for file in files.iter().filter(|file| wanted(&file.rfilename)) {
        repo.get(&file.rfilename).map_err(failed)?;
    }
    let config = repo.get("config.json").map_err(failed)?;
    let dir = config.parent().map(PathBuf::from);
    dir.ok_or_else(|| Error::Failed(format!("the hub's cache has no directory for {id}")))
}
