//! The dashboard beside a training run: its own thread, which the loop never waits for.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::terminal::{self, Feed, Screen};
use super::{Dashboard, Effect, Mode, Theme};
use crate::events::{Control, Event, Record, Sink};
use crate::{Error, Result};

/// Records kept between two frames; beyond it, steps that nobody could see are merged.
const CAPACITY: usize = 4096;

/// What the user said of the dashboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tui {
    #[default]
    Auto,
    /// `--tui`
    Always,
    /// `--no-tui`
    Never,
}

/// Whether to draw, rather than to print lines.
pub fn should_use(tui: Tui) -> bool {
    let terminal = std::io::stderr().is_terminal() && in_foreground();
    decide(tui, terminal, |name| std::env::var(name).ok())
}

fn decide(tui: Tui, terminal: bool, env: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| env(name).is_some_and(|value| !value.is_empty() && value != "0" && value != "false");
    let dumb = env("TERM").is_none_or(|term| term == "dumb");
    match tui {
        Tui::Never => false,
        Tui::Always => terminal,
        Tui::Auto => terminal && !dumb && !set("CI") && !set("LOWRANK_NO_TUI"),
    }
}

/// A background job that touches the terminal's settings is stopped by the shell.
#[cfg(unix)]
fn in_foreground() -> bool {
    // SAFETY: both calls only read ids.
    unsafe { libc::tcgetpgrp(libc::STDERR_FILENO) == libc::getpgrp() }
}

#[cfg(not(unix))]
fn in_foreground() -> bool {
    true
}

/// Draws what it is told on its own thread, on stderr's terminal, and passes keys on to a [`Control`].
///
/// The screen is left when the last run has ended, or when the sink is dropped: add it to the bus before a
/// [summary](crate::events::Console::summary), which then prints on the normal screen.
pub struct DashboardSink {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
    running: usize,
}

impl DashboardSink {
    /// Takes the terminal for `runs` runs.
    ///
    /// # Errors
    /// [`Error::Failed`] if the terminal cannot be switched or no thread started.
    pub fn start(control: &Control, runs: usize) -> Result<Self> {
        let screen = Screen::enter()?;
        control.on_exit(terminal::restore);
        let (mailbox, control) = (Arc::new(Mailbox::default()), control.clone());
        let inbox = mailbox.clone();
        let act = move |effect| match effect {
            Effect::Ask(request) => control.request(request),
            Effect::Interrupt => control.interrupt(signal_hook::consts::SIGINT),
            Effect::Close => {}
        };
        let dashboard = Dashboard::new(Mode::Train, Theme::detect());
        // A terminal that goes away ends the drawing, not the training.
        let draw = move || drop(terminal::drive(screen, dashboard, || Ok(inbox.take()), act));
        let thread = std::thread::Builder::new().name("dashboard".into()).spawn(draw);
        let thread = thread.map_err(|error| Error::Failed(format!("no thread for the dashboard: {error}")))?;
        Ok(Self { mailbox, thread: Some(thread), running: runs.max(1) })
    }

    fn close(&mut self) {
        self.mailbox.closed.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Sink for DashboardSink {
    fn record(&mut self, record: &Record) {
        self.mailbox.put(record);
        if matches!(record.event, Event::RunEnded { .. }) {
            self.running = self.running.saturating_sub(1);
            if self.running == 0 {
                self.close();
            }
        }
    }
}

impl Drop for DashboardSink {
    fn drop(&mut self) {
        self.close();
    }
}

/// Held for the time of a push or a swap: no one ever waits here for a frame.
#[derive(Default)]
struct Mailbox {
    records: Mutex<Vec<Record>>,
    closed: AtomicBool,
}

impl Mailbox {
    fn put(&self, record: &Record) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= CAPACITY
            && let (Event::Step(new), Some(last)) = (&record.event, records.last_mut())
            && last.run == record.run
            && let Event::Step(old) = &mut last.event
        {
            let tokens = old.tokens;
            (last.t, *old) = (record.t, new.clone());
            old.tokens += tokens;
            return;
        }
        records.push(record.clone());
    }

    fn take(&self) -> Feed {
        let end = self.closed.load(SeqCst);
        let records = std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner));
        Feed { records, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Step;

    #[test]
    fn lines_wherever_a_screen_would_be_in_the_way() {
        let env = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        };
        assert!(decide(Tui::Auto, true, env(&[("TERM", "xterm")])));
        assert!(!decide(Tui::Auto, false, env(&[("TERM", "xterm")])));
        assert!(!decide(Tui::Auto, true, env(&[("TERM", "dumb")])));
        assert!(!decide(Tui::Auto, true, env(&[("TERM", "xterm"), ("CI", "true")])));
        assert!(!decide(Tui::Auto, true, env(&[("TERM", "xterm"), ("LOWRANK_NO_TUI", "1")])));
        assert!(decide(Tui::Always, true, env(&[("TERM", "xterm"), ("CI", "true")])));
        assert!(!decide(Tui::Always, false, env(&[])));
        assert!(!decide(Tui::Never, true, env(&[("TERM", "xterm")])));
    }

    #[test]
    fn a_full_mailbox_merges_steps_and_keeps_everything_else() {
        let record = |event| Record { run: "r".into(), t: 0.0, event };
        let mailbox = Mailbox::default();
        for step in 1..=CAPACITY + 10 {
            mailbox.put(&record(Event::Step(Step { step, tokens: 2, ..Step::default() })));
        }
        mailbox.put(&record(Event::Saved { step: 1, path: "x".into() }));
        let records = mailbox.take().records;
        assert_eq!(records.len(), CAPACITY + 1);
        let Event::Step(last) = &records[CAPACITY - 1].event else { panic!() };
        assert_eq!((last.step, last.tokens), (CAPACITY + 10, 22));
        assert!(mailbox.take().records.is_empty());
    }
}
