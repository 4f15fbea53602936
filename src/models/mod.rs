//! Model families, and the readers that bring their weights in.

mod config;
pub mod llama;
mod load;
mod sites;
mod source;

pub use config::*;
pub use load::load;
pub use sites::Site;
pub use source::*;
