//! What a job finds where it is to write.

use std::path::Path;

use super::Job;
use crate::Result;
use crate::checkpoint::{Hashes, Layout, RunStatus};

/// What lies in a run directory, measured by a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    Nothing,
    /// This very job, finished.
    Done,
    /// This very job, to be resumed.
    Unfinished,
    /// A run with another recipe, of other data, over another base or of another version of this program.
    Other,
}

impl Job {
    /// A job is the same where its recipe, data, base, tokenizer and this program's version are. Takes over what a pilot of that
    /// run has decided.
    pub(super) fn past(&mut self, dir: &Path) -> Result<Past> {
        let Ok(layout) = Layout::of(dir) else { return Ok(Past::Nothing) };
        if !layout.recipe().exists() {
            // Killed before it wrote more than that it exists.
            return Ok(Past::Unfinished);
        }
        let info = layout.read_info()?;
        self.adopt(&layout)?;
        let hashes = Hashes { adapter: info.hashes.adapter.clone(), ..self.hashes()? };
        let version = info.versions.get("lowrank").map(String::as_str);
        Ok(match () {
            () if info.hashes != hashes || version != Some(env!("CARGO_PKG_VERSION")) => Past::Other,
            () if info.status == RunStatus::Finished && info.steps >= self.steps => Past::Done,
            () => Past::Unfinished,
        })
    }
}
