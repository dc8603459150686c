//! The stages in order: a loss of weighted terms, and its gradient by the logits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backend::Backend;
use crate::batch::{Batch, Logits, LogitsMut, ReferenceLogProbs};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::evaluated::{Evaluated, Scales, TokenSide, Upstream};
use crate::forward::{Forward, TokenFacts};
use crate::memory::{Buffer, Slice};
use crate::placed::{PlacedPacking, PlacedTerm, numbers};
use crate::resolved::{Resolved, check_advantages, resolve};
use crate::stages::{
    MaskedRows, SampledTokens, SequenceSums, Target, TokenAdvantages, TokenGrads, TokenInputs,
    TokenLoss, TokenLossOutputs, TokenObjectiveGrads, TokenUpstream, Tokens, TotalsMut, UnitScale,
    check_logits,
};
use crate::term::Term;
use crate::token_log_probs::{RowOptions, TokenCopies, TokenLogProbs};
use crate::token_metrics::TokenMetrics;

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
    /// Where the caller said what to ask of each row.
    rows: Option<RowOptions>,
}

/// What the stages read of a batch and its terms, where a backend reaches it.
#[derive(Debug)]
struct PlacedBatch {
    facts: TokenFacts,
    packing: PlacedPacking,
    terms: Vec<PlacedTerm>,
}

impl<'a> Loss<'a> {
    /// A loss of at least one term.
    ///
    /// # Errors
    /// No terms; a parameter, weight or divisor outside its domain; an input that the batch lacks; a term
    /// over rewards; a number given for each pair that a term over pairs does not use, or that no term is
    /// there to use; or an advantage in host memory of a token that counts that is not finite.
    pub fn new(batch: Batch<'a>, terms: impl IntoIterator<Item = Term>) -> Result<Self> {
        batch.check(false)?;
        check_advantages(&batch)?;
        let terms = resolve(&batch, terms)?;
        if let Some(term) = terms.iter().find(|term| term.is_over_rewards()) {
            let (expected, got) = ("a ScalarLoss, whose values are rewards", "a Loss on logits");
            return Err(Error::Selection { objective: term.name(), expected, got });
        }
        static LOSSES: AtomicUsize = AtomicUsize::new(0);
        let id = LOSSES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, batch, terms, rows: None })
    }

    /// What to compute from each row of logits: temperature, entropies, argmax.
    #[must_use]
    pub fn with_rows(mut self, rows: RowOptions) -> Self {
        self.rows = Some(rows);
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
        untaken(backend, || {
            let copies = TokenCopies::new(backend, labels, weights)?;
            let tokens = copies.tokens(labels, weights)?;
            let tokens = TokenLogProbs::compute(backend, logits, tokens, self.row_options())?;
            self.compare(backend, copies, self.place(backend)?, tokens.into())
        })
    }

    /// Stages 1 to 4: the loss, and the gradient by the logits, with the bits of [`forward`](Self::forward)
    /// and [`logit_grads`](Self::logit_grads).
    ///
    /// A loss of terms over tokens that look at each token by itself (PPO's clip, CISPO, SAPO, REINFORCE, KL
    /// penalties, the entropy bonus; not the ratios of whole sequences) has its gradient in one visit of
    /// the logits, where a row fits on chip: they are read once and written once. On a device it waits for
    /// the results.
    ///
    /// ```
    /// use prefuse::batch::{Advantages, Batch, Labels, LogitsMut, Packing, ReferenceLogProbs};
    /// use prefuse::objectives::{KlPenalty, PpoClip};
    /// use prefuse::{Cpu, Loss, MaskedRows, Sequences, Target, Term, Upstream};
    ///
    /// let batch = Batch::new(Labels::new(&[1, 0, 2, 2]), Packing::new(&[0, 2, 4])?)?
    ///     .with_old(ReferenceLogProbs::per_token(&[-1.0, -1.2, -0.9, -1.1]))?
    ///     .with_reference(ReferenceLogProbs::per_token(&[-1.1, -1.0, -0.8, -1.3]))?
    ///     .with_advantages(Advantages::per_sequence(&[1.0, -1.0])?)?;
    /// let loss = Loss::new(batch, [
    ///     Term::tokens(PpoClip::new(0.2, 0.28), Sequences::All),
    ///     Term::tokens(KlPenalty::new(), Sequences::All).with_weight(0.04),
    /// ])?;
    /// let mut data = [0.1_f32, 0.7, 0.2, 0.9, 0.3, 0.0, 0.5, 0.1, 0.8, 0.2, 0.4, 0.6];
    /// let target = Target::InPlace(LogitsMut::new(&mut data, 4, 3)?);
    /// let forward =
    ///     loss.forward_with_logit_grads(&Cpu::new(), target, Upstream::Loss(1.0), MaskedRows::Zero)?;
    /// assert!(forward.loss().is_finite());
    /// assert!(data[..3].iter().sum::<f32>().abs() < 1e-6);
    /// # Ok::<(), prefuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the two. After an error of the device's own, or [`ErrorTaken`](Error::ErrorTaken), the
    /// gradient may stand where the logits were.
    pub fn forward_with_logit_grads(
        &self,
        backend: &dyn Backend,
        target: Target<'_>,
        upstream: Upstream<'_>,
        masked: MaskedRows,
    ) -> Result<Forward> {
        let overwritten = matches!(target, Target::InPlace(_));
        let forward = if self.terms.iter().all(Resolved::is_over_single_tokens) {
            untaken(backend, || self.visit_once(backend, target, upstream, masked))?
        } else {
            let forward = self.forward(backend, target.logits())?;
            self.backward(backend, &forward, target, upstream, masked)?;
            forward
        };
        Ok(Forward { overwritten, ..forward })
    }

    fn visit_once(
        &self,
        backend: &dyn Backend,
        target: Target<'_>,
        upstream: Upstream<'_>,
        masked: MaskedRows,
    ) -> Result<Forward> {
        let (labels, weights) = (self.batch.labels(), self.batch.weights());
        let copies = TokenCopies::new(backend, labels, weights)?;
        let tokens = copies.tokens(labels, weights)?;
        let placed = self.place(backend)?;
        let logits = target.logits();
        check_logits(backend, logits, tokens)?;
        let placed_scales = Scales::new(backend, upstream, self.terms.iter())?;
        let scales: Vec<UnitScale<'_>> = placed_scales.iter().collect();
        let mut log_probs = TokenLogProbs::allocate(backend, logits, self.row_options())?;
        // Of log-probs that are still 0 the counts are right, which the normalisers ask for.
        let [_, counts, _] =
            sequence_sums(backend, tokens, &placed.packing, log_probs.log_probs())?;
        let [old, reference, advantages] = placed.facts.of(&self.batch);
        let advantages = advantages.map(self.token_advantages());
        let dtype = logits.dtype().per_token();
        let mut by_log_prob = backend.allocate(dtype, tokens.count())?;
        let mut by_entropy = match self.uses_entropy() {
            true => Some(backend.allocate(dtype, tokens.count())?),
            false => None,
        };
        let needed = backend.token_loss_scratch(logits.tokens(), logits.vocab(), &placed.terms);
        let mut scratch = backend.allocate(DType::F64, needed)?;
        backend.token_loss(TokenLoss::new(
            backend,
            (target, masked, self.row_options().temperature()),
            (tokens, &placed.packing),
            (&placed.terms, &scales),
            (SampledTokens { old, reference, advantages }, counts.slice()),
            TokenLossOutputs {
                rows: log_probs.outputs(),
                grads: TokenObjectiveGrads {
                    log_probs: by_log_prob.slice_mut(),
                    entropy: by_entropy.as_mut().map(Buffer::slice_mut),
                },
            },
            scratch.slice_mut(),
        )?)?;
        self.compare(backend, copies, placed, log_probs.into())
    }

    fn uses_entropy(&self) -> bool {
        self.terms.iter().any(|term| term.inputs_used().entropy)
    }

    fn row_options(&self) -> RowOptions {
        let rows = self.rows.unwrap_or_default();
        if self.uses_entropy() { rows.with_entropy() } else { rows }
    }

    /// Stages 2 and 3, over the log-probs that [`token_log_probs`](crate::token_log_probs) computed from
    /// these labels: for batches whose weights, labels or pairs follow from the log-probs themselves, such
    /// as those of WPO, AOT, Nash-MD or of KTO's baseline (see [`statistics`](crate::statistics)). The
    /// logits are read once all the same. Log-probs in an [`Arc`] stay the caller's too.
    ///
    /// Tokens that did not count when the log-probs were computed may not count here; others may be
    /// masked. The log-probs have the temperature and whatever else [`with_rows`](Self::with_rows) asks for,
    /// where it was called.
    ///
    /// # Errors
    /// Log-probs of other labels, where both are in host memory; a token that did not count; other row
    /// options, or no entropies for a term that looks at them; the device's own errors.
    pub fn evaluate(
        &self,
        backend: &dyn Backend,
        tokens: impl Into<Arc<TokenLogProbs>>,
    ) -> Result<Forward> {
        let tokens = tokens.into();
        let (labels, weights) = (self.batch.labels(), self.batch.weights());
        tokens.check_tokens(labels, weights)?;
        if let Some(rows) = self.rows {
            tokens.check_options(rows)?;
        }
        let uses_entropy = |term: &&Resolved| term.inputs_used().entropy;
        if let Some(term) = self.terms.iter().find(uses_entropy)
            && tokens.entropy().is_none()
        {
            let expected = "log-probs computed with RowOptions::with_entropy";
            let (objective, got) = (term.name(), "some without entropies");
            return Err(Error::Selection { objective, expected, got });
        }
        untaken(backend, || {
            let copies = TokenCopies::new(backend, labels, weights)?;
            self.compare(backend, copies, self.place(backend)?, tokens)
        })
    }

    fn place(&self, backend: &dyn Backend) -> Result<PlacedBatch> {
        let facts = TokenFacts::new(backend, &self.batch)?;
        let packing = self.batch.packing().place(backend)?;
        let terms = self.terms.iter().map(|term| term.place(backend, &self.batch));
        Ok(PlacedBatch { facts, packing, terms: terms.collect::<Result<_>>()? })
    }

    fn compare(
        &self,
        backend: &dyn Backend,
        copies: TokenCopies,
        placed: PlacedBatch,
        tokens: Arc<TokenLogProbs>,
    ) -> Result<Forward> {
        let batch = &self.batch;
        let PlacedBatch { facts, packing, terms } = placed;
        let counted = copies.tokens(batch.labels(), batch.weights())?;
        let policy = sequence_sums(backend, counted, &packing, tokens.log_probs())?;
        let reference = self.reference_sums(backend, &facts, counted, &packing)?;
        let inputs = self.token_inputs(&facts, &tokens);
        let side = TokenSide { tokens: counted, packing: &packing, inputs };
        let evaluated = Evaluated::new(backend, terms, policy, reference, Some(side))?;
        let loss_id = self.id;
        let overwritten = false;
        Ok(Forward { loss_id, copies, packing, tokens, facts, evaluated, overwritten })
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
        if forward.overwritten {
            return Err(Error::Overwritten);
        }
        let (grads, by_entropy) = self.token_grads(backend, forward, upstream)?;
        let by_entropy = by_entropy.as_ref().map(Buffer::slice).zip(forward.tokens.entropy());
        let upstream = TokenUpstream { log_probs: grads.slice(), entropy: by_entropy };
        let tokens = forward.copies.tokens(self.batch.labels(), self.batch.weights())?;
        forward.tokens.run_logit_grads(backend, target, tokens, upstream, masked)
    }

    /// The `[sequences]` gradient by each sum of log-probs, of the terms that look at these sums: for losses
    /// of which part goes another way, such as TDPO's ([`Distillation`](crate::Distillation)). Waits for the
    /// results.
    ///
    /// # Errors
    /// A result of another loss, an upstream gradient beyond the range of f32, or the device's own errors.
    pub fn sequence_grads(
        &self,
        backend: &dyn Backend,
        forward: &Forward,
        upstream: Upstream<'_>,
    ) -> Result<Vec<f64>> {
        if forward.loss_id != self.id {
            return Err(Error::OtherLoss);
        }
        let scales = forward.evaluated.scales(backend, upstream)?;
        numbers(&forward.evaluated.grads(backend, &scales)?)
    }

    /// What trainers of policy gradients log, if there are terms over tokens. The host computes it when
    /// asked, from O(tokens) numbers; on a device it waits for them.
    ///
    /// ```
    /// use prefuse::batch::{Advantages, Batch, Labels, Logits, Packing, ReferenceLogProbs};
    /// use prefuse::objectives::PpoClip;
    /// use prefuse::{Cpu, Loss, RowOptions, Sequences, Term};
    ///
    /// let batch = Batch::new(Labels::new(&[1, 0, 2]), Packing::new(&[0, 2, 3])?)?
    ///     .with_old(ReferenceLogProbs::per_token(&[-1.5, -1.0, -2.0]))?
    ///     .with_advantages(Advantages::per_sequence(&[1.0, -1.0])?)?;
    /// let loss = Loss::new(batch, [Term::tokens(PpoClip::new(0.2, 0.28), Sequences::All)])?
    ///     .with_rows(RowOptions::default().with_entropy());
    /// let logits = [0.1_f32, 0.7, 0.2, 0.9, 0.3, 0.0, 0.5, 0.1, 0.8]; // log-probs -0.8, -0.7, -0.8
    /// let forward = loss.forward(&Cpu::new(), Logits::new(&logits, 3, 3)?)?;
    /// let metrics = loss.token_metrics(&forward)?.unwrap();
    /// let clip = metrics.clip.unwrap();
    /// // The ratios of sequence 0 are above 1.28; sequence 1 is not clipped, its advantage is negative.
    /// assert_eq!((clip.high.token_mean, clip.low.token_mean), (2.0 / 3.0, 0.0));
    /// assert_eq!((clip.high.sequence_min, clip.high.sequence_max), (0.0, 1.0));
    /// assert!(metrics.kl_old < 0.0 && metrics.entropy.unwrap() > 1.0);
    /// # Ok::<(), prefuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// A result of another loss, or the device's own.
    pub fn token_metrics(&self, forward: &Forward) -> Result<Option<TokenMetrics>> {
        if forward.loss_id != self.id {
            return Err(Error::OtherLoss);
        }
        let tokens = &forward.tokens;
        TokenMetrics::new(&self.batch, &self.terms, tokens.log_probs(), tokens.entropy())
    }

    /// The `[tokens]` gradients by each token's log-prob, and by its entropy where a term looks at entropies:
    /// stage 3 for all terms, stage 2 backwards. For log-probs whose way back to the logits is somebody
    /// else's, such as a framework's autograd.
    ///
    /// # Errors
    /// A result of another loss, an upstream gradient beyond the range of f32, or the device's own errors.
    pub fn token_grads(
        &self,
        backend: &dyn Backend,
        forward: &Forward,
        upstream: Upstream<'_>,
    ) -> Result<(Buffer, Option<Buffer>)> {
        if forward.loss_id != self.id {
            return Err(Error::OtherLoss);
        }
        let tokens = forward.copies.tokens(self.batch.labels(), self.batch.weights())?;
        let dtype = forward.tokens.log_probs().dtype();
        let scales = forward.evaluated.scales(backend, upstream)?;
        let sequence_grads = forward.evaluated.grads(backend, &scales)?;
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
        forward.evaluated.token_grads(backend, &scales, side, (&mut grads, entropy.as_mut()))?;
        Ok((grads, entropy))
    }

    /// What the terms over tokens look at.
    fn token_inputs<'i>(
        &'i self,
        facts: &'i TokenFacts,
        tokens: &'i TokenLogProbs,
    ) -> TokenInputs<'i> {
        let [old, reference, advantages] = facts.of(&self.batch);
        let advantages = advantages.map(self.token_advantages());
        let (log_probs, entropy) = (tokens.log_probs(), tokens.entropy());
        TokenInputs { log_probs, old, reference, entropy, advantages }
    }

    fn token_advantages<'v>(&self) -> fn(Slice<'v>) -> TokenAdvantages<'v> {
        match self.batch.advantages() {
            Some(given) if given.is_per_token() => TokenAdvantages::Tokens,
            _ => TokenAdvantages::Sequences,
        }
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

/// What `run` came to, unless another call took an error that may have been its own.
///
/// # Errors
/// Those of `run`; [`Error::ErrorTaken`].
pub(crate) fn untaken<T>(backend: &dyn Backend, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let errors_taken = backend.errors_taken();
    let result = run()?;
    if backend.errors_taken() == errors_taken { Ok(result) } else { Err(Error::ErrorTaken) }
}

pub(crate) fn sequence_sums(
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
