//! The shared suite on wgpu.

#[path = "../../../tests/suite/mod.rs"]
mod suite;

use lowrank::runtime::Runtime;

static RUNTIME: &&dyn Runtime = &lowrank_wgpu::RUNTIME;

suite::on!(crate::RUNTIME);
