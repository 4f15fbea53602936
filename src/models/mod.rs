//! Model families, and the readers that bring their weights in.

pub(crate) mod arranged;
mod attention_keys;
pub(crate) mod bnb;
mod class;
mod config;
mod config_json;
pub mod families;
mod fresh;
pub mod gguf;
mod headed;
mod header;
#[cfg(test)]
mod hostile;
#[cfg(feature = "hub")]
mod hub;
mod json;
mod load;
mod mapped;
mod open;
mod outline;
mod safetensors;
mod sharded;
mod sites;
mod source;
mod stored;
mod turned;

pub use class::generic_label;
pub use config::{ModelConfig, Rope, RopeScaling, Sliding};
pub use families::Model;
pub use fresh::write_untrained;
pub use headed::are_generic;
pub use load::load;
pub use open::*;
pub use outline::{Outline, OutlineSource, built_in_names};
pub use safetensors::Safetensors;
pub use sites::Site;
pub use source::WeightSource;
pub(crate) use source::stored_format;
pub use stored::Stored;
pub(crate) use stored::is_linear_of_block;
