//! From the training loop to everyone who listens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Event, Record};

/// Somewhere records go. Must return quickly: the training loop is waiting.
pub trait Sink: Send {
    fn record(&mut self, record: &Record);
    /// Makes sure that nothing recorded is still held back.
    fn flush(&mut self) {}
}

/// One sink under several buses, as runs that are drawn side by side need.
impl<S: Sink> Sink for Arc<Mutex<S>> {
    fn record(&mut self, record: &Record) {
        lock(self).record(record);
    }
    fn flush(&mut self) {
        lock(self).flush();
    }
}

/// Stamps events with the name of the run and its clock, and hands them to every sink in the order of adding.
pub struct Bus {
    run: String,
    start: Instant,
    /// What the clock showed at `start`.
    offset: f64,
    sinks: Mutex<Vec<Box<dyn Sink>>>,
}

impl Bus {
    pub fn new(run: &str) -> Self {
        Self { run: run.into(), start: Instant::now(), offset: 0.0, sinks: Mutex::default() }
    }

    /// Lets the clock go on from `seconds`, as a resumed run does.
    pub fn starting_at(mut self, seconds: f64) -> Self {
        self.offset = seconds;
        self
    }

    pub fn with(self, sink: impl Sink + 'static) -> Self {
        lock(&self.sinks).push(Box::new(sink));
        self
    }

    pub fn emit(&self, event: Event) {
        let record = Record { run: self.run.clone(), t: self.seconds(), event };
        lock(&self.sinks).iter_mut().for_each(|sink| sink.record(&record));
    }

    /// What the clock of the run shows.
    pub fn seconds(&self) -> f64 {
        let seconds = self.offset + self.start.elapsed().as_secs_f64();
        (seconds * 1e3).round() / 1e3
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        lock(&self.sinks).iter_mut().for_each(|sink| sink.flush());
    }
}

/// A sink that panicked has said so; the others still get their records.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Memory(Vec<Record>, usize);

    impl Sink for Memory {
        fn record(&mut self, record: &Record) {
            self.0.push(record.clone());
        }
        fn flush(&mut self) {
            self.1 += 1;
        }
    }

    #[test]
    fn every_sink_gets_every_event_stamped_and_a_last_flush() {
        let (a, b) = (Arc::new(Mutex::new(Memory::default())), Arc::new(Mutex::new(Memory::default())));
        let bus = Bus::new("lora").starting_at(100.0).with(a.clone()).with(b.clone());
        bus.emit(Event::Saved { step: 1, path: "x".into() });
        bus.emit(Event::Saved { step: 2, path: "y".into() });
        drop(bus);
        let (a, b) = (a.lock().unwrap(), b.lock().unwrap());
        assert_eq!(a.0, b.0);
        assert_eq!(a.0.iter().map(|r| r.event.step()).collect::<Vec<_>>(), [Some(1), Some(2)]);
        assert!(a.0.iter().all(|r| r.run == "lora" && (100.0..160.0).contains(&r.t)));
        assert_eq!((a.1, b.1), (1, 1));
    }
}
