//! Which safetensors files make up a Hugging Face directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::mapped::{read_small, refuse_look_alikes, stays_inside};
use crate::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 100_000_000;

pub(super) struct Shards {
    /// Existing paths inside the directory, in name order.
    pub files: Vec<PathBuf>,
    /// Tensors that the index promises; empty for a single file.
    pub expected: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

pub(super) fn files(dir: &Path) -> Result<Shards> {
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    if single.is_symlink() || single.exists() {
        return Ok(Shards { files: vec![inside(dir, SINGLE)?], expected: Vec::new() });
    }
    let Some(text) = read_small(&index, MAX_INDEX_BYTES)? else {
        return Err(no_weights(dir));
    };
    refuse_look_alikes(&text, &index)?;
    let parsed: Index =
        serde_json::from_slice(&text).map_err(|error| Error::input(format!("shard index: {error}")).file(&index))?;
    let names: BTreeSet<&String> = parsed.weight_map.values().collect();
    let files = names.into_iter().map(|name| inside(dir, name)).collect::<Result<Vec<_>>>()?;
    if files.is_empty() {
        return Err(Error::input("shard index lists no tensors").file(index).into());
    }
    Ok(Shards { files, expected: parsed.weight_map.into_keys().collect() })
}

/// The path of `name`, which must be a plain file name whose target, links resolved, is in `dir`.
fn inside(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    let plain = matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    if !plain || name.contains('\0') {
        let error = Error::input("shard is not a plain file name").file(dir.join(INDEX));
        return Err(error.found(name.escape_debug()).expected("a file beside the index").into());
    }
    if !path.exists() {
        return Err(Error::input("shard is missing").file(path).hint("the download is not complete").into());
    }
    if !stays_inside(&path, dir) {
        let error = Error::input("a link leads out of the model directory").file(path);
        return Err(error.hint("open the directory that holds the files themselves").into());
    }
    Ok(path)
}

fn no_weights(dir: &Path) -> Error {
    let error = Error::input("no weights here").file(dir).expected(format!("{SINGLE} or {INDEX}"));
    let pickles = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    match pickles.iter().find(|name| dir.join(name).exists()) {
        Some(name) => {
            let hint =
                "pickles can run code and are never opened: load the model in Python and save it with safetensors";
            error.found(name).hint(hint).into()
        }
        None => error.into(),
    }
}
