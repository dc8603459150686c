use super::{BackendId, HostTokens, Tokens, UnitScale, check_floats, check_per_token, same_values};
use crate::backend::Backend;
use crate::batch::same_length;
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Place, Slice, SliceMut};
use crate::objectives::scalar::{length, product};
use crate::objectives::{Evaluation, Inputs, LossSum, Reduction, Token};
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

/// Tokens that an objective is asked about at once; their numbers stay in the first-level cache.
pub(crate) const CHUNK: usize = 64;

impl TokenUnits<'_> {
    /// The sum of a unit's losses, each times its token's weight and all times the unit's. `grad` gets
    /// the gradients by log-prob and entropy of each counted token, in order, times `scale`; where the
    /// objective looks at the sequence's ratio, a second time for what comes by that.
    pub fn evaluate(&self, unit: usize, scale: f64, mut grad: impl FnMut(usize, f64, f64)) -> f64 {
        let sequence = self.term.member(unit, 0);
        let of_sequence = self.of_sequence(sequence);
        let weight = self.term.unit_weight(unit);
        let scale = product(scale, weight);
        let (mut loss, mut by_sequence) = (0.0, 0.0);
        let mut evaluations = [Evaluation::default(); CHUNK];
        self.visit(sequence, of_sequence, |which, tokens| {
            let evaluations = &mut evaluations[..tokens.len()];
            self.evaluate_tokens(tokens, evaluations);
            for (&token, evaluation) in which.iter().zip(evaluations) {
                let weight = self.tokens.weight(token);
                let by = evaluation.grad;
                loss += weight * evaluation.loss;
                by_sequence += weight * by.sequence;
                let scale = scale * weight;
                grad(token, product(scale, by.policy), product(scale, by.entropy));
            }
        });
        let bound = self.term.log_ratio_bound();
        // Of a sequence that the objective does not declare, its tokens' gradients are NaN already.
        let by_sequence = if self.term.inputs_used().sequence { by_sequence } else { 0.0 };
        if by_sequence != 0.0 {
            self.visit_ratios(sequence, |which, tokens| {
                let free = which.iter().zip(tokens).filter(|(_, token)| log_ratio(token, bound).1);
                free.for_each(|(&token, _)| grad(token, product(scale, by_sequence), 0.0));
            });
        }
        product(weight, loss)
    }

    /// The log-ratio of a sequence and its counted tokens (at least 1), for an objective that declares
    /// that it looks at them.
    pub fn of_sequence(&self, sequence: usize) -> [f64; 2] {
        if !self.term.inputs_used().sequence {
            return [f64::NAN; 2];
        }
        let (mut sum, bound) = (0.0, self.term.log_ratio_bound());
        self.visit_ratios(sequence, |_, tokens| {
            tokens.iter().for_each(|token| sum += log_ratio(token, bound).0);
        });
        [sum, length(self.counts.get(sequence))]
    }

    /// What the objective says about a token by itself, of these log-prob and entropy.
    pub fn evaluate_token(
        &self,
        token: usize,
        sequence: usize,
        [log_prob, entropy]: [f64; 2],
    ) -> Evaluation<Token> {
        let (mut known, mut evaluation) = ([Token::UNKNOWN], [Evaluation::default()]);
        self.read(self.term.inputs_used(), sequence, token, &mut known);
        known[0].policy = log_prob;
        if self.inputs.old.is_none() {
            known[0].old = log_prob;
        }
        if self.term.inputs_used().entropy {
            known[0].entropy = entropy;
        }
        self.evaluate_tokens(&known, &mut evaluation);
        evaluation[0]
    }

    /// What the objective says about tokens, into as many places. A gradient by their sequence that it
    /// does not declare is heard.
    pub fn evaluate_tokens(&self, tokens: &[Token], evaluations: &mut [Evaluation<Token>]) {
        self.term.evaluate_tokens(tokens, evaluations);
        if !self.term.inputs_used().sequence {
            for Evaluation { grad, .. } in evaluations.iter_mut() {
                if grad.sequence != 0.0 {
                    grad.policy = f64::NAN;
                }
            }
        }
    }

    /// The counted tokens of a sequence, in order, some at a time: which they are, and what the
    /// objective knows of each.
    pub fn visit(
        &self,
        sequence: usize,
        of_sequence: [f64; 2],
        visit: impl FnMut(&[usize], &[Token]),
    ) {
        self.visit_with(self.term.inputs_used(), sequence, of_sequence, visit);
    }

    /// The same for the log-ratios alone.
    fn visit_ratios(&self, sequence: usize, visit: impl FnMut(&[usize], &[Token])) {
        let used = Inputs { reference: false, entropy: false, ..self.term.inputs_used() };
        self.visit_with(used, sequence, [f64::NAN; 2], visit);
    }

    fn visit_with(
        &self,
        used: Inputs,
        sequence: usize,
        [sequence_log_ratio, count]: [f64; 2],
        mut visit: impl FnMut(&[usize], &[Token]),
    ) {
        let range = self.packing.packing().range(sequence);
        let unknown = Token { sequence_log_ratio, tokens: count, ..Token::UNKNOWN };
        let mut which = [0; CHUNK];
        for first in range.clone().step_by(CHUNK) {
            let mut tokens = [unknown; CHUNK];
            let some = CHUNK.min(range.end - first);
            self.read(used, sequence, first, &mut tokens[..some]);
            let mut counted = 0;
            for (at, token) in (first..first + some).enumerate() {
                if self.tokens.counted_label(token).is_some() {
                    (which[counted], tokens[counted]) = (token, tokens[at]);
                    counted += 1;
                }
            }
            visit(&which[..counted], &tokens[..counted]);
        }
    }

    /// What is known of consecutive tokens of a sequence, from the first on. What the objective does
    /// not declare stays NaN, so that one that reads it all the same is heard.
    fn read(&self, used: Inputs, sequence: usize, first: usize, tokens: &mut [Token]) {
        let TokenInputs { log_probs, old, reference, entropy, advantages } = self.inputs;
        let mut numbers = [0.0; CHUNK];
        let numbers = &mut numbers[..tokens.len()];
        let mut read = |values: Option<Slice<'_>>, put: fn(&mut Token, f64)| {
            let Some(values) = values else { return };
            values.get_all(first, numbers);
            tokens.iter_mut().zip(&*numbers).for_each(|(token, &number)| put(token, number));
        };
        read(Some(log_probs), |token, log_prob| token.policy = log_prob);
        read(Some(old.unwrap_or(log_probs)), |token, old| token.old = old);
        read(reference.filter(|_| used.reference), |token, reference| token.reference = reference);
        read(entropy.filter(|_| used.entropy), |token, entropy| token.entropy = entropy);
        match advantages {
            Some(TokenAdvantages::Tokens(values)) => {
                read(Some(values), |token, advantage| token.advantage = advantage);
            }
            Some(TokenAdvantages::Sequences(values)) => {
                let advantage = values.get(sequence);
                tokens.iter_mut().for_each(|token| token.advantage = advantage);
            }
            None => {}
        }
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

/// What a token adds to its sequence's log-ratio, and whether that has a gradient.
fn log_ratio(token: &Token, bound: f64) -> (f64, bool) {
    let log_ratio = token.policy - token.old;
    if token.advantage > 0.0 && log_ratio > bound {
        (bound, false)
    } else if token.advantage < 0.0 && log_ratio < -bound {
        (-bound, false)
    } else {
        (log_ratio, true)
    }
}

/// What divides the losses of a sequence of `counted` tokens, of `tokens` in all.
pub(crate) fn divisor(term: &Resolved, counted: f64, tokens: f64) -> f64 {
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
