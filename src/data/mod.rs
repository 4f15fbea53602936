//! From files of rows to batches of token ids.

mod batch;

pub use batch::*;
