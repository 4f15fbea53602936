//! Runs of a comparison that go side by side: each is begun, resumed or left as it is, and then they race.

use std::path::{Path, PathBuf};

use super::bases::Bases;
use super::past::Past;
use super::race::{Racer, race};
use super::run::Outcome;
use super::{Job, Options};
use crate::events::{Bus, Control, Event};
use crate::{Error, Result};

/// A run that is to be.
pub(super) struct Entrant {
    pub job: Job,
    /// Where it is written.
    pub dir: PathBuf,
    /// What its events call it.
    pub name: String,
}

/// What became of one run of a comparison.
pub struct Entry {
    pub variant: String,
    pub seed: u64,
    /// None where it had finished before and nothing was run.
    pub came: Option<Result<Outcome>>,
}

/// What a comparison runs over and who looks on.
pub(super) struct Track<'a> {
    pub bases: &'a Bases,
    /// Gives each run's bus those who look on.
    pub listen: &'a dyn Fn(Bus) -> Bus,
    pub control: &'a Control,
}

impl Track<'_> {
    /// Runs all side by side; entries come with those that had finished before first.
    ///
    /// # Errors
    /// What keeps a run from beginning.
    pub fn heat(&self, entrants: &mut [Entrant]) -> Result<Vec<Entry>> {
        let (mut entries, mut racers, mut running) = (Vec::new(), Vec::new(), Vec::new());
        for entrant in entrants {
            let (variant, seed) = (entrant.job.name.clone(), entrant.job.recipe.seed);
            match self.begin(entrant)? {
                None => entries.push(Entry { variant, seed, came: None }),
                Some(racer) => {
                    racers.push(racer);
                    running.push((variant, seed));
                }
            }
        }
        let outcomes = running.into_iter().zip(race(racers, self.control));
        entries.extend(outcomes.map(|((variant, seed), outcome)| Entry { variant, seed, came: Some(outcome) }));
        Ok(entries)
    }

    /// None where nothing is left to do.
    fn begin<'a>(&self, Entrant { job, dir, name }: &'a mut Entrant) -> Result<Option<Racer<'a>>> {
        let (resume, aside) = match job.past(dir)? {
            Past::Done => return Ok(None),
            Past::Unfinished => (true, None),
            Past::Nothing => (false, None),
            Past::Other => (false, Some(set_aside(dir)?)),
        };
        let options = match resume {
            true => Options { resume: Some(Some(dir.clone())), out: None },
            false => Options { resume: None, out: Some(dir.clone()) },
        };
        let begun = job.begin_among(&options, self.bases)?;
        let Some(run) = begun.run else { return Ok(None) };
        let bus = (self.listen)(run.bus_of(name)?);
        begun.notes.into_iter().chain(aside).for_each(|text| bus.emit(Event::Note { text }));
        for text in begun.warnings {
            bus.emit(Event::Warning { code: "resume".into(), text, count: 1 });
        }
        Ok(Some(Racer { run, bus }))
    }
}

/// Makes room for a run whose recipe, data, base or version is not that of the run that lies there; nothing is deleted.
fn set_aside(dir: &Path) -> Result<String> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let mut numbered = (1..).map(|n| dir.with_file_name(format!("{name}.aside-{n}")));
    let free = numbered.find(|path| !path.exists()).unwrap_or_default();
    std::fs::rename(dir, &free).map_err(Error::io(dir))?;
    Ok(format!("recipe, data, base or version have changed: the earlier run is set aside in {}", free.display()))
}
