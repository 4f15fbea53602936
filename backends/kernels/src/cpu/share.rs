//! Work of some microseconds shared out between the calling thread and those of the pool.
//!
//! Decoding one token is hundreds of products of a hundred microseconds each, and as long as that it takes to wake a thread. So
//! threads that took part in one product stay for a while and watch for the next, and the calling thread waits for no one who
//! has not come. Long products are the faster through rayon's own loops (measured); the same threads stay awake for these.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

/// How long a thread watches for more work: longer than what lies between two products.
const WATCH: Duration = Duration::from_micros(300);

/// And how long altogether: it may be waited for elsewhere, and can be called again.
const STAY: Duration = Duration::from_millis(10);

/// One piece of work at a time, and those who watch for it.
static TEAM: Team = Team {
    leader: Mutex::new(()),
    work: RwLock::new(None),
    lots: AtomicUsize::new(0),
    watching: AtomicUsize::new(0),
    panicked: AtomicBool::new(false),
};

struct Team {
    leader: Mutex<()>,
    work: RwLock<Option<Work>>,
    /// Counts what has been shared out.
    lots: AtomicUsize,
    watching: AtomicUsize,
    panicked: AtomicBool,
}

type Work = &'static (dyn Fn() + Sync);

/// Does `work` on every item; items are taken by whoever is free.
pub(super) fn share<I: ExactSizeIterator<Item: Send> + Send>(items: I, work: impl Fn(I::Item) + Sync) {
    let helpers = rayon::current_num_threads().min(items.len()).saturating_sub(1);
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    let leader = match TEAM.leader.try_lock() {
        Ok(leader) => Some(leader),
        Err(TryLockError::Poisoned(leader)) => Some(leader.into_inner()),
        // Another thread is sharing out work of its own: it has the helpers.
        Err(TryLockError::WouldBlock) => None,
    };
    match leader {
        Some(_leader) if helpers > 0 => TEAM.run(&run, helpers),
        _ => run(),
    }
}

/// Keeps threads awake for one of rayon's own loops, of which a training step has more than a thousand, over so many tasks.
pub(super) fn stay_awake(tasks: usize) {
    TEAM.call(rayon::current_num_threads().min(tasks) - 1);
}

impl Team {
    fn run(&'static self, work: &(dyn Fn() + Sync), helpers: usize) {
        /// Ends the work before what it borrows is gone, whatever happens.
        struct Ended;
        impl Drop for Ended {
            fn drop(&mut self) {
                // Waits for those who are at it.
                *TEAM.work.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
        // SAFETY: `Ended` takes it back before this function returns, and nobody keeps it longer than the lock.
        let lasting = unsafe { std::mem::transmute::<&(dyn Fn() + Sync), Work>(work) };
        {
            let _ended = Ended;
            *self.work.write().unwrap_or_else(PoisonError::into_inner) = Some(lasting);
            self.lots.fetch_add(1, SeqCst);
            self.call(helpers);
            work();
        }
        assert!(!self.panicked.swap(false, SeqCst), "a thread that took part in a product panicked");
    }

    /// Has as many threads of the pool watch, unless they do.
    fn call(&'static self, helpers: usize) {
        thread_local!(static WATCHES: Cell<bool> = const { Cell::new(false) });
        let leader = std::thread::current().id();
        for _ in self.watching.load(SeqCst)..helpers {
            self.watching.fetch_add(1, SeqCst);
            rayon::spawn(move || {
                // rayon gives a thread its own jobs back where nobody else has come for them.
                if std::thread::current().id() != leader && !WATCHES.replace(true) {
                    self.watch();
                    WATCHES.set(false);
                }
                self.watching.fetch_sub(1, SeqCst);
            });
        }
    }

    /// Takes part in what is shared out, here or by rayon, until nothing has been for a while.
    fn watch(&self) {
        let began = Instant::now();
        let (mut seen, mut since) = (0, began);
        while since.elapsed() < WATCH && began.elapsed() < STAY {
            let lots = self.lots.load(SeqCst);
            if lots == seen {
                match rayon::yield_now() {
                    Some(rayon::Yield::Executed) => since = Instant::now(),
                    _ => std::hint::spin_loop(),
                }
                continue;
            }
            if let Some(work) = *self.work.read().unwrap_or_else(PoisonError::into_inner) {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                self.panicked.fetch_or(done.is_err(), SeqCst);
            }
            (seen, since) = (lots, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::{share, stay_awake};

    #[test]
    fn every_item_has_its_turn() {
        for n in [0, 1, 2, 1000] {
            let mut values = vec![0; n];
            share(values.iter_mut().enumerate(), |(i, value)| *value += i + 1);
            assert!(values.iter().enumerate().all(|(i, value)| *value == i + 1), "{n}");
        }
    }

    #[test]
    fn from_many_threads_over_and_over() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..500).for_each(|n| {
                        let mut values = vec![0; n % 40];
                        share(values.iter_mut(), |value| *value += 1);
                        assert!(values.iter().all(|value| *value == 1));
                    })
                });
            }
        });
    }

    #[test]
    fn loops_of_several_threads_end_beside_each_other() {
        let sum = |n: u64| {
            stay_awake(usize::MAX);
            (0..n).into_par_iter().sum::<u64>()
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|n| assert_eq!(sum(n), n * n.saturating_sub(1) / 2)));
            }
        });
    }

    #[test]
    fn a_panic_arrives_and_the_next_work_is_done() {
        let caught = std::panic::catch_unwind(|| share(0..100, |i| assert!(i != 50, "the fiftieth")));
        assert!(caught.is_err());
        every_item_has_its_turn();
    }
}
