//! The adapter methods, one file each, and what they share.

mod config;
mod modules;
pub mod peft;
mod targets;

pub use config::*;
pub use modules::*;
pub use targets::*;
