//! Replays finished runs and follows live ones, from their `metrics.jsonl` alone.

use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::picture::svg;
use super::terminal::{self, Feed, Screen};
use super::thread::{Tui, should_use};
use super::{Dashboard, Mode, Theme, Update, sources};
use crossterm::event::KeyCode;

use crate::events::{Color, Console, Event, Format, Sink};
use crate::{Error, Result};

/// Shows all `runs` in one dashboard until `q`. Where there is no terminal, or `tui` says so, prints their lines until they have ended.
///
/// A run is its directory, a comparison, a directory of such directories, or the file itself.
///
/// # Errors
/// [`Error::Input`] for a directory without a run and for a file that holds something else.
pub fn watch(runs: &[PathBuf], tui: Tui) -> Result<()> {
    let (scene, mut sources) = sources::open(runs)?;
    let mut feed = move || -> Result<Feed> { Ok(Feed { records: sources.poll()?, end: false }) };
    // A file that cannot be read is told before the screen is taken.
    let mut first = Some(feed()?);
    let mut feed = move || first.take().map_or_else(&mut feed, Ok);
    if should_use(tui) {
        return terminal::drive(Screen::enter()?, Dashboard::new(Mode::Watch, Theme::detect(), scene), feed, |_| {});
    }
    print(&mut feed)
}

/// One frame as an SVG picture: of all `runs` at `share` of their time, 1 for as they stand now, after someone typed `keys`.
///
/// # Errors
/// As [`watch`].
pub fn picture(runs: &[PathBuf], size: Size, share: f64, keys: &str) -> Result<String> {
    let (scene, mut sources) = sources::open(runs)?;
    let mut dashboard = Dashboard::new(Mode::Watch, Theme::Color, scene);
    for record in sources.poll()? {
        dashboard.apply(Update::Record(Box::new(record)));
    }
    dashboard.show_as_live(share);
    for key in keys.chars() {
        dashboard.apply(Update::Key(KeyCode::Char(key).into()));
    }
    Ok(svg(&dashboard, (size.columns, size.lines)))
}

impl Dashboard {
    /// What the dashboard beside the runs drew when so much of their time had passed.
    pub(super) fn show_as_live(&mut self, share: f64) {
        self.replay.at(self.live.plan.as_ref(), share);
        if let Some(board) = self.replay.board() {
            self.live = board.clone();
        }
        (self.replay, self.mode) = (Default::default(), Mode::Train);
    }
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: u16,
    pub lines: u16,
}

impl FromStr for Size {
    type Err = Error;

    /// `100x30`; at most 1000 each.
    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse().ok().filter(|n| (1..=1000).contains(n));
        let size = text.split_once('x').and_then(|(columns, lines)| Some((number(columns)?, number(lines)?)));
        let (columns, lines) = size.ok_or_else(|| {
            Error::input("no size of a terminal").key("--size").found(text).expected("COLSxROWS, as 100x30, up to 1000")
        })?;
        Ok(Self { columns, lines })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_nonsense_is_told() {
        assert_eq!("100x30".parse::<Size>().unwrap(), Size { columns: 100, lines: 30 });
        for wrong in ["100", "0x30", "100x", "100x30x1", "-1x3", "9999x9"] {
            let told = wrong.parse::<Size>().unwrap_err().to_string();
            assert!(told.contains("COLSxROWS") && told.contains(wrong), "{told}");
        }
    }
}
