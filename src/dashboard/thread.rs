//! The dashboard beside a training run: its own thread, which the loop never waits for.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::terminal::{self, Feed, Screen};
use super::{Dashboard, Effect, Mode, Scene, Theme, place, sources};
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
/// The screen is left when the sink is dropped; beside a single run also when that has ended: add it to the bus before a
/// [summary](crate::events::Console::summary), which then prints on the normal screen.
pub struct DashboardSink {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
    /// Whether more runs follow one that ends.
    several: bool,
}

impl DashboardSink {
    /// Takes the terminal. What runs of a comparison have written before is drawn too.
    ///
    /// # Errors
    /// An input error for a file in its directory that is none of a run, [`Error::Failed`] if the terminal cannot be switched
    /// or no thread started.
    pub fn start(control: &Control, scene: Scene) -> Result<Self> {
        let (several, past) = (scene.plan.is_some(), sources::past(&scene)?);
        let screen = Screen::enter()?;
        control.on_exit(terminal::restore);
        let (mailbox, control) = (Arc::new(Mailbox::default()), control.clone());
        past.iter().for_each(|record| mailbox.put(record));
        let inbox = mailbox.clone();
        let act = move |effect| match effect {
            Effect::Ask(request) => control.request(request),
            Effect::Interrupt => control.interrupt(signal_hook::consts::SIGINT),
            Effect::Picture | Effect::Close => {}
        };
        let dashboard = Dashboard::new(Mode::Train, Theme::detect(), scene);
        // A terminal that goes away ends the drawing, not the training.
        let draw = move || drop(terminal::drive(screen, dashboard, || Ok(inbox.take()), act));
        let thread = std::thread::Builder::new().name("dashboard".into()).spawn(draw);
        let thread = thread.map_err(|error| Error::Failed(format!("no thread for the dashboard: {error}")))?;
        Ok(Self { mailbox, thread: Some(thread), several })
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
        if !self.several && matches!(record.event, Event::RunEnded { .. }) && !place::is_pilot(&record.run) {
            self.close();
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
            && let Event::Step(new) = &record.event
            && let Some(last) = records.iter_mut().rev().find(|last| last.run == record.run)
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
        // Two runs take turns.
        for step in 1..=CAPACITY / 2 + 10 {
            for run in ["r", "s"] {
                let event = Event::Step(Step { step, tokens: 2, ..Step::default() });
                mailbox.put(&Record { run: run.into(), ..record(event) });
            }
        }
        mailbox.put(&record(Event::Saved { step: 1, path: "x".into() }));
        let records = mailbox.take().records;
        assert_eq!(records.len(), CAPACITY + 1);
        for last in &records[CAPACITY - 2..CAPACITY] {
            let Event::Step(step) = &last.event else { panic!() };
            assert_eq!((step.step, step.tokens), (CAPACITY / 2 + 10, 22), "{}", last.run);
        }
        assert!(mailbox.take().records.is_empty());
    }
}
