//! The dashboard: model, update, view.
//!
//! [`Dashboard::apply`] takes in records and keys, [`Dashboard::view`] draws; neither touches a terminal, a file or a
//! clock, so a recorded run replays to the same frames. [`DashboardSink`] runs it beside training, [`watch`] over files.

mod board;
mod chart;
mod device;
mod glyphs;
mod heat;
mod keys;
mod layout;
mod log;
mod picture;
mod popup;
mod runs;
mod terminal;
mod theme;
mod thread;
mod watch;

#[cfg(test)]
mod recording;
#[cfg(test)]
mod tests;

pub use keys::Mode;
pub use picture::svg;
pub use theme::Theme;
pub use thread::{DashboardSink, Tui, should_use};
pub use watch::watch;

use board::Board;
use crossterm::event::{KeyCode, KeyEvent};
use keys::Action;
use ratatui::Frame;

use crate::events::{Record, Request};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Update {
    Record(Box<Record>),
    Key(KeyEvent),
    /// So many seconds have passed.
    Tick(f64),
    Resize,
}

/// What a key asks of the world outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Ask(Request),
    /// As a signal would.
    Interrupt,
    /// Leave the screen.
    Close,
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
    live: Board,
    /// What is drawn instead of `live`, after `z`.
    frozen: Option<Board>,
    focus: Panel,
    zoomed: bool,
    popup: Option<Popup>,
    selected: usize,
    smoothing: usize,
    axis: Axis,
    log_scale: bool,
    paused: bool,
    stopping: bool,
    /// Lines scrolled up from the newest.
    scroll: usize,
    find: String,
    typing: bool,
}

impl Dashboard {
    pub fn new(mode: Mode, theme: Theme) -> Self {
        Self {
            mode,
            theme,
            live: Board::default(),
            frozen: None,
            focus: Panel::Loss,
            zoomed: false,
            popup: None,
            selected: 0,
            smoothing: 1,
            axis: Axis::Step,
            log_scale: false,
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
            Update::Record(record) => self.live.record(&record),
            Update::Key(key) => return self.key(key),
            Update::Tick(seconds) => {
                self.live.runs.iter_mut().filter(|run| run.ended.is_none()).for_each(|run| run.t += seconds);
            }
            Update::Resize => {}
        }
        None
    }

    /// Draws the whole frame, whatever its size.
    pub fn view(&self, frame: &mut Frame) {
        let area = frame.area();
        layout::draw(self, area, frame.buffer_mut());
    }

    fn key(&mut self, key: KeyEvent) -> Option<Effect> {
        let action = keys::action(key, self.mode);
        if action == Some(Action::Interrupt) {
            self.stopping = true;
            return Some(if self.mode == Mode::Train { Effect::Interrupt } else { Effect::Close });
        }
        if self.typing {
            self.type_into_find(key.code);
            return None;
        }
        match self.popup.take() {
            Some(Popup::Quit) => self.answer(key.code),
            Some(Popup::Help) => None,
            None => self.act(action?),
        }
    }

    fn act(&mut self, action: Action) -> Option<Effect> {
        let runs = self.board().runs.len().max(1);
        match action {
            Action::Quit if self.mode == Mode::Watch => return Some(Effect::Close),
            Action::Quit => self.popup = Some(Popup::Quit),
            Action::Interrupt => return Some(Effect::Interrupt),
            Action::Ask(request) => {
                self.paused ^= request == Request::TogglePause;
                return Some(Effect::Ask(request));
            }
            Action::NextPanel => self.turn(1),
            Action::PreviousPanel => self.turn(PANELS.len() - 1),
            Action::NextRun => self.selected = (self.selected + 1) % runs,
            Action::PreviousRun => self.selected = (self.selected + runs - 1) % runs,
            Action::ScrollUp => self.scroll = (self.scroll + 1).min(self.board().log.len().saturating_sub(1)),
            Action::ScrollDown => self.scroll = self.scroll.saturating_sub(1),
            Action::Zoom => self.zoomed = !self.zoomed,
            Action::Smooth => self.smoothing = (self.smoothing + 1) % SMOOTHING.len(),
            Action::Axis => {
                self.axis = match self.axis {
                    Axis::Step => Axis::Tokens,
                    Axis::Tokens => Axis::Time,
                    Axis::Time => Axis::Step,
                }
            }
            Action::Log => self.log_scale = !self.log_scale,
            Action::Find => {
                (self.typing, self.focus, self.scroll) = (true, Panel::Log, 0);
                self.find.clear();
            }
            Action::Freeze => self.frozen = if self.frozen.is_some() { None } else { Some(self.live.clone()) },
            Action::Help => self.popup = Some(Popup::Help),
            Action::Back => {
                self.zoomed = false;
                self.find.clear();
            }
        }
        None
    }

    /// The focus goes round the panels that have something to show.
    fn turn(&mut self, by: usize) {
        let at = |panel| PANELS.iter().position(|&p| p == panel).unwrap_or(0);
        loop {
            self.focus = PANELS[(at(self.focus) + by) % PANELS.len()];
            if self.focus != Panel::Modules || self.modules().is_some() {
                break;
            }
        }
    }

    fn answer(&mut self, code: KeyCode) -> Option<Effect> {
        let request = match code {
            KeyCode::Char('s') => Request::Stop,
            KeyCode::Char('k') => Request::StopNow,
            KeyCode::Esc | KeyCode::Char('q' | 'n') => return None,
            _ => {
                self.popup = Some(Popup::Quit);
                return None;
            }
        };
        self.stopping = true;
        Some(Effect::Ask(request))
    }

    fn type_into_find(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) => self.find.push(c),
            KeyCode::Backspace => drop(self.find.pop()),
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.find.clear();
            }
            _ => {}
        }
    }

    fn board(&self) -> &Board {
        self.frozen.as_ref().unwrap_or(&self.live)
    }

    fn run(&self) -> Option<&board::Run> {
        self.board().runs.get(self.selected)
    }

    fn modules(&self) -> Option<&board::Modules> {
        self.run()?.modules.as_ref().filter(|modules| !modules.cells.is_empty())
    }

    fn beta(&self) -> f64 {
        SMOOTHING[self.smoothing]
    }
}
