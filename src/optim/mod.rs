//! Optimizers over named parameters: which group a parameter belongs to is data.

mod adam;
mod groups;
mod label;
mod moments;
pub mod schedule;
#[cfg(test)]
pub(crate) mod traces;

pub use adam::Form;
pub use groups::Optimizer;
pub use label::Label;
