//! The shared suite on cuda.

#[path = "../../../tests/suite/mod.rs"]
mod suite;

use lowrank::runtime::Runtime;

static RUNTIME: &&dyn Runtime = &lowrank_cuda::RUNTIME;

suite::on!(crate::RUNTIME);
