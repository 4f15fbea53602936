//! The shared suite on ndarray.

#[path = "../../../tests/suite/mod.rs"]
mod suite;

use lowrank::runtime::Runtime;

static RUNTIME: &&dyn Runtime = &lowrank_ndarray::RUNTIME;

suite::on!(crate::RUNTIME);
