use super::{Tokens, same_values};
use crate::batch::{Packing, same_length};
use crate::element::DType;
use crate::error::Result;
use crate::memory::{Slice, SliceMut};

/// The inputs and outputs of stage 2.
#[derive(Debug)]
pub struct SequenceSums<'a> {
    pub(crate) log_probs: Slice<'a>,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) packing: &'a Packing,
    pub(crate) totals: TotalsMut<'a>,
}

/// Where stage 2 writes: `[sequences]` f64 numbers each.
#[derive(Debug)]
pub struct TotalsMut<'a> {
    /// Sums of weight times log-prob.
    pub sums: SliceMut<'a>,
    /// Counted tokens.
    pub tokens: SliceMut<'a>,
    /// Sums of their weights.
    pub weights: SliceMut<'a>,
}

/// What stage 2 wrote.
#[derive(Clone, Copy, Debug)]
pub struct Totals<'a> {
    /// Sums of weight times log-prob.
    pub sums: Slice<'a>,
    /// Counted tokens.
    pub tokens: Slice<'a>,
    /// Sums of their weights.
    pub weights: Slice<'a>,
}

impl Totals<'_> {
    pub(super) fn check(self, sequences: usize) -> Result<()> {
        same_values("sequence sums", self.sums, DType::F64, sequences)?;
        same_values("sequence tokens", self.tokens, DType::F64, sequences)?;
        same_values("sequence weights", self.weights, DType::F64, sequences)
    }
}

impl TotalsMut<'_> {
    /// The same memory, to read.
    pub fn as_totals(&self) -> Totals<'_> {
        Totals {
            sums: self.sums.as_slice(),
            tokens: self.tokens.as_slice(),
            weights: self.weights.as_slice(),
        }
    }
}

impl<'a> SequenceSums<'a> {
    /// Sums of `[tokens]` `log_probs`, the policy's or the reference's, under the tokens' weights.
    ///
    /// # Errors
    /// A length that does not fit, or an output that is not f64.
    pub fn new(
        log_probs: Slice<'a>,
        tokens: Tokens<'a>,
        packing: &'a Packing,
        totals: TotalsMut<'a>,
    ) -> Result<Self> {
        same_length("packed tokens", tokens.count(), packing.tokens())?;
        same_length("log_probs", tokens.count(), log_probs.len())?;
        totals.as_totals().check(packing.sequences())?;
        Ok(Self { log_probs, tokens, packing, totals })
    }
}

/// The inputs and outputs of stage 2 backwards.
#[derive(Debug)]
pub struct TokenGrads<'a> {
    pub(crate) sequence_grads: Slice<'a>,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) packing: &'a Packing,
    pub(crate) grads: SliceMut<'a>,
}

impl<'a> TokenGrads<'a> {
    /// Spreads `[sequences]` f64 gradients over `[tokens]` ones.
    ///
    /// # Errors
    /// A length that does not fit, or gradients by sequence that are not f64.
    pub fn new(
        sequence_grads: Slice<'a>,
        tokens: Tokens<'a>,
        packing: &'a Packing,
        grads: SliceMut<'a>,
    ) -> Result<Self> {
        same_length("packed tokens", tokens.count(), packing.tokens())?;
        same_values("sequence grads", sequence_grads, DType::F64, packing.sequences())?;
        same_length("token grads", tokens.count(), grads.len())?;
        Ok(Self { sequence_grads, tokens, packing, grads })
    }
}
