//! Model families, and the readers that bring their weights in.

mod config;
mod source;

pub use config::*;
pub use source::*;
