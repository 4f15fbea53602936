//! A short training before the run proper, whose outcome becomes part of the recipe that the run follows.

use indexmap::IndexMap;

use super::{AdapterConfig, Selected};
use crate::Result;
use crate::events::ModuleRank;

/// What a method wants to find out first. The pilot trains the adapter as it is configured, on a sample of the rows.
pub trait Pilot {
    /// Optimizer steps.
    fn steps(&self) -> usize;

    /// Share of the training rows, above 0 and at most 1.
    fn sample(&self) -> f64;

    /// The outcome, from the trained adapter's [`update_energy`](crate::runtime::Learner::update_energy) over the sample.
    ///
    /// # Errors
    /// Energies that are not finite, or that tell nothing.
    fn decide(&self, energy: &IndexMap<String, f64>, selected: &[Selected]) -> Result<Decision>;

    /// This configuration with what `earlier` had decided, if that had come to a decision.
    fn adopt(&self, earlier: &AdapterConfig) -> Option<AdapterConfig>;
}

/// What came of a pilot.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// With nothing left open.
    pub adapter: AdapterConfig,
    /// Every module with its importance, and its rank where that is its own.
    pub modules: Vec<ModuleRank>,
}
