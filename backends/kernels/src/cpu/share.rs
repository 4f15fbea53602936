//! Work shared out between the calling thread and those of the pool.

use std::sync::{Mutex, PoisonError};

/// Does `work` on every item. The calling thread takes part: of a product of one row half is done before another thread is
/// awake, while rayon's own loops have a thread that is not of the pool sleep until the pool is done. Long products are the
/// faster the other way (measured), with two threads of the pool that stay where they are.
pub(super) fn share<I: ExactSizeIterator<Item: Send> + Send>(items: I, work: impl Fn(I::Item) + Sync) {
    let helpers = rayon::current_num_threads().min(items.len()).saturating_sub(1);
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    rayon::in_place_scope(|scope| {
        (0..helpers).for_each(|_| scope.spawn(|_| run()));
        run();
    });
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn every_item_has_its_turn() {
        for n in [0, 1, 2, 1000] {
            let mut values = vec![0; n];
            share(values.iter_mut().enumerate(), |(i, value)| *value += i + 1);
            assert!(values.iter().enumerate().all(|(i, value)| *value == i + 1), "{n}");
        }
    }
}
