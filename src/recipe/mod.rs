//! From a TOML file and `--set` overrides to a [`Recipe`] that is known to make sense.
//!
//! `tree` reads the TOML and remembers where everything was written, `shape` compares it with the
//! `schema` that `plan`'s types derive, `validate` checks values, `resolve` runs them in this order.

mod base;
mod compare;
mod plan;
mod resolve;
mod schema;
mod shape;
mod shipped;
mod suggest;
mod sweep;
mod task;
#[cfg(test)]
mod tests;
mod tree;
mod validate;

pub use base::{Base, BaseCompute, BaseDtype, BaseStorage, Blocks, Quant};
pub use compare::{Budget, Compare, CompareRecipe, Variant};
pub use plan::*;
pub use resolve::{Resolved, load, parse};
pub use schema::{file_schema, keys, schema, schema_of};
pub use shipped::Shipped;
pub use suggest::nearest;
pub use sweep::{Candidate, Choices};
pub use task::{Head, HeadKind, Pooling, Task};
pub use validate::{Findings, plan as plan_adapter};
