//! Optimizers over named parameters: which group a parameter belongs to is data.

mod groups;
pub mod schedule;

pub use groups::Optimizer;
