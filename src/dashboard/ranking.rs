//! Which variant is ahead, and how sure that is: the report's numbers for runs that have ended, until then the newest.

use super::board::Board;
use super::run::Run;
use crate::compare::{self, Word};

/// An evaluation of a variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub loss: f64,
    /// Over seeds; none where fewer than two have ended.
    pub sd: Option<f64>,
}

impl Board {
    /// The mean over seeds that have finished, else the newest evaluation.
    pub fn score(&self, variant: usize) -> Option<Score> {
        let finished = self.told(variant).and_then(|told| told.metrics.get("eval_loss"));
        match finished {
            Some(estimate) => Some(Score { loss: estimate.mean, sd: estimate.sd }),
            None => Some(Score { loss: self.main(variant, None)?.history.evals.last()?.at.loss, sd: None }),
        }
    }

    /// Variants, the lowest evaluation loss first; those without one, or with none that is a number, keep their order at the end.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.variants.len()).collect();
        let loss = |variant: &usize| {
            let lost = self.main(*variant, None).is_some_and(Run::is_lost);
            self.score(*variant).map(|score| score.loss).filter(|loss| loss.is_finite() && !lost)
        };
        order.sort_by(|a, b| loss(a).unwrap_or(f64::INFINITY).total_cmp(&loss(b).unwrap_or(f64::INFINITY)));
        order
    }

    fn told(&self, variant: usize) -> Option<&compare::Variant> {
        let name = &self.variants.get(variant)?.name;
        self.summary()?.variants.iter().find(|told| told.name == *name)
    }

    /// `adalora is 0.6% below lora on eval`: the best, or the next best if that is the reference.
    pub fn lead(&self) -> Option<String> {
        let reference = self.variants.iter().position(|variant| variant.name == self.reference())?;
        let other = *self.order().iter().find(|&&variant| variant != reference)?;
        let (loss, of, clear) = self.apart(other, reference)?;
        let percent = 100.0 * (loss - of) / of.abs();
        if !percent.is_finite() {
            return None;
        }
        let (name, reference, apart) = (&self.variants[other].name, self.reference(), percent.abs());
        if apart < 0.05 {
            return Some(format!("{name} is level with {reference} on eval"));
        }
        if percent > 100.0 {
            return Some(format!("{name} is {:.1} times {reference} on eval", loss / of));
        }
        let direction = if percent < 0.0 { "below" } else { "above" };
        let told = if clear { "" } else { ", not told apart" };
        Some(format!("{name} is {apart:.1}% {direction} {reference} on eval{told}"))
    }

    /// Losses of both, seed by seed where runs have finished, else at the newest step that both were evaluated at; and whether zero
    /// lies outside the interval of the difference, as far as there is one.
    fn apart(&self, other: usize, reference: usize) -> Option<(f64, f64, bool)> {
        let finished = |variant| self.told(variant).and_then(|told| told.metrics.get("eval_loss"));
        if let (Some(estimate), Some(of)) = (finished(other), finished(reference)) {
            let interval = estimate.difference.as_ref().and_then(|difference| difference.interval);
            let loss = interval.map_or(estimate.mean, |interval| of.mean + interval.mean);
            return Some((loss, of.mean, interval.is_none_or(|interval| interval.is_clear())));
        }
        let evals = |variant| self.main(variant, None).map(|run| &run.history.evals);
        let (mine, theirs) = (evals(other)?, evals(reference)?);
        let same = |step| theirs.iter().rev().find(|eval| eval.at.step == step);
        let pair = mine.iter().rev().find_map(|eval| Some((eval.at.loss, same(eval.at.step)?.at.loss)));
        pair.map(|(loss, of)| (loss, of, true))
    }

    /// The report's verdict, where its seeds allow one.
    pub fn verdict(&self, variant: usize) -> Option<String> {
        let verdict = &self.told(variant)?.verdict;
        let ranked = matches!(verdict.word, Word::Better | Word::Worse | Word::NotToldApart | Word::Diverged);
        let summary = self.summary()?;
        let metric = summary.label(&summary.metric);
        let name = &self.variants[variant].name;
        ranked.then(|| format!("{name} by {metric}: {}", verdict.text))
    }

    /// How many seeds the numbers are of, at least.
    pub fn spread(&self) -> Option<String> {
        if self.variants.len() < 2 || !(0..self.variants.len()).any(|variant| self.score(variant).is_some()) {
            return None;
        }
        let seeds = |variant| self.told(variant)?.metrics.values().map(|estimate| estimate.values.len()).max();
        Some(match (0..self.variants.len()).filter_map(seeds).min().unwrap_or(0) {
            0 | 1 => "1 seed each: spread unknown".into(),
            n => format!("± standard deviation of {n} seeds"),
        })
    }
}
