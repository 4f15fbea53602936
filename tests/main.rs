//! What a user can observe, on burn-flex.

mod layout;
mod pilot;
mod quantised;
mod suite;

use lowrank::runtime::Runtime;

static RUNTIME: &&dyn Runtime = &lowrank_flex::RUNTIME;

suite::on!(crate::RUNTIME);
