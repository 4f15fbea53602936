//! Rules about the source itself.

use std::path::{Path, PathBuf};

/// Only `backends/` knows which backends there are; the library and the programs are generic.
#[test]
fn no_file_outside_backends_names_a_backend_type() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named =
        ["NdArray", "Flex", "Wgpu", "Cuda", "CubeBackend", "burn_ndarray", "burn_flex", "burn_wgpu", "burn_cuda"];
    let mut files = Vec::new();
    ["src", "recipes"].iter().for_each(|dir| sources(&root.join(dir), &mut files));
    assert!(files.len() > 100, "found only {} files", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        if let Some(name) = named.iter().find(|name| words.contains(name)) {
            panic!("{} names {name}", file.display());
        }
    }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
