//! How much better than expected sampled responses were.

use std::borrow::Cow;

use super::values::check_sequences;
use super::{Packing, same_length};
use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::memory::{Place, Slice};
use crate::objectives::FINITE;

/// Advantages of sequences or of single tokens, for objectives on tokens. They are constants for the
/// gradient; `statistics` makes them from rewards.
#[derive(Clone, Debug)]
pub struct Advantages<'a>(Kind<'a>);

#[derive(Clone, Debug)]
enum Kind<'a> {
    Sequences(Cow<'a, [f64]>),
    Tokens(Vec<f64>),
    TokensOnDevice(Slice<'a>),
}

impl<'a> Advantages<'a> {
    /// `[sequences]` advantages; 0 takes a sequence out of the policy's gradient.
    ///
    /// # Errors
    /// An advantage that is not finite.
    pub fn per_sequence(advantages: impl Into<Cow<'a, [f64]>>) -> Result<Self> {
        let advantages = advantages.into();
        check_sequences("advantage", &advantages, FINITE)?;
        Ok(Self(Kind::Sequences(advantages)))
    }

    /// `[tokens]` advantages, of any element type; those at tokens that do not count are not read, others
    /// have to be finite, which a loss checks in host memory. On a device they are data, like log-probs.
    pub fn per_token<T: Element>(advantages: &[T]) -> Self {
        Self(Kind::Tokens(advantages.iter().map(|&advantage| advantage.to_f64()).collect()))
    }

    /// As [`per_token`](Self::per_token), f32 or f64, in host memory or in that of the backend that
    /// will read them.
    ///
    /// # Errors
    /// Another element type.
    pub fn from_slice(advantages: Slice<'a>) -> Result<Self> {
        let (what, got) = ("advantages", advantages.dtype());
        if !matches!(got, DType::F32 | DType::F64) {
            return Err(Error::DataType { what, expected: "f32 or f64", got });
        }
        Ok(Self(match advantages.place() {
            Place::Host => Kind::Tokens(advantages.to_vec()?),
            Place::Device(_) => Kind::TokensOnDevice(advantages),
        }))
    }

    /// `[sequences]` or `[tokens]` advantages.
    pub fn slice(&self) -> Slice<'_> {
        match &self.0 {
            Kind::Sequences(values) => Slice::new(values),
            Kind::Tokens(values) => Slice::new(values),
            Kind::TokensOnDevice(values) => *values,
        }
    }

    pub(crate) fn is_per_token(&self) -> bool {
        !matches!(self.0, Kind::Sequences(_))
    }

    /// `[tokens]` numbers: those of a sequence at each of its tokens.
    ///
    /// # Errors
    /// Another length than the packing's, or numbers in device memory.
    pub(crate) fn by_token(&self, packing: &Packing) -> Result<Vec<f64>> {
        let numbers = self.slice().host::<f64>()?;
        if self.is_per_token() {
            same_length("advantages", packing.tokens(), numbers.len())?;
            return Ok(numbers.to_vec());
        }
        same_length("advantages", packing.sequences(), numbers.len())?;
        let sequences = packing.ranges().zip(numbers);
        Ok(sequences.flat_map(|(range, &number)| range.map(move |_| number)).collect())
    }

    /// A copy that owns its data, in host memory.
    ///
    /// # Errors
    /// Reading a device.
    pub fn into_owned(self) -> Result<Advantages<'static>> {
        Ok(Advantages(match self.0 {
            Kind::Sequences(values) => Kind::Sequences(Cow::Owned(values.into_owned())),
            Kind::Tokens(values) => Kind::Tokens(values),
            Kind::TokensOnDevice(values) => Kind::Tokens(values.to_vec()?),
        }))
    }
}
