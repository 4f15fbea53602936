//! The adapter methods, one file each, and what they share.
//!
//! A method is a file and one line of the table below, which makes the module enum, the recipe's enum,
//! the listings and the conformance tests.

mod config;
mod inject;
pub mod lora;
mod modules;
pub mod random;
mod table;
mod targets;

pub use config::*;
pub use inject::inject;
pub use modules::*;
pub use table::*;
pub use targets::*;
