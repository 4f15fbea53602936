//! From files of rows to batches of token ids.

mod batch;
pub mod synthetic;

pub use batch::*;
