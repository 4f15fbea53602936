//! What makes a run survive a kill: the run directory, and checkpoints that are whole or absent.
//!
//! ```text
//! files ─▶ .step-000050.tmp/  each written and flushed, COMPLETE (length and sha256 of each) last
//!          flush the directory
//!          step-000050/ ─▶ .step-000050.old/      only when that step was saved before
//!          .step-000050.tmp/ ─▶ step-000050/      the commit
//!          flush the parent, then remove .step-000050.old/
//! ```
//!
//! A kill anywhere leaves the old directory, the new one, or a state that [`RunDir::open`] settles to one of them.
//! [`newest`] then trusts nothing but hashes. No tensor library is used here: moments and adapter files are plain
//! numbers and bytes.

mod best;
mod commit;
#[cfg(test)]
mod crash;
mod discover;
#[cfg(test)]
mod fault;
mod fs;
mod info;
mod lock;
mod resume;
mod rotate;
mod run_dir;
mod state;
mod store;
mod verify;

pub use best::settle_best;
pub use commit::{NamedBytes, commit, write_file};
pub use discover::{Found, Listing, Newest, list, newest};
pub use fs::{Disk, Fs};
pub use info::{RunInfo, RunStatus};
pub use lock::Lock;
pub use resume::{Conditions, Resumption, Source, Start, changes, fingerprint, locate, newest_run, resume};
pub use rotate::rotate;
pub use run_dir::{Layout, RunDir, new_directory};
pub use state::{Best, Hashes, TrainState};
pub use store::{Checkpoint, Moments};
pub(crate) use verify::sha256;
pub use verify::verify;
