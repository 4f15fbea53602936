//! Replays finished runs and follows live ones, from their `metrics.jsonl` alone.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::terminal::{self, Feed, Screen};
use super::thread::{Tui, should_use};
use super::{Dashboard, Mode, Theme};
use crate::events::{Color, Console, Event, Format, Record, Sink, Tail};
use crate::{Error, Result};

const FILE: &str = "metrics.jsonl";

/// Shows all `runs` in one dashboard until `q`. Where there is no terminal, or `tui` says so, prints their lines until they have ended.
///
/// A run is its directory, a directory of such directories, or the file itself.
///
/// # Errors
/// [`Error::Input`] for a directory without a run and for a file that holds something else.
pub fn watch(runs: &[PathBuf], tui: Tui) -> Result<()> {
    let mut sources = Vec::new();
    for path in runs {
        sources.extend(find(path)?);
    }
    let mut sources = sources.iter().map(Source::open).collect::<Result<Vec<_>>>()?;
    relabel(&mut sources);
    let mut feed = move || -> Result<Feed> {
        let mut records = Vec::new();
        for source in &mut sources {
            records.extend(source.poll()?);
        }
        Ok(Feed { records, end: false })
    };
    // A file that cannot be read is told before the screen is taken.
    let mut first = Some(feed()?);
    let mut feed = move || first.take().map_or_else(&mut feed, Ok);
    if should_use(tui) {
        return terminal::drive(Screen::enter()?, Dashboard::new(Mode::Watch, Theme::detect()), feed, |_| {});
    }
    print(&mut feed)
}

/// One line per report, until every run that began has ended.
fn print(feed: &mut dyn FnMut() -> Result<Feed>) -> Result<()> {
    let mut console = Console::stderr(Format::Text, Color::Auto, 10);
    let mut running = HashSet::new();
    loop {
        for record in feed()?.records {
            match record.event {
                Event::RunEnded { .. } => drop(running.remove(&record.run)),
                _ => drop(running.insert(record.run.clone())),
            }
            console.record(&record);
        }
        if running.is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

struct Source {
    tail: Tail,
    path: PathBuf,
    /// Shown instead of the run's own name.
    label: Option<String>,
}

impl Source {
    fn open(path: &PathBuf) -> Result<Self> {
        Ok(Self { tail: Tail::open(path)?, path: path.clone(), label: None })
    }

    fn poll(&mut self) -> Result<Vec<Record>> {
        let mut records = self.tail.poll()?;
        if let Some(label) = &self.label {
            records.iter_mut().for_each(|record| record.run.clone_from(label));
        }
        Ok(records)
    }
}

/// Several runs go by their directories: two of them may well have the same name.
fn relabel(sources: &mut [Source]) {
    if sources.len() < 2 {
        return;
    }
    let short =
        |source: &Source| -> Option<String> { Some(source.path.parent()?.file_name()?.to_string_lossy().into_owned()) };
    let names: HashSet<_> = sources.iter().map(short).collect();
    let unique = names.len() == sources.len();
    for source in sources {
        let long = source.path.parent().unwrap_or(&source.path).display().to_string();
        source.label = short(source).filter(|_| unique).or(Some(long));
    }
}

fn find(path: &Path) -> Result<Vec<PathBuf>> {
    let files = if path.is_file() { vec![path.to_path_buf()] } else { search(path, 2) };
    if files.is_empty() {
        let error = Error::input("no run here").file(path).expected(format!("a directory with a {FILE}"));
        return Err(error.hint("training writes one below runs/").into());
    }
    Ok(files)
}

/// The runs in a directory, sorted; those of a comparison are up to two levels down.
fn search(directory: &Path, depth: usize) -> Vec<PathBuf> {
    let file = directory.join(FILE);
    if file.is_file() {
        return vec![file];
    }
    let Some(entries) = std::fs::read_dir(directory).ok().filter(|_| depth > 0) else { return Vec::new() };
    let mut below: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    below.sort();
    below.iter().flat_map(|directory| search(directory, depth - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_in_and_below_a_directory_and_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(watch(&[dir.path().into()], Tui::Never).unwrap_err().exit_code(), 2);
        for name in ["a/seed-0", "b/seed-0"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            let record = r#"{"run":"x","t":0.0,"event":"saved","step":1,"path":"p"}"#;
            std::fs::write(dir.path().join(name).join(FILE), format!("{record}\n")).unwrap();
        }
        let files = find(dir.path()).unwrap();
        assert_eq!(files.len(), 2);
        let mut sources: Vec<_> = files.iter().map(|file| Source::open(file).unwrap()).collect();
        relabel(&mut sources);
        let labels: Vec<_> = sources.iter_mut().map(|source| source.poll().unwrap()[0].run.clone()).collect();
        assert!(labels[0].ends_with("a/seed-0") && labels[1].ends_with("b/seed-0"), "{labels:?}");
        assert_eq!(find(&files[0]).unwrap(), files[..1]);
    }
}
