//! How the losses of a term's units become one number.

use super::ParameterError;
use super::scalar::length;

/// A sum that keeps what its additions round away (Knuth's two-sum, 1969), so that the mean of `n`
/// equal losses is that loss to the last bit, as long as their sum is finite.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossSum {
    sum: f64,
    rest: f64,
}

impl LossSum {
    /// Adds a loss; the order of additions is part of the result.
    pub fn add(&mut self, loss: f64) {
        let sum = self.sum + loss;
        let added = sum - self.sum;
        self.rest += (self.sum - (sum - added)) + (loss - added);
        self.sum = sum;
    }

    /// The sum over a divisor, rounded once but for its last bit.
    pub fn over(self, divisor: f64) -> f64 {
        let quotient = self.sum / divisor;
        let remainder = (-quotient).mul_add(divisor, self.sum) + self.rest;
        // An infinite or NaN sum has no remainder.
        if remainder.is_finite() { quotient + remainder / divisor } else { quotient }
    }
}

/// What divides the sum of a term's losses in the term's value.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reduction {
    /// Mean over the units, as all pair losses are published; for objectives on tokens over the counted
    /// tokens.
    #[default]
    Mean,
    /// Sum over the units.
    Sum,
    /// Sum over the units, divided by their counted tokens (at least 1): the token mean, for
    /// losses that are sums over tokens; one with `length_normalized` would be divided twice.
    TokenMean,
    /// Mean over the sequences of each one's mean over its counted tokens (at least 1): GRPO's, for
    /// objectives on tokens only. For [`Nll`](super::Nll) that is `with_length_normalized` and the mean.
    SequenceMean,
    /// Sum over the units, divided by a number from outside, such as the count of the whole
    /// accumulation window or of all ranks.
    Divisor(f64),
}

impl Reduction {
    /// What divides the sum of the losses, for `units` units of `tokens` counted tokens.
    pub fn divisor(self, units: usize, tokens: f64) -> f64 {
        match self {
            Self::Mean | Self::SequenceMean => units as f64,
            Self::Sum => 1.0,
            Self::TokenMean => length(tokens),
            Self::Divisor(divisor) => divisor,
        }
    }

    /// # Errors
    /// A divisor outside 1e-30 to 1e30.
    pub fn check(self) -> Result<(), ParameterError> {
        match self {
            Self::Divisor(got) => super::POSITIVE.check("divisor", got),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LossSum;

    fn mean(losses: &[f64]) -> f64 {
        let mut sum = LossSum::default();
        losses.iter().for_each(|&loss| sum.add(loss));
        sum.over(losses.len() as f64)
    }

    #[test]
    fn what_additions_round_away_is_kept() {
        assert_eq!(mean(&[0.1; 1000]), 0.1);
        assert_eq!(mean(&[1e100, 1.0, -1e100, 1.0]), 0.5);
        assert_eq!(mean(&[5e-324; 3]), 5e-324);
    }

    #[test]
    fn infinities_and_nan_stay_what_they_are() {
        let inf = f64::INFINITY;
        assert_eq!(mean(&[1.0, inf]), inf);
        assert_eq!(mean(&[-inf, 1.0]), -inf);
        assert_eq!(mean(&[f64::MAX, f64::MAX]), inf);
        assert!(mean(&[inf, -inf]).is_nan());
        assert!(mean(&[f64::NAN, 1.0]).is_nan());
    }
}
