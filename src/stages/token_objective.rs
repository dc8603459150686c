use super::{BackendId, HostTokens, Tokens, UnitScale, check_floats, check_per_token, same_values};
use crate::backend::Backend;
use crate::batch::same_length;
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Place, Slice, SliceMut};
use crate::objectives::scalar::{length, product};
use crate::objectives::{AnyEvaluation, LossSum, Reduction, Response};
use crate::placed::{PlacedPacking, PlacedTerm};
use crate::resolved::{Over, Resolved};

/// The inputs and outputs of stage 3 for a term over tokens. A unit is one sequence of the term.
#[derive(Debug)]
pub struct TokenObjective<'a> {
    pub(crate) backend: BackendId,
    pub(crate) term: &'a PlacedTerm,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) packing: &'a PlacedPacking,
    pub(crate) counts: Slice<'a>,
    pub(crate) inputs: TokenInputs<'a>,
    pub(crate) outputs: TokenObjectiveOutputs<'a>,
}

/// What is known about the tokens.
#[derive(Clone, Copy, Debug)]
pub struct TokenInputs<'a> {
    /// `[tokens]` log-probs under the policy, of the type that stage 1 of the backend writes: f32, or f64
    /// where the logits are.
    pub log_probs: Slice<'a>,
    /// `[tokens]` f32 or f64 log-probs under the policy that sampled them; where there are none it is
    /// the policy itself.
    pub old: Option<Slice<'a>>,
    /// `[tokens]` f32 or f64 log-probs under the reference.
    pub reference: Option<Slice<'a>>,
    /// `[tokens]` entropies, of the type of the log-probs.
    pub entropy: Option<Slice<'a>>,
    /// `[tokens]` or `[sequences]` f32 or f64 advantages.
    pub advantages: Option<TokenAdvantages<'a>>,
}

/// Advantages, and what they are given for.
#[derive(Clone, Copy, Debug)]
pub enum TokenAdvantages<'a> {
    /// `[sequences]`.
    Sequences(Slice<'a>),
    /// `[tokens]`.
    Tokens(Slice<'a>),
}

/// Where stage 3 writes for a term over tokens.
#[derive(Debug)]
pub struct TokenObjectiveOutputs<'a> {
    /// `[units]` f64 sums of the losses of each sequence's tokens, times the weights of the tokens and
    /// of the sequence.
    pub losses: SliceMut<'a>,
    /// Gradients, which are added to, and the scale of each unit's.
    pub grads: Option<(TokenObjectiveGrads<'a>, UnitScale<'a>)>,
}

/// `[tokens]` gradients, of the type of the log-probs.
#[derive(Debug)]
pub struct TokenObjectiveGrads<'a> {
    /// By the log-probs.
    pub log_probs: SliceMut<'a>,
    /// By the entropies, for an objective that uses them.
    pub entropy: Option<SliceMut<'a>>,
}

impl TokenObjectiveGrads<'_> {
    /// The same buffers, for a while.
    pub fn reborrow(&mut self) -> TokenObjectiveGrads<'_> {
        TokenObjectiveGrads {
            log_probs: self.log_probs.reborrow(),
            entropy: self.entropy.as_mut().map(SliceMut::reborrow),
        }
    }

    pub(super) fn check(
        &self,
        place: Place,
        placed: &PlacedTerm,
        dtype: DType,
        tokens: usize,
    ) -> Result<()> {
        let by_log_probs = self.log_probs.as_slice();
        same_values(place, "gradient by log_probs", by_log_probs, dtype, tokens)?;
        if let Some(entropy) = &self.entropy {
            return same_values(place, "gradient by entropy", entropy.as_slice(), dtype, tokens);
        }
        let (objective, what) = (placed.term().name(), "a gradient by entropy");
        match placed.term().inputs_used().entropy {
            true => Err(Error::Missing { objective, what }),
            false => Ok(()),
        }
    }
}

impl<'a> TokenObjective<'a> {
    /// One term over the tokens of its sequences; `counts` are `[sequences]` f64 counted tokens.
    ///
    /// # Errors
    /// A term over other units, a length or type that does not fit, or an input that the objective uses
    /// and that is not there.
    pub fn new(
        backend: &dyn Backend,
        placed: &'a PlacedTerm,
        (tokens, packing): (Tokens<'a>, &'a PlacedPacking),
        (inputs, counts): (TokenInputs<'a>, Slice<'a>),
        outputs: TokenObjectiveOutputs<'a>,
    ) -> Result<Self> {
        let (place, term) = (backend.place(), placed.term());
        placed.check(place, Over::Tokens)?;
        tokens.check(place)?;
        same_length("packed tokens", tokens.count(), packing.packing().tokens())?;
        same_length("packed sequences", placed.sequences(), packing.packing().sequences())?;
        place.check("cu_seqlens", packing.offsets().place())?;
        inputs.check(backend, placed, tokens.count())?;
        same_values(place, "counted tokens", counts, DType::F64, placed.sequences())?;
        let dtype = inputs.log_probs.dtype();
        same_values(place, "losses", outputs.losses.as_slice(), DType::F64, term.units())?;
        if let Some((grads, scale)) = &outputs.grads {
            grads.check(place, placed, dtype, tokens.count())?;
            scale.check(place, term.units())?;
        }
        let backend = BackendId::of(backend);
        Ok(Self { backend, term: placed, tokens, packing, counts, inputs, outputs })
    }

    /// # Errors
    /// Tokens of a device.
    pub(crate) fn units(&self) -> Result<TokenUnits<'a>> {
        let (term, tokens) = (self.term.term(), self.tokens.host()?);
        let (packing, counts, inputs) = (self.packing, self.counts, self.inputs);
        Ok(TokenUnits { term, tokens, packing, counts, inputs })
    }
}

impl TokenInputs<'_> {
    pub(super) fn check(
        &self,
        backend: &dyn Backend,
        placed: &PlacedTerm,
        tokens: usize,
    ) -> Result<()> {
        let (place, term, sequences) = (backend.place(), placed.term(), placed.sequences());
        let floats = |what, values: Slice<'_>, len| {
            check_floats(what, values.dtype())?;
            same_values(place, what, values, values.dtype(), len)
        };
        check_per_token(backend, "log_probs", self.log_probs.dtype())?;
        floats("log_probs", self.log_probs, tokens)?;
        if let Some(old) = self.old {
            floats("old log-probs", old, tokens)?;
        }
        if let Some(reference) = self.reference {
            floats("reference log-probs", reference, tokens)?;
        }
        if let Some(entropy) = self.entropy {
            same_values(place, "entropy", entropy, self.log_probs.dtype(), tokens)?;
        }
        match self.advantages {
            Some(TokenAdvantages::Sequences(values)) => floats("advantages", values, sequences)?,
            Some(TokenAdvantages::Tokens(values)) => floats("advantages", values, tokens)?,
            None => {}
        }
        let used = term.inputs_used();
        for (what, missing) in [
            ("reference log-probs per token", used.reference && self.reference.is_none()),
            ("advantages", used.advantage && self.advantages.is_none()),
            ("entropies", used.entropy && self.entropy.is_none()),
        ] {
            if missing {
                return Err(Error::Missing { objective: term.name(), what });
            }
        }
        Ok(())
    }
}

/// What stage 3 reads of tokens in host memory.
#[derive(Clone, Copy)]
pub(crate) struct TokenUnits<'a> {
    pub term: &'a Resolved,
    pub tokens: HostTokens<'a>,
    pub packing: &'a PlacedPacking,
    pub counts: Slice<'a>,
    pub inputs: TokenInputs<'a>,
}

impl TokenUnits<'_> {
    /// The sum of a unit's losses, each times its token's weight and all times the unit's. `grad` gets
    /// the gradients by log-prob and entropy of each counted token, in order, times `scale`; where the
    /// objective looks at the sequence's ratio, a second time for what comes by that.
    pub fn evaluate(&self, unit: usize, scale: f64, grad: &mut dyn FnMut(usize, f64, f64)) -> f64 {
        let sequence = self.term.member(unit, 0);
        let range = self.packing.packing().range(sequence);
        let counted = || range.clone().filter(|&token| self.tokens.counted_label(token).is_some());
        let log_ratio = counted().map(|token| self.log_ratio(token, sequence).0).sum();
        let weight = self.term.unit_weight(unit);
        let scale = product(scale, weight);
        let (mut loss, mut by_sequence) = (0.0, 0.0);
        for token in counted() {
            let weight = self.tokens.weight(token);
            let evaluation = self.evaluate_token(unit, token, self.policy(token), log_ratio);
            let [by_policy, by_ratio, by_entropy, _] = evaluation.grads;
            loss += weight * evaluation.loss;
            by_sequence += weight * by_ratio;
            let scale = scale * weight;
            grad(token, product(scale, by_policy), product(scale, by_entropy));
        }
        if by_sequence != 0.0 {
            for token in counted().filter(|&token| self.log_ratio(token, sequence).1) {
                grad(token, product(scale, by_sequence), 0.0);
            }
        }
        product(weight, loss)
    }

    /// What a token adds to its sequence's log-ratio, and whether that has a gradient.
    fn log_ratio(&self, token: usize, sequence: usize) -> (f64, bool) {
        let log_ratio = self.inputs.log_probs.get(token) - self.old(token);
        let bound = self.term.log_ratio_bound();
        let advantage = self.advantage(token, sequence);
        if advantage > 0.0 && log_ratio > bound {
            (bound, false)
        } else if advantage < 0.0 && log_ratio < -bound {
            (-bound, false)
        } else {
            (log_ratio, true)
        }
    }

    /// A token's log-prob and entropy.
    fn policy(&self, token: usize) -> [f64; 2] {
        let entropy = self.inputs.entropy.map_or(f64::NAN, |values| values.get(token));
        [self.inputs.log_probs.get(token), entropy]
    }

    fn old(&self, token: usize) -> f64 {
        self.inputs.old.unwrap_or(self.inputs.log_probs).get(token)
    }

    fn advantage(&self, token: usize, sequence: usize) -> f64 {
        match self.inputs.advantages {
            Some(TokenAdvantages::Sequences(values)) => values.get(sequence),
            Some(TokenAdvantages::Tokens(values)) => values.get(token),
            None => f64::NAN,
        }
    }

    /// What the objective says about a token of these log-prob and entropy, in a sequence of this
    /// log-ratio. What the objective does not declare is NaN, so that one that reads it all the same is
    /// heard; likewise a gradient by a sequence that it does not declare.
    pub fn evaluate_token(
        &self,
        unit: usize,
        token: usize,
        [log_prob, entropy]: [f64; 2],
        log_ratio: f64,
    ) -> AnyEvaluation {
        let sequence = self.term.member(unit, 0);
        let at = |values: Option<Slice<'_>>| values.map_or(f64::NAN, |values| values.get(token));
        let used = self.term.inputs_used();
        let policy = Response::new(log_prob, 1.0)
            .with_reference(at(self.inputs.reference.filter(|_| used.reference)))
            .with_score(self.advantage(token, sequence))
            .with_old(self.inputs.old.map_or(log_prob, |values| values.get(token)));
        let of_sequence = match used.sequence {
            true => Response::new(log_ratio, length(self.counts.get(sequence))),
            false => Response::new(f64::NAN, f64::NAN),
        };
        let entropy = if used.entropy { entropy } else { f64::NAN };
        let entropy = Response::new(entropy, 1.0);
        let responses = [policy, of_sequence, entropy, Response::default()];
        let (mut evaluation, _) = self.term.evaluate(unit, &responses);
        if !used.sequence && evaluation.grads[1] != 0.0 {
            evaluation.grads[0] = f64::NAN;
        }
        evaluation
    }

    /// How much each of a unit's losses weighs in the gradient.
    pub fn scale(&self, scale: UnitScale<'_>, unit: usize, tokens: f64) -> f64 {
        match scale {
            UnitScale::Reduced(upstream) => {
                let counted = self.counts.get(self.term.member(unit, 0));
                upstream * self.term.weight() / divisor(self.term, counted, tokens)
            }
            UnitScale::Given(upstream) => upstream.get(unit),
        }
    }

    /// Counted tokens of all units.
    pub fn count(&self) -> f64 {
        let units = 0..self.term.units();
        units.map(|unit| self.counts.get(self.term.member(unit, 0))).sum()
    }
}

/// What divides the losses of a sequence of `counted` tokens, of `tokens` in all.
fn divisor(term: &Resolved, counted: f64, tokens: f64) -> f64 {
    match term.reduction() {
        Reduction::SequenceMean => term.units() as f64 * length(counted),
        Reduction::Mean => length(tokens),
        _ => term.divisor(tokens),
    }
}

impl Resolved {
    /// The value of a term over tokens: from the `[units]` losses that stage 3 wrote, and the
    /// `[sequences]` counted tokens.
    ///
    /// # Errors
    /// Other lengths.
    pub fn token_value(&self, losses: &[f64], counts: &[f64]) -> Result<f64> {
        same_length("losses", self.units(), losses.len())?;
        self.check_counts(counts)?;
        let counted = |unit: usize| counts[self.member(unit, 0)];
        let tokens: f64 = (0..self.units()).map(counted).sum();
        let mut sum = LossSum::default();
        let by_sequence = self.reduction() == Reduction::SequenceMean;
        for (unit, &loss) in losses.iter().enumerate() {
            sum.add(if by_sequence { loss / length(counted(unit)) } else { loss });
        }
        let divisor = if by_sequence { self.units() as f64 } else { divisor(self, 0.0, tokens) };
        Ok(product(self.weight(), sum.over(divisor)))
    }

    /// # Errors
    /// Fewer counted tokens than sequences.
    pub(super) fn check_counts(&self, counts: &[f64]) -> Result<()> {
        let expected = self.all_members().iter().max().map_or(0, |&last| last as usize + 1);
        match counts.len() {
            got if got < expected => Err(Error::Length { what: "counted tokens", expected, got }),
            _ => Ok(()),
        }
    }
}
