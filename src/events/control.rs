//! The one way back into the loop: stop, save, evaluate, pause.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::bus::lock;
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Finish the step, save, end.
    Stop,
    /// Finish the step, end without saving.
    StopNow,
    Save,
    Evaluate,
    TogglePause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopKind {
    /// Save first.
    Save,
    /// Save nothing.
    Now,
}

/// What people and signals ask of a running loop. Clones speak of the same loop.
#[derive(Clone, Default)]
pub struct Control(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// 0 go on, 1 save and stop, 2 stop now.
    stop: AtomicU8,
    signal: AtomicI32,
    paused: AtomicBool,
    save: AtomicBool,
    evaluate: AtomicBool,
    on_exit: Mutex<Vec<Box<dyn FnMut() + Send>>>,
}

impl Control {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn request(&self, request: Request) {
        match request {
            Request::Stop => {
                self.0.stop.fetch_max(1, SeqCst);
            }
            Request::StopNow => {
                self.0.stop.fetch_max(2, SeqCst);
            }
            Request::Save => self.0.save.store(true, SeqCst),
            Request::Evaluate => self.0.evaluate.store(true, SeqCst),
            Request::TogglePause => {
                self.0.paused.fetch_not(SeqCst);
            }
        }
    }

    /// Whether to wait before the next step. Never true once the loop is to stop.
    pub fn paused(&self) -> bool {
        self.0.paused.load(SeqCst) && self.stop().is_none()
    }

    /// Whether a save was asked for since the last call.
    pub fn take_save(&self) -> bool {
        self.0.save.swap(false, SeqCst)
    }

    /// Whether an evaluation was asked for since the last call.
    pub fn take_evaluate(&self) -> bool {
        self.0.evaluate.swap(false, SeqCst)
    }

    pub fn stop(&self) -> Option<StopKind> {
        match self.0.stop.load(SeqCst) {
            0 => None,
            1 => Some(StopKind::Save),
            _ => Some(StopKind::Now),
        }
    }

    /// The signal that asked for the stop, if it was one.
    pub fn signal(&self) -> Option<i32> {
        Some(self.0.signal.load(SeqCst)).filter(|&signal| signal != 0)
    }

    /// Runs `hook` before the process exits at once, to give the terminal back, say.
    pub fn on_exit(&self, hook: impl FnMut() + Send + 'static) {
        lock(&self.0.on_exit).push(Box::new(hook));
    }

    /// What a signal does, or Ctrl-C in a terminal that delivers it as a key: the first one asks for a stop after
    /// saving, the second one ends the process at once with 128 + signal.
    pub fn interrupt(&self, signal: i32) {
        if self.0.signal.swap(signal, SeqCst) == 0 {
            self.request(Request::Stop);
            return;
        }
        lock(&self.0.on_exit).iter_mut().for_each(|hook| hook());
        signal_hook::low_level::exit(128 + signal);
    }

    /// Lets SIGINT and SIGTERM [`interrupt`](Self::interrupt) this loop.
    ///
    /// # Errors
    /// [`Error::Failed`] if the system refuses the handlers.
    pub fn install_signal_handlers(&self) -> Result<()> {
        let refused = |error| Error::Failed(format!("no signal handlers: {error}"));
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(refused)?;
        let control = self.clone();
        let listen = move || signals.forever().for_each(|signal| control.interrupt(signal));
        std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(refused)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_once() {
        let control = Control::new();
        assert!(!control.take_save());
        control.clone().request(Request::Save);
        control.request(Request::Evaluate);
        assert!(control.take_save() && control.take_evaluate());
        assert!(!control.take_save() && !control.take_evaluate());
    }

    #[test]
    fn a_stop_ends_a_pause_and_is_never_taken_back() {
        let control = Control::new();
        control.request(Request::TogglePause);
        assert!(control.paused());
        control.request(Request::StopNow);
        control.request(Request::Stop);
        assert_eq!(control.stop(), Some(StopKind::Now));
        assert!(!control.paused());
        assert_eq!(control.signal(), None);
    }

    #[test]
    fn the_first_signal_asks_for_a_saving_stop_and_is_remembered() {
        let control = Control::new();
        control.install_signal_handlers().unwrap();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        for _ in 0..500 {
            if control.stop().is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!((control.stop(), control.signal()), (Some(StopKind::Save), Some(SIGTERM)));
    }
}
