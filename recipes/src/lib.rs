//! What the `lowrank` command and the recipe programs share: the backends that are compiled in, the
//! shipped recipes, and how errors and tables look.

pub mod allocator;
pub mod device;
pub mod features;
pub mod report_error;
pub mod rows;
pub mod shipped;
pub mod stdout;
pub mod table;
mod threads;
mod tidy;

pub use device::{pick, runtimes};
pub use shipped::SHIPPED;
