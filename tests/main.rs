//! What a user can observe, on burn-flex.

mod four_bit;
mod layout;
mod pilot;
mod suite;

use lowrank::runtime::Runtime;

static RUNTIME: &&dyn Runtime = &lowrank_flex::RUNTIME;

suite::on!(crate::RUNTIME);
