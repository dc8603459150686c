//! How much each token counts.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// `[tokens]` factors of the log-probs in every sequence sum, and so of their gradients.
///
/// 0 masks a token: its row is not read and its gradient is exactly 0. Negative weights are
/// allowed. Mask-DPO's weights come from [`Weights::mask_dpo`].
#[derive(Clone, Debug, PartialEq)]
pub struct Weights<'a>(Cow<'a, [f32]>);

impl<'a> Weights<'a> {
    /// # Errors
    /// A weight that is NaN or infinite.
    pub fn new(weights: impl Into<Cow<'a, [f32]>>) -> Result<Self> {
        let weights = weights.into();
        match weights.iter().position(|weight| !weight.is_finite()) {
            None => Ok(Self(weights)),
            Some(token) => Err(Error::TokenWeight { token, got: weights[token] }),
        }
    }

    /// The weights.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// A copy that owns its data.
    pub fn into_owned(self) -> Weights<'static> {
        Weights(Cow::Owned(self.0.into_owned()))
    }
}
