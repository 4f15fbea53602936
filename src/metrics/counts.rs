//! Precision, recall and F1 of things found against things there.

/// How many were predicted, how many there are, and how many of them are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub shared: usize,
    pub predicted: usize,
    pub reference: usize,
}

impl Counts {
    /// `shared / predicted`, from 0 to 1; 0 if nothing was predicted.
    pub fn precision(self) -> f64 {
        share(self.shared, self.predicted)
    }

    /// `shared / reference`, from 0 to 1; 0 if there was nothing to find.
    pub fn recall(self) -> f64 {
        share(self.shared, self.reference)
    }

    /// The harmonic mean of precision and recall, `2 · shared / (predicted + reference)`, from 0 to 1; 0 if there is neither.
    pub fn f1(self) -> f64 {
        share(2 * self.shared, self.predicted + self.reference)
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            shared: a.shared + b.shared,
            predicted: a.predicted + b.predicted,
            reference: a.reference + b.reference,
        })
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_nothing_is_nothing() {
        let numbers = |counts: Counts| [counts.precision(), counts.recall(), counts.f1()];
        assert_eq!(numbers(Counts::default()), [0.0; 3]);
        assert_eq!(numbers(Counts { shared: 0, predicted: 3, reference: 0 }), [0.0; 3]);
        assert_eq!(numbers(Counts { shared: 1, predicted: 4, reference: 2 }), [0.25, 0.5, 1.0 / 3.0]);
    }
}
