use super::{BackendId, Tokens, check_floats, check_per_token, same_values};
use crate::backend::Backend;
use crate::batch::same_length;
use crate::element::DType;
use crate::error::Result;
use crate::memory::{Place, Slice, SliceMut};
use crate::placed::PlacedPacking;

/// The inputs and outputs of stage 2.
#[derive(Debug)]
pub struct SequenceSums<'a> {
    pub(crate) backend: BackendId,
    pub(crate) log_probs: Slice<'a>,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) packing: &'a PlacedPacking,
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
    pub(super) fn check(self, place: Place, sequences: usize) -> Result<()> {
        same_values(place, "sequence sums", self.sums, DType::F64, sequences)?;
        same_values(place, "sequence tokens", self.tokens, DType::F64, sequences)?;
        same_values(place, "sequence weights", self.weights, DType::F64, sequences)
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
    /// Sums of `[tokens]` `log_probs`, the policy's or the reference's, f32 or f64, under the tokens'
    /// weights.
    ///
    /// # Errors
    /// A length or type that does not fit, or an output that is not f64.
    pub fn new(
        backend: &dyn Backend,
        log_probs: Slice<'a>,
        tokens: Tokens<'a>,
        packing: &'a PlacedPacking,
        totals: TotalsMut<'a>,
    ) -> Result<Self> {
        let place = backend.place();
        tokens.check(place)?;
        same_length("packed tokens", tokens.count(), packing.packing().tokens())?;
        place.check("cu_seqlens", packing.offsets().place())?;
        check_floats("log_probs", log_probs.dtype())?;
        same_length("log_probs", tokens.count(), log_probs.len())?;
        place.check("log_probs", log_probs.place())?;
        totals.as_totals().check(place, packing.packing().sequences())?;
        Ok(Self { backend: BackendId::of(backend), log_probs, tokens, packing, totals })
    }
}

/// The inputs and outputs of stage 2 backwards.
#[derive(Debug)]
pub struct TokenGrads<'a> {
    pub(crate) backend: BackendId,
    pub(crate) sequence_grads: Slice<'a>,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) packing: &'a PlacedPacking,
    pub(crate) grads: SliceMut<'a>,
}

impl<'a> TokenGrads<'a> {
    /// Spreads `[sequences]` f64 gradients over `[tokens]` ones, of the type of the log-probs that stage 1
    /// of the backend writes.
    ///
    /// # Errors
    /// A length or type that does not fit, or gradients by sequence that are not f64.
    pub fn new(
        backend: &dyn Backend,
        sequence_grads: Slice<'a>,
        tokens: Tokens<'a>,
        packing: &'a PlacedPacking,
        grads: SliceMut<'a>,
    ) -> Result<Self> {
        let place = backend.place();
        tokens.check(place)?;
        same_length("packed tokens", tokens.count(), packing.packing().tokens())?;
        place.check("cu_seqlens", packing.offsets().place())?;
        let sequences = packing.packing().sequences();
        same_values(place, "sequence grads", sequence_grads, DType::F64, sequences)?;
        check_per_token(backend, "token grads", grads.dtype())?;
        same_length("token grads", tokens.count(), grads.len())?;
        place.check("token grads", grads.as_slice().place())?;
        Ok(Self { backend: BackendId::of(backend), sequence_grads, tokens, packing, grads })
    }
}
