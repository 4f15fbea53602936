//! The adapter methods, one file each, and what they share.

mod config;

pub use config::*;
