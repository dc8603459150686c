//! Losses of one number for each sequence: a reward, or a sum of log-probs that is known already.

use crate::backend::Backend;
use crate::batch::{Batch, check_sequences, same_length};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::evaluated::{Evaluated, TermValue, Upstream};
use crate::memory::Slice;
use crate::metrics::{PairMetrics, SequenceMetrics};
use crate::objectives::Domain;
use crate::placed::numbers;
use crate::resolved::{Resolved, resolve};
use crate::stages::check_floats;
use crate::term::Term;

/// How many tokens of a sequence count.
const COUNT: Domain = Domain {
    expected: "a whole number from 0 to 2^53",
    contains: |count| count.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&count),
};

/// A loss of weighted terms over one number for each sequence, with its gradient by these: a reward
/// model's rewards, or sums of log-probs from elsewhere. Stage 3 by itself.
///
/// ```
/// use prefuse::batch::{Batch, Pairs};
/// use prefuse::objectives::BradleyTerry;
/// use prefuse::{Cpu, ScalarLoss, Slice, Term, Upstream};
///
/// let batch = Batch::of_sequences(4)?.with_pairs(Pairs::halves(2)?.with_margin(&[0.5, 0.0])?)?;
/// let loss = ScalarLoss::new(batch, [Term::reward_pairs(BradleyTerry::new())])?;
/// let rewards = [1.5_f32, 0.2, 0.3, 0.4]; // both chosen, then both rejected
/// let forward = loss.forward(&Cpu::new(), Slice::new(&rewards), None)?;
/// assert_eq!(forward.metrics().unwrap().rewards_accuracy, 0.5);
/// let grads = forward.grads(&Cpu::new(), Upstream::Loss(1.0))?;
/// assert!(grads[0] < 0.0 && grads[2] == -grads[0]);
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ScalarLoss<'a> {
    batch: Batch<'a>,
    terms: Vec<Resolved>,
}

/// What [`ScalarLoss::forward`] computed, and what the gradient needs again.
#[derive(Debug)]
pub struct ScalarForward {
    evaluated: Evaluated,
}

impl<'a> ScalarLoss<'a> {
    /// A loss of at least one term over a batch from [`Batch::of_sequences`]. Reference sums, if the
    /// objective wants them, are given by
    /// [`per_sequence`](crate::batch::ReferenceLogProbs::per_sequence).
    ///
    /// # Errors
    /// A batch with tokens, no terms, or a term that does not fit: as [`Loss::new`](crate::Loss::new).
    pub fn new(batch: Batch<'a>, terms: impl IntoIterator<Item = Term>) -> Result<Self> {
        batch.check(true)?;
        if batch.reference().is_some_and(|reference| reference.sums().is_none()) {
            let (expected, got) = ("reference sums per sequence", "log-probs per token");
            return Err(Error::BatchKind { expected, got });
        }
        let terms = resolve(&batch, terms)?;
        // A `Forward` has the sums all the same, a `ScalarForward` nothing of them.
        if batch.reference().is_some() && !terms.iter().any(Resolved::uses_reference) {
            return Err(Error::Unused { what: "reference sums" });
        }
        if let Some(term) = terms.iter().find(|term| term.is_over_tokens()) {
            return Err(Error::Missing { objective: term.name(), what: "tokens" });
        }
        Ok(Self { batch, terms })
    }

    /// The losses of `[sequences]` `values`, f32 or f64, in any memory that the backend reads;
    /// `tokens` are the sequences' counted tokens, i64, f32 or f64, 1 each where they are not given, for
    /// objectives and reductions that divide by them. Waits for the results.
    ///
    /// # Errors
    /// Other lengths or types, a count of tokens that is none, or the device's own errors.
    pub fn forward(
        &self,
        backend: &dyn Backend,
        values: Slice<'_>,
        tokens: Option<Slice<'_>>,
    ) -> Result<ScalarForward> {
        let sequences = self.batch.packing().sequences();
        check_floats("values", values.dtype())?;
        same_length("values", sequences, values.len())?;
        let tokens = match tokens {
            Some(tokens) => self.token_counts(tokens)?,
            None => vec![1.0; sequences],
        };
        let upload = |values: &[f64]| backend.upload(Slice::new(values));
        let policy = [upload(&values.to_vec()?)?, upload(&tokens)?, upload(&tokens)?];
        let sums = self.batch.reference().and_then(|reference| reference.sums());
        let reference = sums.map(|(sums, _)| upload(sums)).transpose()?;
        let terms = self.terms.iter().map(|term| term.place(backend, &self.batch));
        let terms = terms.collect::<Result<_>>()?;
        let evaluated = Evaluated::new(backend, terms, policy, reference, None)?;
        Ok(ScalarForward { evaluated })
    }

    fn token_counts(&self, tokens: Slice<'_>) -> Result<Vec<f64>> {
        let (what, got) = ("token counts", tokens.dtype());
        if !matches!(got, DType::I64 | DType::F32 | DType::F64) {
            return Err(Error::DataType { what, expected: "i64, f32 or f64", got });
        }
        same_length(what, self.batch.packing().sequences(), tokens.len())?;
        let tokens = tokens.to_vec()?;
        check_sequences("token count", &tokens, COUNT)?;
        Ok(tokens)
    }
}

impl ScalarForward {
    /// The loss: the sum of the terms' values.
    pub fn loss(&self) -> f64 {
        self.evaluated.loss()
    }

    /// `[sequences]` gradients by the values of the forward call, on its backend; waits for them.
    ///
    /// # Errors
    /// An upstream gradient of another shape or beyond the range of f32, another backend, or the
    /// device's own errors.
    pub fn grads(&self, backend: &dyn Backend, upstream: Upstream<'_>) -> Result<Vec<f64>> {
        let scales = self.evaluated.scales(backend, upstream)?;
        numbers(&self.evaluated.grads(backend, &scales)?)
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
}
