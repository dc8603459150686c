//! How much each token counts.

use std::borrow::Cow;

use super::values::Values;
use crate::error::{Error, Result};
use crate::memory::Slice;

/// `[tokens]` factors of the log-probs in every sequence sum, and so of their gradients.
///
/// 0 masks a token: its row is not read and its gradient is exactly 0. Negative weights are
/// allowed. Mask-DPO's weights come from [`Weights::mask_dpo`].
#[derive(Clone, Debug)]
pub struct Weights<'a>(Values<'a, f32>);

impl<'a> Weights<'a> {
    /// # Errors
    /// A weight that is NaN or infinite.
    pub fn new(weights: impl Into<Cow<'a, [f32]>>) -> Result<Self> {
        let weights = weights.into();
        match weights.iter().position(|weight| !weight.is_finite()) {
            None => Ok(Self(Values::Host(weights))),
            Some(token) => Err(Self::not_finite(token, weights[token])),
        }
    }

    pub(crate) fn not_finite(token: usize, got: f32) -> Error {
        Error::TokenInput { input: "weight", token, got: f64::from(got) }
    }

    /// Weights, f32, in host memory or in that of the backend that will read them. On a device a
    /// weight that is NaN or infinite is found by stages 1 and 4, like a bad label.
    ///
    /// # Errors
    /// Another element type; in host memory a weight that is NaN or infinite.
    pub fn from_slice(weights: Slice<'a>) -> Result<Self> {
        match Values::from_slice("token weights", weights)? {
            Values::Host(weights) => Self::new(weights),
            weights => Ok(Self(weights)),
        }
    }

    /// The weights, where they are in host memory.
    ///
    /// # Errors
    /// Weights in device memory.
    pub fn host(&self) -> Result<&[f32]> {
        self.slice().host()
    }

    /// The weights.
    pub fn slice(&self) -> Slice<'_> {
        self.0.slice()
    }

    /// A copy that owns its data, in host memory.
    ///
    /// # Errors
    /// Reading a device.
    pub fn into_owned(self) -> Result<Weights<'static>> {
        Ok(Weights(self.0.into_owned()?))
    }
}
