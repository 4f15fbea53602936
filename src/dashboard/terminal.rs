//! The terminal itself: taken, drawn on ten times a second, and given back whatever happens.

use std::io::{self, BufWriter, Stderr, Write, stderr};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyEventKind};
use crossterm::{cursor, execute, terminal};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::{Dashboard, Effect, Update, picture};
use crate::events::Record;
use crate::{Error, Result};

const FRAME: Duration = Duration::from_millis(100);

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The alternate screen of stderr's terminal. Dropping it gives the terminal back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stderr>>>,
    /// Whether keys can be read; drawing goes on without them.
    input: bool,
}

impl Screen {
    /// # Errors
    /// [`Error::Failed`] if the terminal cannot be switched.
    pub fn enter() -> Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                previous(panic);
            }));
        });
        Self::switch().map_err(|error| {
            restore();
            Error::Failed(format!("no dashboard on this terminal: {error}"))
        })
    }

    fn switch() -> io::Result<Self> {
        TAKEN.store(true, SeqCst);
        terminal::enable_raw_mode()?;
        execute!(stderr(), terminal::EnterAlternateScreen, cursor::Hide)?;
        let backend = CrosstermBackend::new(BufWriter::with_capacity(1 << 16, stderr()));
        Ok(Self { terminal: Terminal::new(backend)?, input: true })
    }

    /// Columns and lines.
    fn size(&self) -> (u16, u16) {
        let size = self.terminal.size().unwrap_or_default();
        (size.width, size.height)
    }

    fn draw(&mut self, dashboard: &Dashboard) -> io::Result<()> {
        if TAKEN.load(SeqCst) {
            self.terminal.draw(|frame| dashboard.view(frame))?;
        }
        Ok(())
    }

    /// The next key or change of size before `deadline`.
    fn next(&mut self, deadline: Instant) -> Option<Update> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.input {
                std::thread::sleep(left);
                return None;
            }
            match event::poll(left).and_then(|ready| if ready { event::read().map(Some) } else { Ok(None) }) {
                Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => return Some(Update::Key(key)),
                Ok(Some(Event::Resize(..))) => return Some(Update::Resize),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(_) => self.input = false,
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, if it is taken. May be called from anywhere, any number of times.
pub fn restore() {
    if TAKEN.swap(false, SeqCst) {
        let _ = execute!(stderr(), terminal::LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
        let _ = stderr().flush();
    }
}

/// What has come in since the last frame.
#[derive(Default)]
pub struct Feed {
    pub records: Vec<Record>,
    /// Nothing will follow, and the screen is to be left.
    pub end: bool,
}

/// Draws until the feed ends or the dashboard is closed; only frames that differ are drawn.
///
/// # Errors
/// Those of `feed`, and [`Error::Failed`] if the terminal goes away.
pub fn drive(
    mut screen: Screen,
    mut dashboard: Dashboard,
    mut feed: impl FnMut() -> Result<Feed>,
    act: impl Fn(Effect),
) -> Result<()> {
    let gone = |error| Error::Failed(format!("the terminal is gone: {error}"));
    let (mut changed, mut tick) = (true, Instant::now());
    loop {
        let deadline = Instant::now() + FRAME;
        let Feed { records, end } = feed()?;
        changed |= !records.is_empty();
        for record in records {
            dashboard.apply(Update::Record(Box::new(record)));
        }
        if end {
            return Ok(());
        }
        let passed = tick.elapsed().as_secs_f64();
        match dashboard.pace() {
            Some(pace) if passed >= pace => {
                dashboard.apply(Update::Tick(passed));
                (changed, tick) = (true, Instant::now());
            }
            Some(_) => {}
            None => tick = Instant::now(),
        }
        if std::mem::take(&mut changed) {
            screen.draw(&dashboard).map_err(gone)?;
        }
        while let Some(update) = screen.next(deadline) {
            match dashboard.apply(update) {
                Some(Effect::Close) => return Ok(()),
                Some(Effect::Picture) => {
                    let said = picture::save(&dashboard, screen.size());
                    dashboard.apply(Update::Note(said));
                }
                Some(effect) => act(effect),
                None => {}
            }
            screen.draw(&dashboard).map_err(gone)?;
        }
    }
}
