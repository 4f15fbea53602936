//! From a TOML file and `--set` overrides to a [`Recipe`] that is known to make sense.

mod plan;

pub use plan::*;
