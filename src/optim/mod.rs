//! Optimizers over named parameters: which group a parameter belongs to is data.

mod groups;

pub use groups::Optimizer;
