//! A variant: the runs of one name, each with a seed of its own.

use serde_json::Value;

use super::discover::Source;
use super::history::Run;
use crate::checkpoint::RunStatus;
use crate::{Error, Result};

#[derive(Clone, Debug, Default)]
pub struct Group {
    pub name: String,
    /// At least one, by seed.
    pub runs: Vec<Run>,
}

impl Group {
    /// The resolved recipe, of its first run.
    pub fn plan(&self) -> Option<&Value> {
        self.runs.first()?.start.as_ref().map(|start| &start.plan)
    }

    pub fn finished(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.state == RunStatus::Finished)
    }
}

/// Reads the runs and sorts them into variants, in the order in which they were found.
///
/// # Errors
/// As [`Run::read`]; an input error for two runs of one variant with the same seed.
pub fn groups(sources: &[Source]) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for source in sources {
        let run = Run::read(source)?;
        let index = groups.iter().position(|group| group.name == run.variant).unwrap_or(groups.len());
        if index == groups.len() {
            groups.push(Group { name: run.variant.clone(), runs: Vec::new() });
        }
        let runs = &mut groups[index].runs;
        if let Some(twin) = runs.iter().find(|other| other.seed == run.seed) {
            let what = format!("two runs of `{}` have seed {}", run.variant, run.seed);
            let hint = "runs are called like their directories: rename one, or give another";
            return Err(Error::input(what).file(&run.dir).found(twin.dir.display()).hint(hint).into());
        }
        runs.push(run);
    }
    groups.iter_mut().for_each(|group| group.runs.sort_by_key(|run| run.seed));
    Ok(groups)
}
