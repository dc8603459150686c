//! Which tokens count, and weights for them.

use std::ops::Range;

use crate::batch::{Labels, Packing, Weights, same_length};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::stages::HostTokens;

/// Labels and weights in host memory.
pub(super) struct Tokens<'a> {
    tokens: HostTokens<'a>,
    len: usize,
}

impl<'a> Tokens<'a> {
    /// # Errors
    /// Weights of another length, or either in device memory.
    pub fn new(labels: &'a Labels<'_>, weights: Option<&'a Weights<'_>>) -> Result<Self> {
        let (len, ignore) = (labels.len(), labels.ignore());
        let weights = weights.map(Weights::host).transpose()?;
        if let Some(weights) = weights {
            same_length("token weights", len, weights.len())?;
        }
        Ok(Self { tokens: HostTokens::new(labels.slice().host()?, ignore, weights), len })
    }

    /// The same for tokens of a pack.
    ///
    /// # Errors
    /// Also a packing that ends elsewhere than the labels.
    pub fn packed(
        labels: &'a Labels<'_>,
        weights: Option<&'a Weights<'_>>,
        packing: &Packing,
    ) -> Result<Self> {
        let tokens = Self::new(labels, weights)?;
        if packing.tokens() != tokens.len() {
            return Err(Error::CuSeqlensEnd { tokens: tokens.len(), got: packing.tokens() });
        }
        Ok(tokens)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// # Errors
    /// Log-probs of another length.
    pub fn check<T: Element>(&self, what: &'static str, log_probs: &[T]) -> Result<()> {
        same_length(what, self.len(), log_probs.len())
    }

    /// # Errors
    /// Another length, or a number of a token that counts that is NaN or infinite.
    pub fn check_finite<T: Element>(
        &self,
        [input, plural]: [&'static str; 2],
        numbers: &[T],
    ) -> Result<()> {
        self.check(plural, numbers)?;
        let number = |token: usize| numbers[token].to_f64();
        match self.counted(0..self.len()).find(|&token| !number(token).is_finite()) {
            None => Ok(()),
            Some(token) => Err(Error::TokenInput { input, token, got: number(token) }),
        }
    }

    /// The token's weight, 1 where there are none; nothing for a token that does not count.
    fn weight(&self, token: usize) -> Option<f64> {
        self.tokens.counted_label(token).map(|_| self.tokens.weight(token))
    }

    /// Those of a range that count.
    pub fn counted(&self, range: Range<usize>) -> impl Iterator<Item = usize> {
        range.filter(|&token| self.weight(token).is_some())
    }

    /// Their number.
    pub fn count(&self, range: Range<usize>) -> usize {
        self.counted(range).count()
    }

    /// `factor` of each counted token times its weight; 0 for the tokens that do not count.
    ///
    /// # Errors
    /// A product that is no finite f32.
    pub fn scaled(&self, mut factor: impl FnMut(usize) -> f64) -> Result<Weights<'static>> {
        let product = |token| self.weight(token).map_or(0.0, |weight| weight * factor(token));
        Weights::new((0..self.len()).map(product).map(|weight| weight as f32).collect::<Vec<_>>())
    }
}
