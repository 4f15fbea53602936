//! Where training stands in the data: derived from (seed, epoch), so that nothing but two numbers needs saving.

use crate::data;

/// Walks the batches of epoch after epoch.
#[derive(Clone, Debug)]
pub struct Cursor {
    rows: usize,
    batch: usize,
    seed: u64,
    pub epoch: usize,
    /// Index of the next batch in the epoch's order.
    pub next: usize,
    order: Vec<Vec<usize>>,
}

impl Cursor {
    pub fn new(rows: usize, batch: usize, seed: u64, epoch: usize, next: usize) -> Self {
        let order = data::batches(rows, batch, seed, epoch as u64);
        Self { rows, batch, seed, epoch, next, order }
    }

    /// The batches of the next optimizer step: `accumulate` of them, fewer at the end of an epoch.
    pub fn take(&mut self, accumulate: usize) -> Vec<Vec<usize>> {
        if self.next >= self.order.len() {
            *self = Self::new(self.rows, self.batch, self.seed, self.epoch + 1, 0);
        }
        let end = self.order.len().min(self.next + accumulate);
        let batches = self.order[self.next..end].to_vec();
        self.next = end;
        batches
    }

    /// Optimizer steps in one epoch.
    pub fn steps_per_epoch(rows: usize, batch: usize, accumulate: usize) -> usize {
        rows.div_ceil(batch).div_ceil(accumulate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_comes_once_an_epoch_and_a_saved_place_continues() {
        let mut cursor = Cursor::new(10, 3, 7, 0, 0);
        let steps = Cursor::steps_per_epoch(10, 3, 3);
        let mut seen: Vec<usize> = (0..steps).flat_map(|_| cursor.take(3)).flatten().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());

        let mut again = Cursor::new(10, 3, 7, cursor.epoch, cursor.next);
        assert_eq!(again.take(2), cursor.take(2));
        assert_eq!((again.epoch, again.next), (1, 2));
    }
}
