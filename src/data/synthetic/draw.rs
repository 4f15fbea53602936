//! Random choices that depend on a seed and a counter only, the same on every machine.

use lowrank_kernels::splitmix::{GAMMA, finalise as mix};

/// Stream `stream` of the generator: choice `n` is the SplitMix64 finaliser (Steele, Lea and Flood, 2014) of
/// the stream's key plus `n` golden-ratio increments.
#[derive(Clone, Debug)]
pub struct Draw {
    key: u64,
    counter: u64,
}

impl Draw {
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { key: mix(mix(seed.wrapping_add(GAMMA)) ^ stream), counter: 0 }
    }

    fn bits(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GAMMA)))
    }

    /// A whole number in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// A whole number in `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finaliser_gives_the_published_splitmix64_sequence() {
        // First outputs of SplitMix64 seeded with 1234567.
        let outputs: Vec<u64> = (1..=3u64).map(|n| mix(1_234_567u64.wrapping_add(n.wrapping_mul(GAMMA)))).collect();
        assert_eq!(outputs, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn streams_differ_and_repeat() {
        let numbers = |seed, stream| {
            let mut draw = Draw::new(seed, stream);
            (0..8).map(|_| draw.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1, 2), numbers(1, 2));
        assert_ne!(numbers(1, 2), numbers(1, 3));
        assert_ne!(numbers(1, 2), numbers(2, 2));
    }

    #[test]
    fn every_value_of_a_range_comes_up() {
        let mut draw = Draw::new(0, 0);
        let mut seen = [0; 6];
        (0..600).for_each(|_| seen[draw.between(0, 5)] += 1);
        assert!(seen.iter().all(|&count| (60..140).contains(&count)), "{seen:?}");
    }
}
