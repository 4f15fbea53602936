//! What the `lowrank` command and the recipe programs share: the backends that are compiled in, the
//! shipped recipes, and how errors and tables look.

pub mod device;
pub mod features;
pub mod report_error;
pub mod rows;
pub mod shipped;
pub mod stdout;
pub mod table;

pub use device::{pick, runtimes};
pub use shipped::SHIPPED;

/// A training step frees and takes the same large blocks over and over; mimalloc keeps them without tearing holes into
/// the heap, where glibc's allocator either faults the pages in again each time or grows to several times the need.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
