//! The names of PEFT's combination types, and what each is made of.

use super::Combination;
use crate::error::InputError;
use crate::{Error, Result};

/// How adapters become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Factors side by side: exactly `Σ w ΔW`, of the ranks' sum.
    Cat,
    /// A of A's and B of B's. Products of one adapter's A with another's B come in; ranks must be equal.
    Factors(Rule),
    /// The whole updates, then their best approximation by rank.
    Products(Rule),
}

/// How matrices of several adapters become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The weighted sum.
    Linear,
    /// Only the largest entries, then the mean of those that have the elected sign (Yadav et al. 2023, arXiv 2306.01708).
    Ties,
    /// Random entries, made larger by as much as is left out (Yu et al. 2023, arXiv 2311.03099).
    DareLinear,
    /// Random entries, then the mean of those that have the elected sign.
    DareTies,
    /// The sum of the largest entries.
    MagnitudePrune,
}

/// Which sign wins an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Majority {
    /// That of the sum.
    #[default]
    Total,
    /// That of more adapters.
    Frequency,
}

/// What a rule leaves of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pruning {
    Nothing,
    Smallest,
    Random,
}

/// Every method by PEFT's name.
pub const METHODS: [(&str, Method); 11] = [
    ("cat", Method::Cat),
    ("linear", Method::Factors(Rule::Linear)),
    ("svd", Method::Products(Rule::Linear)),
    ("ties", Method::Factors(Rule::Ties)),
    ("ties_svd", Method::Products(Rule::Ties)),
    ("dare_linear", Method::Factors(Rule::DareLinear)),
    ("dare_linear_svd", Method::Products(Rule::DareLinear)),
    ("dare_ties", Method::Factors(Rule::DareTies)),
    ("dare_ties_svd", Method::Products(Rule::DareTies)),
    ("magnitude_prune", Method::Factors(Rule::MagnitudePrune)),
    ("magnitude_prune_svd", Method::Products(Rule::MagnitudePrune)),
];

impl Method {
    pub fn name(self) -> &'static str {
        METHODS.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }

    fn rule(self) -> Rule {
        match self {
            Method::Cat => Rule::Linear,
            Method::Factors(rule) | Method::Products(rule) => rule,
        }
    }
}

impl Rule {
    pub(super) fn pruning(self) -> Pruning {
        match self {
            Rule::Linear => Pruning::Nothing,
            Rule::Ties | Rule::MagnitudePrune => Pruning::Smallest,
            Rule::DareLinear | Rule::DareTies => Pruning::Random,
        }
    }

    pub(super) fn elects(self) -> bool {
        matches!(self, Rule::Ties | Rule::DareTies)
    }
}

impl Combination {
    /// What a method needs, and nothing that it has no use for.
    pub(super) fn check(&self) -> Result<()> {
        let (name, rule) = (self.method.name(), self.method.rule());
        let prunes = rule.pruning() != Pruning::Nothing;
        let useless = |key: &str, why: &str| InputError::new(format!("`{name}` {why}")).key(key).hint("leave it out");
        let mut problems = Vec::new();
        match self.density {
            None if prunes => {
                let error = InputError::new(format!("`{name}` needs the share of entries to keep")).key("density");
                problems.push(error.expected("above 0, at most 1"));
            }
            Some(_) if !prunes => problems.push(useless("density", "prunes nothing")),
            Some(density) if !(density > 0.0 && density <= 1.0) => {
                let error = InputError::new("the share of entries to keep is out of range").key("density");
                problems.push(error.found(density).expected("above 0, at most 1"));
            }
            _ => {}
        }
        if self.rank == Some(0) {
            problems.push(InputError::new("the rank is out of range").key("rank").found(0).expected("1 or more"));
        }
        if self.rank.is_some() && !matches!(self.method, Method::Products(_)) {
            problems.push(useless("rank", "takes its rank from the adapters"));
        }
        if self.majority.is_some() && !rule.elects() {
            problems.push(useless("majority", "elects no sign"));
        }
        if self.seed.is_some() && rule.pruning() != Pruning::Random {
            problems.push(useless("seed", "draws no random numbers"));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Inputs(problems)) }
    }
}
