use super::log_probs::TokenOutputs;
use super::token_objective::{TokenAdvantages, TokenInputs, TokenObjectiveGrads, TokenUnits};
use super::{
    BackendId, MaskedRows, Target, Tokens, UnitScale, check_logits, check_scratch, check_target,
    check_temperature, same_values,
};
use crate::backend::Backend;
use crate::batch::same_length;
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Slice, SliceMut};
use crate::objectives::scalar::product;
use crate::placed::{PlacedPacking, PlacedTerm};
use crate::resolved::{Over, Resolved};

/// The inputs and outputs of stages 1, 3 and 4 in one visit of the logits: for terms over tokens that
/// look at each token by itself, so that a row's gradient is known as soon as the row has been read.
#[derive(Debug)]
pub struct TokenLoss<'a> {
    pub(crate) backend: BackendId,
    pub(crate) target: Target<'a>,
    pub(crate) temperature: f64,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) packing: &'a PlacedPacking,
    pub(crate) terms: &'a [PlacedTerm],
    pub(crate) scales: &'a [UnitScale<'a>],
    pub(crate) sampled: SampledTokens<'a>,
    pub(crate) counts: Slice<'a>,
    pub(crate) outputs: TokenLossOutputs<'a>,
    pub(crate) masked: MaskedRows,
    pub(crate) scratch: SliceMut<'a>,
}

/// What is known about the tokens before the visit.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampledTokens<'a> {
    /// `[tokens]` f32 or f64 log-probs under the policy that sampled them; where there are none it is
    /// the policy itself.
    pub old: Option<Slice<'a>>,
    /// `[tokens]` f32 or f64 log-probs under the reference.
    pub reference: Option<Slice<'a>>,
    /// `[tokens]` or `[sequences]` f32 or f64 advantages.
    pub advantages: Option<TokenAdvantages<'a>>,
}

/// Where the visit writes beside the gradient by the logits.
#[derive(Debug)]
pub struct TokenLossOutputs<'a> {
    /// What stage 1 writes; entropies, where a term uses them.
    pub rows: TokenOutputs<'a>,
    /// The gradients by log-prob and entropy, which are added to.
    pub grads: TokenObjectiveGrads<'a>,
}

impl<'a> TokenLoss<'a> {
    /// Terms over tokens, the scale of each one's units, and `[sequences]` f64 counted tokens.
    ///
    /// # Errors
    /// No terms, a term over other units or one that looks at a token's sequence, a shape or type that does not
    /// fit, an input or output that a term uses and that is not there, a temperature outside 1e-30 to
    /// 1e30, or too little scratch.
    pub fn new(
        backend: &dyn Backend,
        (target, masked, temperature): (Target<'a>, MaskedRows, f64),
        (tokens, packing): (Tokens<'a>, &'a PlacedPacking),
        (terms, scales): (&'a [PlacedTerm], &'a [UnitScale<'a>]),
        (sampled, counts): (SampledTokens<'a>, Slice<'a>),
        outputs: TokenLossOutputs<'a>,
        scratch: SliceMut<'a>,
    ) -> Result<Self> {
        let (place, logits) = (backend.place(), target.logits());
        check_logits(backend, logits, tokens)?;
        check_target(place, &logits, target.grads())?;
        check_temperature("temperature", temperature)?;
        let needed = backend.token_loss_scratch(logits.tokens(), logits.vocab(), terms);
        same_length("packed tokens", tokens.count(), packing.packing().tokens())?;
        place.check("cu_seqlens", packing.offsets().place())?;
        if terms.is_empty() {
            return Err(Error::TooFew { what: "terms", expected: 1, got: 0 });
        }
        same_length("upstream terms", terms.len(), scales.len())?;
        let sequences = packing.packing().sequences();
        same_values(place, "counted tokens", counts, DType::F64, sequences)?;
        outputs.rows.check(place, logits)?;
        if outputs.grads.entropy.is_some() && outputs.rows.entropy.is_none() {
            let (objective, what) = (terms[0].term().name(), "entropies beside their gradient");
            return Err(Error::Missing { objective, what });
        }
        for (placed, scale) in terms.iter().zip(scales) {
            let term = placed.term();
            placed.check(place, Over::Tokens)?;
            if !term.is_over_single_tokens() {
                let (objective, expected) = (term.name(), "a term that looks at tokens singly");
                let got = "one that looks at their sequence";
                return Err(Error::Selection { objective, expected, got });
            }
            same_length("packed sequences", placed.sequences(), sequences)?;
            sampled.with(&outputs.rows).check(backend, placed, tokens.count())?;
            outputs.grads.check(place, placed, logits.dtype().per_token(), tokens.count())?;
            scale.check(place, term.units())?;
        }
        check_scratch(place, "scratch of token_loss", needed, &scratch)?;
        let backend = BackendId::of(backend);
        Ok(Self {
            backend,
            target,
            temperature,
            tokens,
            packing,
            terms,
            scales,
            sampled,
            counts,
            outputs,
            masked,
            scratch,
        })
    }
}

impl<'a> SampledTokens<'a> {
    /// With what the visit writes.
    pub(crate) fn with<'i>(self, rows: &'i TokenOutputs<'_>) -> TokenInputs<'i>
    where
        'a: 'i,
    {
        let Self { old, reference, advantages } = self;
        let entropy = rows.entropy.as_ref().map(SliceMut::as_slice);
        TokenInputs { log_probs: rows.log_probs.as_slice(), old, reference, entropy, advantages }
    }
}

/// A term over tokens as the visit of a row in host memory asks it: with the scale of each sequence's
/// losses.
pub(crate) struct TokenTerm<'a> {
    units: TokenUnits<'a>,
    /// By sequence: the factor of its tokens' gradients, if it is a unit.
    scales: Vec<Option<f64>>,
}

impl<'a> TokenTerm<'a> {
    pub fn new(units: TokenUnits<'a>, scale: UnitScale<'_>, sequences: usize) -> Self {
        let (term, tokens) = (units.term, units.count());
        let mut scales = vec![None; sequences];
        for unit in 0..term.units() {
            let scale = product(units.scale(scale, unit, tokens), term.unit_weight(unit));
            scales[term.member(unit, 0)] = Some(scale);
        }
        Self { units, scales }
    }

    /// Adds the gradients by the log-prob and the entropy of a token of a sequence, as stage 3 does:
    /// rounded to f32.
    pub fn add_grads(&self, [token, sequence]: [usize; 2], policy: [f64; 2], grads: &mut [f32; 2]) {
        let Some(scale) = self.scales[sequence] else { return };
        let by = self.units.evaluate_token(token, sequence, policy).grad;
        let scale = scale * self.units.tokens.weight(token);
        for (to, by) in grads.iter_mut().zip([by.policy, by.entropy]) {
            *to = (f64::from(*to) + product(scale, by)) as f32;
        }
    }
}

impl Resolved {
    /// Whether the term is over tokens and looks at each by itself.
    pub(crate) fn is_over_single_tokens(&self) -> bool {
        self.is_over_tokens() && !self.inputs_used().sequence
    }
}
