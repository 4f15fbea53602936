//! Fine-tuning with low-rank adapters on [burn](https://burn.dev), generic over the backend.
//!
//! The spine, in order: a [`recipe`] resolves to a plan, a [`runtime::Runtime`] picks the backend,
//! [`models`] loads the frozen base, [`adapters`] injects the trainable terms, [`data`] makes batches,
//! [`train`] runs the loop and speaks in [`events`], which the console, the `dashboard` and
//! `metrics.jsonl` read; [`checkpoint`] makes it survive a kill. [`metrics`] scores what a model answers, [`compare`] makes a report of what runs wrote.

pub mod adapters;
pub mod checkpoint;
pub mod compare;
#[cfg(feature = "tui")]
pub mod dashboard;
pub mod data;
pub mod error;
pub mod estimate;
pub mod events;
pub mod linalg;
pub mod metrics;
pub mod models;
pub mod nn;
pub mod optim;
mod plot;
pub mod predict;
pub mod recipe;
pub mod runtime;
pub mod tensors;
pub mod train;

pub use error::{Error, Result};
