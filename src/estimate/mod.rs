//! What a method costs on a model, known before anything runs: each number with the arithmetic that it came from.
//!
//! A run takes its own estimate from here too, at the largest batch of its rows.

mod costs;
mod counts;
mod memory;
#[cfg(test)]
mod tests;
mod weights;

use serde::Serialize;

use crate::events::units::count;

pub use costs::{Costs, Survey, of_recipe};
pub use counts::{file, parameters, trained};
pub use memory::{Batch, Needs, Setup, retained};
pub use weights::{in_blocks, weights};

/// A number, and the arithmetic it came from, in words and numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figure {
    pub value: u64,
    pub formula: String,
}

impl Figure {
    fn new(value: usize, formula: impl Into<String>) -> Self {
        Self { value: value as u64, formula: formula.into() }
    }
}

/// The largest number stands for all beyond it: sizes from strangers' files and flags cannot overflow.
fn product(factors: &[usize]) -> usize {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

/// `4 bytes x 1,024`
fn times(bytes: usize, numbers: usize) -> String {
    format!("{bytes} bytes x {}", count(numbers))
}
