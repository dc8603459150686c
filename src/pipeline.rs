//! The stages in order: a loss of weighted terms, and its gradient by the logits.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backend::Backend;
use crate::batch::{Batch, Logits, LogitsMut, same_length};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Buffer, Slice};
use crate::metrics::PairMetrics;
use crate::placed::{PlacedPacking, PlacedTerm, copy, numbers};
use crate::stages::{
    MaskedRows, Objective, ObjectiveOutputs, SequenceSums, Target, TokenGrads, TokenUpstream,
    Tokens, Totals, TotalsMut, UnitScale,
};
use crate::term::{Resolved, Term, check_inputs};
use crate::token_log_probs::{RowOptions, TokenCopies, TokenLogProbs};

/// A loss of weighted terms over one batch, from logits to the gradient by the logits.
///
/// ```
/// use prefuse::batch::{Batch, Labels, LogitsMut, Packing, Pairs, ReferenceLogProbs};
/// use prefuse::objectives::{Dpo, Nll};
/// use prefuse::{Cpu, Loss, MaskedRows, Sequences, Term, Upstream};
///
/// let batch = Batch::new(Labels::new(&[1, 0, 2, 2]), Packing::new(&[0, 2, 4])?)?
///     .with_reference(ReferenceLogProbs::per_sequence(&[-2.5, -1.5]))?
///     .with_pairs(Pairs::halves(1)?)?;
/// let loss = Loss::new(batch, [
///     Term::pairs(Dpo::new(0.1)),
///     Term::sequences(Nll::new(), Sequences::Chosen).with_weight(0.2),
/// ])?;
/// let mut data = [0.1_f32, 0.7, 0.2, 0.9, 0.3, 0.0, 0.5, 0.1, 0.8, 0.2, 0.4, 0.6];
/// let logits = LogitsMut::new(&mut data, 4, 3)?;
/// let forward = loss.forward(&Cpu::new(), logits.view())?;
/// assert!(forward.loss() > 0.0);
/// loss.logit_grads_in_place(&Cpu::new(), forward, logits, Upstream::Loss(1.0), MaskedRows::Zero)?;
/// // Each row of `data` now holds a gradient, which sums to 0.
/// assert!(data[..3].iter().sum::<f32>().abs() < 1e-6);
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Loss<'a> {
    /// Shared by copies, and carried by their forward results.
    id: usize,
    batch: Batch<'a>,
    terms: Vec<Resolved>,
    rows: RowOptions,
}

/// The gradient of the caller's own loss by what a forward call returned.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub enum Upstream<'a> {
    /// By the loss: 1 for the gradient of the loss itself.
    Loss(f64),
    /// By the losses of each term's units, before the term's reduction and weight: one slice for
    /// each term, in order.
    Units(&'a [&'a [f64]]),
}

/// What [`Loss::forward`] computed, and what the gradient needs again: O(tokens) numbers.
#[derive(Debug)]
pub struct Forward {
    loss_id: usize,
    placed: Placed,
    tokens: TokenLogProbs,
    policy: [Buffer; 3],
    reference: Option<Buffer>,
    terms: Vec<TermValue>,
    metrics: Option<PairMetrics>,
}

/// A batch and the units of its terms, in reach of a backend.
#[derive(Debug)]
struct Placed {
    tokens: TokenCopies,
    packing: PlacedPacking,
    terms: Vec<PlacedTerm>,
}

/// What stage 3 writes for a term.
struct TermOutputs {
    losses: Buffer,
    rewards: Buffer,
    value: Buffer,
}

/// What one term came to.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct TermValue {
    /// The losses of its units under the term's reduction, times the term's weight.
    pub value: f64,
    /// `[units]` losses, times the weight of the pair, before reduction and weight of the term.
    pub losses: Vec<f64>,
    /// `[units]` implicit rewards: of chosen and rejected for a pair, of the response and 0 for a
    /// sequence.
    pub rewards: Vec<[f64; 2]>,
}

impl<'a> Loss<'a> {
    /// A loss of at least one term.
    ///
    /// # Errors
    /// No terms; a parameter, weight or divisor outside its domain; an input that the batch lacks; or
    /// a number given for each pair that a term over pairs does not use, or that no term is there to
    /// use.
    pub fn new(batch: Batch<'a>, terms: impl IntoIterator<Item = Term>) -> Result<Self> {
        batch.check()?;
        let terms =
            terms.into_iter().map(|term| term.resolve(&batch)).collect::<Result<Vec<_>>>()?;
        if terms.is_empty() {
            return Err(Error::NoTerms);
        }
        if let Some(pairs) = batch.pairs() {
            check_inputs(&terms, pairs)?;
        }
        static LOSSES: AtomicUsize = AtomicUsize::new(0);
        let id = LOSSES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, batch, terms, rows: RowOptions::default() })
    }

    /// What to compute from each row of logits: temperature, entropies, argmax.
    #[must_use]
    pub fn with_rows(mut self, rows: RowOptions) -> Self {
        self.rows = rows;
        self
    }

    /// The batch.
    pub fn batch(&self) -> &Batch<'a> {
        &self.batch
    }

    /// A copy that owns its data, in host memory.
    ///
    /// # Errors
    /// Reading a device.
    pub fn into_owned(self) -> Result<Loss<'static>> {
        let Self { id, batch, terms, rows } = self;
        Ok(Loss { id, batch: batch.into_owned()?, terms, rows })
    }

    /// Stages 1 to 3: one read of the logits. Of a device it waits for the results.
    ///
    /// # Errors
    /// Logits that do not fit the batch or the backend, a label outside the vocabulary, a
    /// temperature outside 1e-30 to 1e30, or the device's own errors.
    pub fn forward(&self, backend: &dyn Backend, logits: Logits<'_>) -> Result<Forward> {
        let errors_taken = backend.errors_taken();
        let placed = self.place(backend)?;
        let tokens = TokenLogProbs::compute(backend, logits, self.tokens(&placed)?, self.rows)?;
        let policy = self.sequence_sums(backend, &placed, tokens.log_probs())?;
        let reference = self.reference_sums(backend, &placed)?;
        let (loss_id, terms) = (self.id, vec![]);
        let mut forward =
            Forward { loss_id, placed, tokens, policy, reference, terms, metrics: None };
        let outputs: Vec<TermOutputs> = (0..self.terms.len())
            .map(|term| forward.objective(backend, term, None))
            .collect::<Result<_>>()?;
        forward.terms = outputs.iter().map(TermOutputs::read).collect::<Result<_>>()?;
        forward.metrics = self.metrics(&forward)?;
        if backend.errors_taken() == errors_taken { Ok(forward) } else { Err(Error::ErrorTaken) }
    }

    fn place(&self, backend: &dyn Backend) -> Result<Placed> {
        let batch = &self.batch;
        Ok(Placed {
            tokens: TokenCopies::new(backend, batch.labels(), batch.weights())?,
            packing: batch.packing().place(backend)?,
            terms: self
                .terms
                .iter()
                .map(|term| term.place(backend, batch))
                .collect::<Result<_>>()?,
        })
    }

    fn tokens<'p>(&'p self, placed: &'p Placed) -> Result<Tokens<'p>> {
        placed.tokens.tokens(self.batch.labels(), self.batch.weights())
    }

    /// Stage 4, into another buffer. `logits` are those of the forward call. On a device it is enqueued
    /// and not waited for; an error that a kernel finds comes where the host next waits.
    ///
    /// # Errors
    /// A result of another loss, shapes or types that do not fit, or an upstream gradient beyond the
    /// range of f32, in which the gradient by the log-probs is kept.
    pub fn logit_grads(
        &self,
        backend: &dyn Backend,
        forward: &Forward,
        (logits, grads): (Logits<'_>, LogitsMut<'_>),
        upstream: Upstream<'_>,
        masked: MaskedRows,
    ) -> Result<()> {
        self.backward(backend, forward, Target::OutOfPlace { logits, grads }, upstream, masked)
    }

    /// Stage 4, over the logits of the forward call. On a device it is enqueued and not waited for; an
    /// error that a kernel finds comes where the host next waits.
    ///
    /// # Errors
    /// A result of another loss, shapes or types that do not fit, or an upstream gradient beyond the
    /// range of f32, in which the gradient by the log-probs is kept.
    pub fn logit_grads_in_place(
        &self,
        backend: &dyn Backend,
        forward: Forward,
        logits: LogitsMut<'_>,
        upstream: Upstream<'_>,
        masked: MaskedRows,
    ) -> Result<()> {
        self.backward(backend, &forward, Target::InPlace(logits), upstream, masked)
    }

    fn backward(
        &self,
        backend: &dyn Backend,
        forward: &Forward,
        target: Target<'_>,
        upstream: Upstream<'_>,
        masked: MaskedRows,
    ) -> Result<()> {
        if forward.loss_id != self.id {
            return Err(Error::OtherLoss);
        }
        let grads = self.token_grads(backend, forward, upstream)?;
        let upstream = TokenUpstream { log_probs: grads.slice(), entropy: None };
        let tokens = self.tokens(&forward.placed)?;
        forward.tokens.run_logit_grads(backend, target, tokens, upstream, masked)
    }

    /// The gradient by each token's log-prob: stage 3 for all terms, then stage 2 backwards.
    fn token_grads(
        &self,
        backend: &dyn Backend,
        forward: &Forward,
        upstream: Upstream<'_>,
    ) -> Result<Buffer> {
        let tokens = self.tokens(&forward.placed)?;
        let packing = &forward.placed.packing;
        let mut sequence_grads = backend.allocate(DType::F64, self.batch.packing().sequences())?;
        for (term, scale) in self.scales(upstream)?.into_iter().enumerate() {
            let copied = match scale {
                UnitScale::Given(scale) => copy(backend, scale)?,
                UnitScale::Reduced(_) => None,
            };
            let scale = copied.as_ref().map_or(scale, |copy| UnitScale::Given(copy.slice()));
            forward.objective(backend, term, Some((&mut sequence_grads, scale)))?;
        }
        let mut grads = backend.allocate(forward.tokens.log_probs().dtype(), tokens.count())?;
        let (from, to) = (sequence_grads.slice(), grads.slice_mut());
        backend.token_grads(TokenGrads::new(backend, from, tokens, packing, to)?)?;
        Ok(grads)
    }

    fn scales<'u>(&self, upstream: Upstream<'u>) -> Result<Vec<UnitScale<'u>>> {
        match upstream {
            Upstream::Loss(upstream) => {
                check_upstream(upstream)?;
                Ok(vec![UnitScale::Reduced(upstream); self.terms.len()])
            }
            Upstream::Units(terms) => {
                same_length("upstream terms", self.terms.len(), terms.len())?;
                terms
                    .iter()
                    .flat_map(|term| term.iter())
                    .try_for_each(|&got| check_upstream(got))?;
                Ok(terms.iter().map(|term| UnitScale::Given(Slice::new(term))).collect())
            }
        }
    }

    fn sequence_sums(
        &self,
        backend: &dyn Backend,
        placed: &Placed,
        log_probs: Slice<'_>,
    ) -> Result<[Buffer; 3]> {
        let allocate = || backend.allocate(DType::F64, self.batch.packing().sequences());
        let mut totals = [allocate()?, allocate()?, allocate()?];
        let [sums, tokens, weights] = totals.each_mut().map(Buffer::slice_mut);
        backend.sequence_sums(SequenceSums::new(
            backend,
            log_probs,
            self.tokens(placed)?,
            &placed.packing,
            TotalsMut { sums, tokens, weights },
        )?)?;
        Ok(totals)
    }

    fn reference_sums(&self, backend: &dyn Backend, placed: &Placed) -> Result<Option<Buffer>> {
        let Some(reference) = self.batch.reference() else { return Ok(None) };
        if let Some(log_probs) = reference.tokens() {
            let copied = copy(backend, log_probs)?;
            let log_probs = copied.as_ref().map_or(log_probs, Buffer::slice);
            let [sums, ..] = self.sequence_sums(backend, placed, log_probs)?;
            return Ok(Some(sums));
        }
        reference.sums().map(|(sums, _)| backend.upload(Slice::new(sums))).transpose()
    }

    fn metrics(&self, forward: &Forward) -> Result<Option<PairMetrics>> {
        let Some(pairs) = self.batch.pairs() else { return Ok(None) };
        let Some(term) = self.terms.iter().position(Resolved::is_over_pairs) else {
            return Ok(None);
        };
        let [sums, tokens, _] = &forward.policy;
        let (sums, tokens) = (numbers(sums)?, numbers(tokens)?);
        Ok(Some(PairMetrics::new(pairs, &forward.terms[term].rewards, [&sums, &tokens])))
    }
}

impl TermOutputs {
    fn read(&self) -> Result<TermValue> {
        let rewards = numbers(&self.rewards)?;
        Ok(TermValue {
            value: numbers(&self.value)?[0],
            losses: numbers(&self.losses)?,
            rewards: rewards.as_chunks().0.to_vec(),
        })
    }
}

impl Forward {
    fn objective(
        &self,
        backend: &dyn Backend,
        term: usize,
        grads: Option<(&mut Buffer, UnitScale<'_>)>,
    ) -> Result<TermOutputs> {
        let term = &self.placed.terms[term];
        let units = term.term().units();
        let mut outputs = TermOutputs {
            losses: backend.allocate(DType::F64, units)?,
            rewards: backend.allocate(DType::F64, 2 * units)?,
            value: backend.allocate(DType::F64, 1)?,
        };
        let mut scratch = backend.allocate(DType::F64, backend.objective_scratch(units))?;
        let stage = ObjectiveOutputs {
            losses: outputs.losses.slice_mut(),
            rewards: outputs.rewards.slice_mut(),
            value: outputs.value.slice_mut(),
            grads: grads.map(|(grads, scale)| (grads.slice_mut(), scale)),
        };
        let sums = (self.totals(), self.reference.as_ref().map(Buffer::slice));
        let scratch = scratch.slice_mut();
        backend.objective(Objective::new(backend, term, sums, stage, scratch)?)?;
        Ok(outputs)
    }

    /// The loss: the sum of the terms' values.
    pub fn loss(&self) -> f64 {
        self.terms.iter().map(|term| term.value).sum()
    }

    /// What each term came to, in order.
    pub fn terms(&self) -> &[TermValue] {
        &self.terms
    }

    /// What trainers log, from the first term over pairs, if there is one.
    pub fn metrics(&self) -> Option<PairMetrics> {
        self.metrics
    }

    /// Log-probs, entropies and argmax of the tokens.
    pub fn tokens(&self) -> &TokenLogProbs {
        &self.tokens
    }

    /// `[sequences]` f64 sums of weight times log-prob, counted tokens, and sums of their weights.
    pub fn totals(&self) -> Totals<'_> {
        let [sums, tokens, weights] = self.policy.each_ref().map(Buffer::slice);
        Totals { sums, tokens, weights }
    }

    /// `[sequences]` f64 sums of weight times reference log-prob, if the batch has a reference.
    pub fn reference_sums(&self) -> Option<Slice<'_>> {
        self.reference.as_ref().map(Buffer::slice)
    }
}

fn check_upstream(got: f64) -> Result<()> {
    if got.abs() <= f64::from(f32::MAX) {
        Ok(())
    } else {
        let (what, expected) = ("upstream gradient", "a finite number in the range of f32");
        Err(Error::Scalar { what, expected, got })
    }
}
