//! The adapter methods, one file each, and what they share.
//!
//! A method is a file and one line of the table in `table.rs`, which makes the module enum, the recipe's enum
//! and the listings.

pub mod adalora;
pub mod combine;
mod config;
pub mod convert;
mod correction;
pub mod delta_lora;
pub mod dora;
#[cfg(test)]
pub(crate) mod fixtures;
mod init;
mod inject;
pub mod loftq;
pub mod lora;
pub mod lora_drop;
pub mod lora_fa;
pub mod merge;
mod method;
mod modules;
pub mod peft;
mod pilot;
pub mod random;
mod rank;
mod stacked;
mod table;
mod targets;
mod trainable;
pub mod vera;

pub use crate::recipe::Findings;
pub use adalora::AdaLoraConfig;
pub(crate) use config::method_config;
pub use config::{BiasMode, FullConfig, Lengths, NoneConfig, Shared, Spec, Targets, Update};
pub use delta_lora::DeltaLoraConfig;
pub use dora::DoraConfig;
pub use init::LoraInit;
pub use inject::{Injection, inject};
pub use loftq::{Factors, Loftq, LoftqPlan, Progress};
pub use lora::LoraConfig;
pub use lora_drop::LoraDropConfig;
pub use lora_fa::LoraFaConfig;
pub use method::{Method, Moment, Pool, Rule, Start};
pub use modules::*;
pub use pilot::{Decision, Pilot};
pub use table::*;
pub use targets::*;
pub use trainable::{compact, trainable};
pub use vera::VeraConfig;
