//! How the losses of a term's units become one number.

use super::ParameterError;

/// The factor between the sum of a term's losses and the term's value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reduction {
    /// Mean over the units, as all pair losses are published.
    #[default]
    Mean,
    /// Sum over the units.
    Sum,
    /// Sum over the units, divided by their counted tokens (at least 1): the token mean, for
    /// losses that are sums over tokens.
    TokenMean,
    /// Sum over the units, divided by a number from outside, such as the count of the whole
    /// accumulation window or of all ranks.
    Divisor(f64),
}

impl Reduction {
    /// What multiplies the sum of the losses.
    pub fn factor(self, units: usize, tokens: f64) -> f64 {
        match self {
            Self::Mean => 1.0 / units as f64,
            Self::Sum => 1.0,
            Self::TokenMean => 1.0 / tokens.max(1.0),
            Self::Divisor(divisor) => 1.0 / divisor,
        }
    }

    /// # Errors
    /// A divisor that is not finite and above 0.
    pub fn check(self) -> Result<(), ParameterError> {
        match self {
            Self::Divisor(got) => super::POSITIVE.check("divisor", got),
            _ => Ok(()),
        }
    }
}
