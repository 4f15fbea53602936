//! The adapter methods, one file each, and what they share.
//!
//! A method is a file and one line of the table in `table.rs`, which makes the module enum, the recipe's enum
//! and the listings.

mod config;
mod inject;
pub mod lora;
pub mod merge;
mod modules;
pub mod peft;
pub mod random;
mod table;
mod targets;

pub use config::*;
pub use inject::inject;
pub use modules::*;
pub use table::*;
pub use targets::*;
