//! One adapter from several, each with a weight: PEFT's `add_weighted_adapter`, on plain data.
//!
//! ```text
//!     cat      ΔW = Σ w s B A                            exact, rank Σ r
//!     linear   A = Σ ±√|w s| A, B = Σ √|w s| B           cheap, with cross terms; equal ranks
//!     svd      ΔW ≈ Σ w s B A                            the nearest of the rank asked for
//!     ties, dare_linear, dare_ties, magnitude_prune      sparse forms of `linear`; with `_svd`, of `svd`
//! ```
//!
//! A module that only some of the adapters adapt is combined from those.

mod join;
mod method;
#[cfg(test)]
mod tests;

use join::{Task, join};
pub use method::{METHODS, Majority, Method, Rule};

use super::correction::{Correction, beside, corrections, to_adapter};
use super::peft::PeftAdapter;
use super::random::Stream;
use super::{AdapterConfig, Module, Shared};
use crate::linalg::wide;
use crate::tensors::HostTensors;
use crate::{Error, Result, linalg};

/// How adapters are combined. What a method has no use for must be absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination {
    pub method: Method,
    /// Rank of the result, for the methods by singular values; the adapters' largest when absent.
    pub rank: Option<usize>,
    /// Share of the entries that pruning keeps, above 0 and at most 1.
    pub density: Option<f64>,
    /// Which sign wins an entry, for the methods that elect one.
    pub majority: Option<Majority>,
    /// Of the entries that DARE leaves out; 0 when absent.
    pub seed: Option<u64>,
}

impl From<Method> for Combination {
    fn from(method: Method) -> Self {
        Self { method, rank: None, density: None, majority: None, seed: None }
    }
}

/// An adapter and its weight, which may be negative.
pub type Weighted<'a> = (f64, &'a PeftAdapter);

/// Combines `adapters` of the model that has `modules`. The result is plain LoRA with alpha = rank; its dropout and the name
/// of its base are the first adapter's.
///
/// # Errors
/// If an adapter is not LoRA, trains biases or whole modules, if ranks differ where they must agree, or if the
/// combination lacks what its method needs or has what it does not use.
pub fn combine(adapters: &[Weighted<'_>], modules: &[Module], combination: &Combination) -> Result<PeftAdapter> {
    combination.check()?;
    let Some((_, first)) = adapters.first() else { return Err(Error::input("no adapters to combine").into()) };
    let read = |(weight, adapter): &Weighted<'_>| plain(*weight, adapter, modules);
    let adapters = adapters.iter().map(read).collect::<Result<Vec<_>>>()?;
    let mut combined = Vec::new();
    for module in modules {
        let of = |part: &Part<'_>| part.correction.path == module.path;
        let parts: Vec<Part> = adapters.iter().enumerate().flat_map(parts).filter(of).collect();
        if !parts.is_empty() {
            combined.push(combination.module(&parts)?);
        }
    }
    let dropout = first.0.adapter.shared().unwrap_or_default().dropout;
    let like = Shared { dropout, ..Shared::default() };
    to_adapter(combined, &like, &first.0, HostTensors::new(), modules)
}

/// What one adapter brings to a module.
struct Part<'a> {
    weight: f64,
    correction: &'a Correction,
    /// Which adapter it is.
    number: usize,
}

impl Part<'_> {
    /// Factor on the product of A and B.
    fn factor(&self) -> f64 {
        self.weight * f64::from(self.correction.scaling)
    }
}

fn parts((number, (weight, corrections)): (usize, &(f64, Vec<Correction>))) -> impl Iterator<Item = Part<'_>> {
    corrections.iter().map(move |correction| Part { weight: *weight, correction, number })
}

/// The corrections of a LoRA adapter that has nothing else.
fn plain(weight: f64, adapter: &PeftAdapter, modules: &[Module]) -> Result<(f64, Vec<Correction>)> {
    if !weight.is_finite() {
        return Err(Error::input("the weight of an adapter is not finite").key("weights").found(weight).into());
    }
    let config = &adapter.0.adapter;
    if !matches!(config, AdapterConfig::Lora(_)) {
        let what = format!("`{}` has no weighted combination", config.name());
        return Err(Error::input(what).expected("lora").hint("`lowrank convert` makes it LoRA if it can be").into());
    }
    if let Some(path) = beside(adapter).keys().next() {
        let what = "biases and modules that trained whole have no weighted combination";
        return Err(Error::input(what).tensor(path).hint("merge this adapter into its base instead").into());
    }
    Ok((weight, corrections(adapter, modules)?))
}

impl Combination {
    fn module(&self, parts: &[Part<'_>]) -> Result<Correction> {
        let largest = parts.iter().map(|part| part.correction.rank).max().unwrap_or(0);
        let rank = self.rank.unwrap_or(largest);
        match self.method {
            Method::Cat => Ok(cat(parts)),
            Method::Factors(rule) => self.factors(rule, parts),
            Method::Products(Rule::Linear) => Ok(cat(parts).truncated(rank)?.correction),
            Method::Products(rule) => {
                let product = self.product(rule, parts);
                Ok(parts[0].correction.approximating(&product, rank)?.correction)
            }
        }
    }

    fn factors(&self, rule: Rule, parts: &[Part<'_>]) -> Result<Correction> {
        let first = parts[0].correction;
        if let Some(other) = parts.iter().find(|part| part.correction.rank != first.rank) {
            let what = format!("`{}` needs adapters of one rank", self.method.name());
            let error = Error::input(what).place("module", &first.path).found(other.correction.rank);
            return Err(error.expected(first.rank).hint("`cat` and `svd` take any ranks").into());
        }
        let join = |of: fn(&Correction) -> &[f32], weight: fn(f64) -> f64, factor| {
            let task = |part: &Part<'_>| Task {
                values: wide(of(part.correction)),
                weight: weight(part.factor()),
                stream: self.stream(part, factor),
            };
            join(rule, parts.iter().map(task).collect(), self).into_iter().map(|value| value as f32).collect()
        };
        // The sign goes to one factor, or two negative ones would make a positive product.
        let down = join(|correction| &correction.down, |weight| weight.abs().sqrt().copysign(weight), 0);
        let up = join(|correction| &correction.up, |weight| weight.abs().sqrt(), 1);
        Ok(Correction { up, down, scaling: 1.0, ..first.clone() })
    }

    /// The joined updates, `[out, in]`.
    fn product(&self, rule: Rule, parts: &[Part<'_>]) -> Vec<f64> {
        let task = |part: &Part<'_>| {
            let Correction { rank, shape: [out, cols], up, down, scaling, .. } = part.correction;
            let product = linalg::matmul(&wide(up), [*out, *rank], &wide(down), *cols);
            let values = product.into_iter().map(|value| value * f64::from(*scaling)).collect();
            Task { values, weight: part.weight, stream: self.stream(part, 0) }
        };
        join(rule, parts.iter().map(task).collect(), self)
    }

    fn stream(&self, part: &Part<'_>, factor: u64) -> Stream {
        Stream::new(self.seed.unwrap_or(0), &part.correction.path).part(2 * part.number as u64 + factor)
    }
}

/// Factors side by side; weight and scale go into A, as PEFT has it.
fn cat(parts: &[Part<'_>]) -> Correction {
    let Correction { path, shape, .. } = parts[0].correction;
    let weighted = |part: &Part<'_>| {
        let weight = part.factor();
        part.correction.down.iter().map(move |value| (f64::from(*value) * weight) as f32).collect::<Vec<_>>()
    };
    let row = |row: usize| {
        parts.iter().flat_map(move |Part { correction: Correction { up, rank, .. }, .. }| &up[row * rank..][..*rank])
    };
    Correction {
        path: path.clone(),
        rank: parts.iter().map(|part| part.correction.rank).sum(),
        shape: *shape,
        up: (0..shape[0]).flat_map(row).copied().collect(),
        down: parts.iter().flat_map(weighted).collect(),
        scaling: 1.0,
    }
}
