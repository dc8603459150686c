//! The stages in order: a loss of weighted terms, and its gradient by the logits.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backend::Backend;
use crate::batch::{Advantages, Batch, Logits, LogitsMut, ReferenceLogProbs};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::evaluated::{Evaluated, TermValue, TokenSide, Upstream};
use crate::memory::{Buffer, Slice};
use crate::metrics::{PairMetrics, SequenceMetrics};
use crate::placed::{PlacedPacking, copy};
use crate::resolved::{Resolved, check_inputs};
use crate::stages::{
    MaskedRows, SequenceSums, Target, TokenAdvantages, TokenGrads, TokenInputs, TokenUpstream,
    Tokens, Totals, TotalsMut,
};
use crate::term::Term;
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

/// What [`Loss::forward`] computed, and what the gradient needs again: O(tokens) numbers.
#[derive(Debug)]
pub struct Forward {
    loss_id: usize,
    copies: TokenCopies,
    packing: PlacedPacking,
    tokens: TokenLogProbs,
    facts: TokenFacts,
    evaluated: Evaluated,
}

/// Copies of what a batch says of its tokens, for a backend that does not reach the caller's: old and
/// reference log-probs, and advantages.
#[derive(Debug)]
struct TokenFacts([Option<Buffer>; 3]);

impl<'a> Loss<'a> {
    /// A loss of at least one term.
    ///
    /// # Errors
    /// No terms; a parameter, weight or divisor outside its domain; an input that the batch lacks; or
    /// a number given for each pair that a term over pairs does not use, or that no term is there to
    /// use.
    pub fn new(batch: Batch<'a>, terms: impl IntoIterator<Item = Term>) -> Result<Self> {
        batch.check(false)?;
        let terms = resolve(&batch, terms)?;
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
        let (labels, weights) = (self.batch.labels(), self.batch.weights());
        let uses_entropy = self.terms.iter().any(|term| term.inputs_used().entropy);
        let rows = if uses_entropy { self.rows.with_entropy() } else { self.rows };
        untaken(backend, || {
            let copies = TokenCopies::new(backend, labels, weights)?;
            let tokens = copies.tokens(labels, weights)?;
            let tokens = TokenLogProbs::compute(backend, logits, tokens, rows)?;
            self.compare(backend, copies, tokens)
        })
    }

    /// Stages 2 and 3, over the log-probs that [`token_log_probs`](crate::token_log_probs) computed from these labels, with
    /// what it was asked for: for batches whose weights, labels or pairs follow from the log-probs
    /// themselves, such as those of WPO, AOT, Nash-MD or of KTO's baseline (see
    /// [`statistics`](crate::statistics)). The logits are read once all the same.
    ///
    /// Tokens that were masked when the log-probs were computed have to be masked here.
    ///
    /// # Errors
    /// Log-probs of other labels, or of tokens that were masked then and are not now, where both are
    /// in host memory; the device's own errors.
    pub fn evaluate(&self, backend: &dyn Backend, tokens: TokenLogProbs) -> Result<Forward> {
        let (labels, weights) = (self.batch.labels(), self.batch.weights());
        tokens.check_tokens(labels, weights)?;
        untaken(backend, || {
            let copies = TokenCopies::new(backend, labels, weights)?;
            self.compare(backend, copies, tokens)
        })
    }

    fn compare(
        &self,
        backend: &dyn Backend,
        copies: TokenCopies,
        tokens: TokenLogProbs,
    ) -> Result<Forward> {
        let batch = &self.batch;
        let facts = TokenFacts::new(backend, batch)?;
        let packing = batch.packing().place(backend)?;
        let terms = self.terms.iter().map(|term| term.place(backend, batch));
        let terms = terms.collect::<Result<_>>()?;
        let counted = copies.tokens(batch.labels(), batch.weights())?;
        let policy = sequence_sums(backend, counted, &packing, tokens.log_probs())?;
        let reference = self.reference_sums(backend, &facts, counted, &packing)?;
        let inputs = self.token_inputs(&facts, &tokens);
        let side = TokenSide { tokens: counted, packing: &packing, inputs };
        let evaluated = Evaluated::new(backend, terms, policy, reference, Some(side))?;
        let loss_id = self.id;
        Ok(Forward { loss_id, copies, packing, tokens, facts, evaluated })
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
        let (grads, by_entropy) = self.token_grads(backend, forward, upstream)?;
        let by_entropy = by_entropy.as_ref().map(Buffer::slice).zip(forward.tokens.entropy());
        let upstream = TokenUpstream { log_probs: grads.slice(), entropy: by_entropy };
        let tokens = forward.copies.tokens(self.batch.labels(), self.batch.weights())?;
        forward.tokens.run_logit_grads(backend, target, tokens, upstream, masked)
    }

    /// The gradients by each token's log-prob and entropy: stage 3 for all terms, stage 2 backwards.
    fn token_grads(
        &self,
        backend: &dyn Backend,
        forward: &Forward,
        upstream: Upstream<'_>,
    ) -> Result<(Buffer, Option<Buffer>)> {
        let tokens = forward.copies.tokens(self.batch.labels(), self.batch.weights())?;
        let dtype = forward.tokens.log_probs().dtype();
        let sequence_grads = forward.evaluated.grads(backend, upstream)?;
        let mut grads = backend.allocate(dtype, tokens.count())?;
        let (from, to) = (sequence_grads.slice(), grads.slice_mut());
        backend.token_grads(TokenGrads::new(backend, from, tokens, &forward.packing, to)?)?;
        if !forward.evaluated.has_tokens() {
            return Ok((grads, None));
        }
        let mut entropy = match forward.evaluated.uses_entropy() {
            true => Some(backend.allocate(dtype, tokens.count())?),
            false => None,
        };
        let inputs = self.token_inputs(&forward.facts, &forward.tokens);
        let side = TokenSide { tokens, packing: &forward.packing, inputs };
        forward.evaluated.token_grads(backend, upstream, side, (&mut grads, entropy.as_mut()))?;
        Ok((grads, entropy))
    }

    /// What the terms over tokens look at.
    fn token_inputs<'i>(
        &'i self,
        facts: &'i TokenFacts,
        tokens: &'i TokenLogProbs,
    ) -> TokenInputs<'i> {
        let [old, reference, advantages] = facts.of(&self.batch);
        let advantages = advantages.map(match self.batch.advantages() {
            Some(given) if given.is_per_token() => TokenAdvantages::Tokens,
            _ => TokenAdvantages::Sequences,
        });
        let (log_probs, entropy) = (tokens.log_probs(), tokens.entropy());
        TokenInputs { log_probs, old, reference, entropy, advantages }
    }

    fn reference_sums(
        &self,
        backend: &dyn Backend,
        facts: &TokenFacts,
        tokens: Tokens<'_>,
        packing: &PlacedPacking,
    ) -> Result<Option<Buffer>> {
        let [_, log_probs, _] = facts.of(&self.batch);
        if let Some(log_probs) = log_probs {
            let [sums, ..] = sequence_sums(backend, tokens, packing, log_probs)?;
            return Ok(Some(sums));
        }
        let sums = self.batch.reference().and_then(ReferenceLogProbs::sums);
        sums.map(|(sums, _)| backend.upload(Slice::new(sums))).transpose()
    }
}

impl TokenFacts {
    fn new(backend: &dyn Backend, batch: &Batch<'_>) -> Result<Self> {
        let mut copies = [None, None, None];
        for (to, values) in copies.iter_mut().zip(token_facts(batch)) {
            *to = values.map(|values| copy(backend, values)).transpose()?.flatten();
        }
        Ok(Self(copies))
    }

    /// The copies, and where there are none the batch's own.
    fn of<'f>(&'f self, batch: &'f Batch<'_>) -> [Option<Slice<'f>>; 3] {
        let own = token_facts(batch);
        std::array::from_fn(|i| self.0[i].as_ref().map(Buffer::slice).or(own[i]))
    }
}

/// Old and reference log-probs per token, and advantages.
fn token_facts<'f>(batch: &'f Batch<'_>) -> [Option<Slice<'f>>; 3] {
    let log_probs = [batch.old(), batch.reference()];
    let [old, reference] = log_probs.map(|values| values.and_then(ReferenceLogProbs::tokens));
    [old, reference, batch.advantages().map(Advantages::slice)]
}

/// What `run` came to, unless another call took an error that may have been its own.
///
/// # Errors
/// Those of `run`; [`Error::ErrorTaken`].
fn untaken<T>(backend: &dyn Backend, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let errors_taken = backend.errors_taken();
    let result = run()?;
    if backend.errors_taken() == errors_taken { Ok(result) } else { Err(Error::ErrorTaken) }
}

/// Terms over one batch, checked together.
///
/// # Errors
/// No terms, or one that does not fit the batch.
pub(crate) fn resolve(
    batch: &Batch<'_>,
    terms: impl IntoIterator<Item = Term>,
) -> Result<Vec<Resolved>> {
    let terms = terms.into_iter().map(|term| term.resolve(batch)).collect::<Result<Vec<_>>>()?;
    if terms.is_empty() {
        return Err(Error::NoTerms);
    }
    check_inputs(&terms, batch)?;
    Ok(terms)
}

fn sequence_sums(
    backend: &dyn Backend,
    tokens: Tokens<'_>,
    packing: &PlacedPacking,
    log_probs: Slice<'_>,
) -> Result<[Buffer; 3]> {
    let allocate = || backend.allocate(DType::F64, packing.packing().sequences());
    let mut totals = [allocate()?, allocate()?, allocate()?];
    let [sums, counts, weights] = totals.each_mut().map(Buffer::slice_mut);
    let outputs = TotalsMut { sums, tokens: counts, weights };
    backend.sequence_sums(SequenceSums::new(backend, log_probs, tokens, packing, outputs)?)?;
    Ok(totals)
}

impl Forward {
    /// The loss: the sum of the terms' values.
    pub fn loss(&self) -> f64 {
        self.evaluated.loss()
    }

    /// What each term came to, in order.
    pub fn terms(&self) -> &[TermValue] {
        self.evaluated.values()
    }

    /// What trainers log, from the first term over pairs, if there is one.
    pub fn metrics(&self) -> Option<PairMetrics> {
        self.evaluated.pair_metrics()
    }

    /// What trainers log, from the first term over single sequences, if there is one.
    pub fn sequence_metrics(&self) -> Option<SequenceMetrics> {
        self.evaluated.sequence_metrics()
    }

    /// Log-probs, entropies and argmax of the tokens.
    pub fn tokens(&self) -> &TokenLogProbs {
        &self.tokens
    }

    /// `[sequences]` f64 sums of weight times log-prob, counted tokens, and sums of their weights.
    pub fn totals(&self) -> Totals<'_> {
        self.evaluated.totals()
    }

    /// `[sequences]` f64 sums of weight times reference log-prob, if the batch has a reference.
    pub fn reference_sums(&self) -> Option<Slice<'_>> {
        self.evaluated.reference()
    }
}
