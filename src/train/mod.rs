//! A run, from a resolved recipe to a saved and verified adapter.
//!
//! ```text
//! Job::prepare ─▶ Job::begin ─▶ Run::train ──(each step)──▶ Event
//!  checks all,     run dir,       pilot, then
//!  writes nothing  base, resume   loop ─▶ evaluate, save
//! ```

mod adapters;
mod artifact;
mod banner;
mod bases;
mod begin;
mod budget;
mod contest;
mod cursor;
mod estimate;
mod evaluate;
mod fidelity;
mod fit;
mod heat;
mod initial;
mod inputs;
mod job;
mod optimize;
mod past;
mod pilot;
mod predict;
mod race;
mod resident;
mod run;
mod save;
mod subject;
mod sweep;
#[cfg(test)]
mod tests;

pub use adapters::Adapters;
pub use artifact::{attach_none, attach_saved, files};
pub use bases::Bases;
pub use begin::{Begun, resume_command};
pub use contest::{Contest, Place, RECIPE};
pub use estimate::estimate;
pub use evaluate::{Evaluation, evaluate};
pub use fidelity::{Difference, Fidelity, Probe};
pub use heat::Entry;
pub use initial::Initial;
pub use inputs::setting;
pub use job::{Job, Options, Target};
pub use predict::predict;
pub use race::{Racer, race};
pub use resident::{peak_bytes, resident_bytes};
pub use run::{Outcome, Run};
pub use subject::Subject;
