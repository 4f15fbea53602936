//! Model families, and the readers that bring their weights in.

mod config;
mod config_json;
pub mod gguf;
mod header;
#[cfg(test)]
mod hostile;
#[cfg(feature = "hub")]
mod hub;
mod mapped;
mod open;
mod safetensors;
mod sharded;
mod source;

pub use config::*;
pub use open::*;
pub use safetensors::Safetensors;
pub use source::WeightSource;
