//! `run.json`: what ran, on what, how it ended and what it cost.

use std::path::Path;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Hashes;
use crate::events::{Memory, Status};
use crate::{Error, Result};

/// Rewritten as a whole at the start and at the end of each process that works on the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The recipe as it was named: `tiny/lora`.
    pub recipe: String,
    pub command: Vec<String>,
    /// `lowrank`, the backend, ... and their versions.
    pub versions: IndexMap<String, String>,
    pub device: String,
    pub threads: usize,
    pub hashes: Hashes,
    pub status: RunStatus,
    /// RFC 3339, UTC.
    pub started: String,
    /// Optimizer steps taken.
    pub steps: usize,
    /// Over all processes that worked on the run.
    pub wall_seconds: f64,
    pub peak_mem_bytes: u64,
    /// What the last process measured, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

/// How a run stands; `Running` also after a kill, which leaves no time to say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    #[default]
    Running,
    Finished,
    Interrupted,
    Diverged,
    Failed,
}

impl RunStatus {
    /// For a person who looks at it later.
    pub fn word(self) -> &'static str {
        match self {
            RunStatus::Running => "running, or killed",
            RunStatus::Finished => Status::Finished.word(),
            RunStatus::Interrupted => Status::Interrupted.word(),
            RunStatus::Diverged => Status::Diverged.word(),
            RunStatus::Failed => Status::Failed.word(),
        }
    }

    /// As files have it.
    pub fn name(self) -> &'static str {
        if self == RunStatus::Running { "running" } else { self.word() }
    }
}

impl From<Status> for RunStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Finished => RunStatus::Finished,
            Status::Interrupted => RunStatus::Interrupted,
            Status::Diverged => RunStatus::Diverged,
            Status::Failed => RunStatus::Failed,
        }
    }
}

impl RunInfo {
    /// Of a run that starts now.
    pub fn new(recipe: &str) -> Self {
        Self {
            recipe: recipe.into(),
            command: std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
            versions: IndexMap::from([("lowrank".into(), env!("CARGO_PKG_VERSION").into())]),
            device: String::new(),
            threads: 0,
            hashes: Hashes::default(),
            status: RunStatus::Running,
            started: Timestamp::now().to_string(),
            steps: 0,
            wall_seconds: 0.0,
            peak_mem_bytes: 0,
            memory: None,
        }
    }

    /// Reads a `run.json`.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::input("not a run.json of this version").file(path).found(error).into())
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|error| Error::Failed(format!("run.json: {error}")))
    }
}
