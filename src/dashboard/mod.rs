//! The dashboard: model, update, view.
//!
//! [`Dashboard::apply`] takes in records and keys, [`Dashboard::view`] draws; neither touches a terminal, a file or a
//! clock, so a recorded run replays to the same frames. [`DashboardSink`] runs it beside training, [`watch`] over files.

mod act;
mod axes;
mod board;
mod chart;
mod clock;
mod device;
mod facts;
mod glyphs;
mod header;
mod heat;
mod keys;
mod layout;
mod log;
mod picture;
mod place;
mod popup;
mod ranking;
mod replay;
mod run;
mod sources;
mod table;
mod terminal;
mod theme;
mod thread;
mod watch;

#[cfg(test)]
mod recording;
#[cfg(test)]
mod tests;

pub use keys::Mode;
pub use theme::Theme;
pub use thread::{DashboardSink, Tui, should_use};
pub use watch::{Size, picture, watch};

use std::collections::BTreeSet;
use std::path::PathBuf;

use board::Board;
use crossterm::event::KeyEvent;
use ratatui::Frame;
use replay::Replay;
use run::{Modules, Run};

use crate::compare::Plan;
use crate::events::{Record, Request};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Update {
    Record(Box<Record>),
    Key(KeyEvent),
    /// So many seconds have passed.
    Tick(f64),
    Resize,
    /// Something to say in the log.
    Note(String),
}

/// What a key asks of the world outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Ask(Request),
    /// As a signal would.
    Interrupt,
    /// Write what is drawn into a file.
    Picture,
    /// Leave the screen.
    Close,
}

/// What is looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    /// Of the comparison, where it is one. Variants get their colours in its order.
    pub plan: Option<Plan>,
    /// Of the run or comparison; pictures go there.
    pub dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Panel {
    Loss,
    Runs,
    Modules,
    Device,
    Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Step,
    Tokens,
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Popup {
    Help,
    Quit,
}

const PANELS: [Panel; 5] = [Panel::Loss, Panel::Runs, Panel::Modules, Panel::Device, Panel::Log];
const SMOOTHING: [f64; 3] = [0.0, 0.9, 0.99];

pub struct Dashboard {
    mode: Mode,
    theme: Theme,
    dir: PathBuf,
    live: Board,
    /// What is drawn instead of `live`, after `z`.
    frozen: Option<Board>,
    /// Of watched runs.
    replay: Replay,
    focus: Panel,
    zoomed: bool,
    popup: Option<Popup>,
    /// Place among the variants.
    selected: usize,
    /// The newest where it is none.
    seed: Option<u64>,
    /// Variants that the chart leaves out.
    hidden: BTreeSet<usize>,
    smoothing: usize,
    axis: Axis,
    /// How often the x range has been halved.
    halvings: u32,
    log_scale: bool,
    norms: bool,
    numbers: bool,
    paused: bool,
    stopping: bool,
    /// Lines scrolled up from the newest.
    scroll: usize,
    find: String,
    typing: bool,
}

impl Dashboard {
    pub fn new(mode: Mode, theme: Theme, scene: Scene) -> Self {
        Self {
            mode,
            theme,
            dir: scene.dir,
            live: Board::new(scene.plan),
            frozen: None,
            replay: Replay::default(),
            focus: Panel::Loss,
            zoomed: false,
            popup: None,
            selected: 0,
            seed: None,
            hidden: BTreeSet::new(),
            smoothing: 1,
            axis: Axis::Step,
            halvings: 0,
            log_scale: false,
            norms: false,
            numbers: false,
            paused: false,
            stopping: false,
            scroll: 0,
            find: String::new(),
            typing: false,
        }
    }

    /// Takes in what happened; says what is asked of the world outside.
    pub fn apply(&mut self, update: Update) -> Option<Effect> {
        match update {
            Update::Record(record) => {
                self.live.record(&record);
                if self.mode == Mode::Watch {
                    self.replay.push(*record, self.live.elapsed());
                }
            }
            Update::Key(key) => return self.key(key),
            Update::Tick(seconds) if self.mode == Mode::Watch => self.replay.tick(self.live.plan.as_ref(), seconds),
            Update::Tick(seconds) => self.live.tick(seconds),
            Update::Resize => {}
            Update::Note(text) => {
                let shown = self.replay.board_mut().or(self.frozen.as_mut());
                shown.into_iter().for_each(|board| board.note(text.clone()));
                self.live.note(text);
            }
        }
        None
    }

    /// Draws the whole frame, whatever its size.
    pub fn view(&self, frame: &mut Frame) {
        let area = frame.area();
        layout::draw(self, area, frame.buffer_mut());
    }

    /// How often a [`Tick`](Update::Tick) changes what is drawn, in seconds; none where it never does.
    fn pace(&self) -> Option<f64> {
        match self.mode {
            Mode::Train => Some(1.0),
            Mode::Watch => self.replay.is_playing().then_some(0.0),
        }
    }

    fn board(&self) -> &Board {
        self.replay.board().or(self.frozen.as_ref()).unwrap_or(&self.live)
    }

    /// The run that stands for a variant.
    fn main(&self, variant: usize) -> Option<&Run> {
        self.board().main(variant, self.seed)
    }

    /// That of the selected variant.
    fn run(&self) -> Option<&Run> {
        self.main(self.selected)
    }

    /// What the map shows: ranks where there are any, unless norms are asked for.
    fn modules(&self) -> Option<&Modules> {
        let run = self.run()?;
        let [first, second] = if self.norms { [&run.norms, &run.ranks] } else { [&run.ranks, &run.norms] };
        first.as_ref().or(second.as_ref()).filter(|modules| !modules.cells.is_empty())
    }

    /// Whether there is a map, or may be.
    fn has_map(&self) -> bool {
        self.board().plan.is_some() || self.modules().is_some()
    }

    fn beta(&self) -> f64 {
        SMOOTHING[self.smoothing]
    }
}
