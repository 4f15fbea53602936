//! A checkpoint on disk: the adapter's own files, `state.json`, `state.safetensors` and the `COMPLETE` marker.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::commit::{NamedBytes, commit};
use super::verify::{COMPLETE, Manifest};
use super::{Disk, Fs, RunDir, TrainState, list};
use crate::tensors::{self, HostTensors};
use crate::{Error, Result};

const STATE: &str = "state.json";
const MOMENTS: &str = "state.safetensors";

/// Optimizer and method state by name: shape, and values in row-major order.
pub type Moments = HostTensors;

/// A run between two optimizer steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub state: TrainState,
    pub moments: Moments,
    /// Names and contents of the adapter's files, as in `final/`.
    pub adapter_files: Vec<(String, Vec<u8>)>,
}

/// `state.json`. The generation counts the checkpoints a run has committed and orders them: unlike time it cannot
/// jump, and unlike the step it goes on growing when a run continues from an older checkpoint.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header<State> {
    pub generation: u64,
    pub state: State,
}

impl Header<TrainState> {
    /// Reads and verifies the small files of a checkpoint only.
    pub fn read(checkpoint: &Path, manifest: &Manifest) -> Result<Self> {
        serde_json::from_slice(&manifest.file(checkpoint, STATE)?)
            .map_err(|error| Error::input("malformed training state").file(checkpoint.join(STATE)).found(error).into())
    }
}

impl Checkpoint {
    /// Commits this as `checkpoints/step-N`, in place of an earlier one of that step, and returns the path.
    pub fn save(&self, run: &RunDir) -> Result<PathBuf> {
        let path = run.checkpoint(self.state.step);
        let generation = list(&run.checkpoints())?.next_generation();
        self.save_as(&Disk, &path, generation)?;
        Ok(path)
    }

    pub(super) fn save_as(&self, fs: &dyn Fs, path: &Path, generation: u64) -> Result<()> {
        let header = serde_json::to_vec_pretty(&Header { generation, state: &self.state });
        let header = header.map_err(|error| Error::Failed(format!("{STATE}: {error}")))?;
        let moments = tensors::encode(&self.moments)?;
        let mut files = borrowed(&self.adapter_files);
        if let Some((name, _)) = files.iter().find(|(name, _)| [STATE, MOMENTS, COMPLETE].contains(name)) {
            return Err(Error::Failed(format!("{}: `{name}` cannot be an adapter's file", path.display())));
        }
        files.extend([(STATE, header.as_slice()), (MOMENTS, &moments)]);
        let marker = Manifest::of(&files).to_bytes()?;
        files.push((COMPLETE, &marker));
        commit(fs, path, &files)
    }

    /// # Errors
    /// An input error when the checkpoint is missing, incomplete, damaged or of another format version.
    pub fn load(path: &Path) -> Result<Self> {
        let manifest = Manifest::read(path)?;
        let state = Header::read(path, &manifest)?.state;
        let moments = tensors::decode(&manifest.file(path, MOMENTS)?, &path.join(MOMENTS))?;
        let adapter_files = manifest
            .names()
            .filter(|name| ![STATE, MOMENTS].contains(name))
            .map(|name| Ok((name.to_string(), manifest.file(path, name)?)))
            .collect::<Result<_>>()?;
        Ok(Self { state, moments, adapter_files })
    }
}

pub(super) fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<NamedBytes<'_>> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tensors::HostTensor;

    /// A small checkpoint whose every part depends on `step` and `salt`.
    pub fn sample(step: usize, salt: u8) -> Checkpoint {
        let state =
            TrainState { step, cursor: salt.into(), elapsed_seconds: 0.1 * step as f64, ..TrainState::default() };
        let moments = ["layers.1.b", "layers.0.a"]
            .map(|name| (name.into(), HostTensor { shape: vec![2, 1], values: vec![step as f32, salt.into()] }));
        let adapter_files = vec![
            ("adapter_config.json".into(), format!("{{\"r\": {salt}}}").into_bytes()),
            ("adapter_model.safetensors".into(), vec![salt; 40]),
        ];
        Checkpoint { state, moments: moments.into(), adapter_files }
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("step-000007");
        let mut saved = sample(7, 3);
        saved.moments.insert("odd".into(), HostTensor { shape: vec![0, 4], values: vec![] });
        saved.moments.insert("scalar".into(), HostTensor { shape: vec![], values: vec![-0.0] });
        saved.save_as(&Disk, &path, 0).unwrap();
        let loaded = Checkpoint::load(&path).unwrap();
        assert_eq!(loaded, saved);
        assert!(loaded.moments["scalar"].values[0].is_sign_negative());
        assert!(loaded.moments.keys().is_sorted());
    }

    #[test]
    fn a_flipped_bit_in_any_byte_is_noticed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("step-000007");
        sample(7, 3).save_as(&Disk, &path, 0).unwrap();
        for entry in path.read_dir().unwrap() {
            let file = entry.unwrap().path();
            let good = std::fs::read(&file).unwrap();
            for index in 0..good.len() {
                let bit = index % 8;
                let mut bad = good.clone();
                bad[index] ^= 1 << bit;
                std::fs::write(&file, bad).unwrap();
                let outcome = Checkpoint::load(&path);
                assert!(outcome.is_err(), "bit {bit} of byte {index} of {}", file.display());
            }
            std::fs::write(&file, good).unwrap();
        }
        Checkpoint::load(&path).unwrap();
    }

    #[test]
    fn an_adapter_cannot_replace_the_state() {
        let parent = tempfile::tempdir().unwrap();
        let mut checkpoint = sample(1, 1);
        checkpoint.adapter_files.push((STATE.into(), vec![]));
        assert!(checkpoint.save_as(&Disk, &parent.path().join("x"), 0).is_err());
    }
}
