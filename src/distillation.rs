//! A student's loss against the logits of a teacher, token by token.

use crate::backend::Backend;
use crate::batch::{Batch, Logits, same_length};
use crate::element::DType;
use crate::error::Result;
use crate::evaluated::check_factor;
use crate::memory::{Buffer, Slice};
use crate::objectives::scalar::product;
use crate::objectives::{Evaluation, Inputs, Objective, ParameterError, Reduction, Token};
use crate::pipeline::{sequence_sums, untaken};
use crate::placed::{PlacedPacking, numbers};
use crate::resolved::Resolved;
use crate::stages::{
    Divergence, DivergenceOutputs, SparseDivergence, SparseTeacher, StudentTarget, Teacher,
    TokenDivergence, TokenGrads, Tokens, divisor,
};
use crate::term::{Sequences, Term};
use crate::token_log_probs::TokenCopies;

/// Token-level distillation: a divergence of the student's distribution from the teacher's at each token
/// that counts, times the token's weight, under a reduction; and its gradient by the student's logits.
///
/// The labels of the batch say which tokens count, and nothing else. What each reduction divides by is what
/// it is for terms over tokens: [`Reduction::Mean`] and [`Reduction::TokenMean`] by the counted tokens (at
/// least 1), [`Reduction::SequenceMean`] each sequence by its own and the sum by their number.
///
/// ```
/// use prefuse::batch::{Batch, Labels, Logits, LogitsMut, Packing};
/// use prefuse::stages::{StudentTarget, Teacher, TokenDivergence};
/// use prefuse::{Cpu, Distillation, MaskedRows, Target};
///
/// let batch = Batch::new(Labels::new(&[1, 0, -100]), Packing::new(&[0, 3])?)?;
/// let distillation =
///     Distillation::new(batch, TokenDivergence::ForwardKl)?.with_temperatures(2.0, 2.0);
/// let teacher = [0.3_f32, 0.9, 0.1, 0.9, 0.2, 0.0, 0.0, 0.0, 0.0];
/// let teacher = Teacher::new(Logits::new(&teacher, 3, 3)?);
/// let mut student = [0.1_f32, 0.7, 0.2, 0.9, 0.3, 0.0, 0.5, 0.1, 0.8];
/// let target = Target::InPlace(LogitsMut::new(&mut student, 3, 3)?);
/// let found = distillation.forward_with_logit_grads(
///     &Cpu::new(),
///     StudentTarget::Written(target, MaskedRows::Zero),
///     &teacher,
///     1.0,
/// )?;
/// assert!(found.loss() > 0.0 && found.loss() < 0.1);
/// // Each row of `student` now holds a gradient.
/// assert!(student[..3].iter().sum::<f32>().abs() < 1e-6);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// TDPO's loss has a sum of forward KLs for each sequence beside its sum of log-probs, and both go back into
/// one gradient buffer:
///
/// ```
/// use prefuse::batch::{Batch, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs};
/// use prefuse::objectives::Tdpo2;
/// use prefuse::stages::{StudentTarget, Teacher, TokenDivergence};
/// use prefuse::{Cpu, Distillation, Loss, MaskedRows, Term, Upstream};
///
/// let (cpu, alpha) = (Cpu::new(), 0.5);
/// let batch = Batch::new(Labels::new(&[1, 0, 2, 2]), Packing::new(&[0, 2, 4])?)?;
/// let policy = [0.1_f32, 0.7, 0.2, 0.9, 0.3, 0.0, 0.5, 0.1, 0.8, 0.2, 0.4, 0.6];
/// let reference = [0.2_f32, 0.5, 0.2, 0.8, 0.4, 0.1, 0.5, 0.3, 0.7, 0.3, 0.4, 0.3];
/// let (logits, teacher) = (Logits::new(&policy, 4, 3)?, Teacher::new(Logits::new(&reference, 4, 3)?));
/// let kl = Distillation::new(batch.clone(), TokenDivergence::ForwardKl)?;
/// let sums = kl.forward(&cpu, logits, &teacher)?.sums().to_vec();
///
/// let batch = batch
///     .with_reference(ReferenceLogProbs::per_sequence(&[-1.9, -2.1]))?
///     .with_pairs(Pairs::new(vec![(0, 1)])?)?
///     .with_scores(sums)?;
/// let loss = Loss::new(batch, [Term::pairs(Tdpo2::new(0.1).with_alpha(alpha))])?;
/// let forward = loss.forward(&cpu, logits)?;
/// let mut grads = [0.0_f32; 12];
/// let to = LogitsMut::new(&mut grads, 4, 3)?;
/// loss.logit_grads(&cpu, &forward, (logits, to), Upstream::Loss(1.0), MaskedRows::Zero)?;
/// // The chosen response's KL is a constant; the rejected one is sequence 1.
/// let by_sums = loss.sequence_grads(&cpu, &forward, Upstream::Loss(1.0))?;
/// let to = StudentTarget::Added { logits, grads: LogitsMut::new(&mut grads, 4, 3)? };
/// kl.logit_grads(&cpu, to, &teacher, &[0.0, alpha * by_sums[1]])?;
/// assert!(grads[..3].iter().sum::<f32>().abs() < 1e-6);
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Distillation<'a> {
    batch: Batch<'a>,
    divergence: TokenDivergence,
    term: Term,
    temperatures: [f64; 2],
    squared: bool,
}

/// Either kind of teacher; a reference to one becomes it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub enum AnyTeacher<'a> {
    /// Logits over the vocabulary.
    Dense(Teacher<'a>),
    /// Some entries of each token's distribution, at the temperature that they were written with: the
    /// teacher's temperature does not enter, but for the factor `T^2`.
    Sparse(SparseTeacher<'a>),
}

impl<'a> From<&Teacher<'a>> for AnyTeacher<'a> {
    fn from(teacher: &Teacher<'a>) -> Self {
        Self::Dense(*teacher)
    }
}

impl<'a> From<&SparseTeacher<'a>> for AnyTeacher<'a> {
    fn from(teacher: &SparseTeacher<'a>) -> Self {
        Self::Sparse(*teacher)
    }
}

/// What a distillation came to.
#[derive(Debug)]
pub struct Distilled {
    loss: f64,
    sums: Vec<f64>,
    values: Buffer,
    student_entropy: Buffer,
    teacher_entropy: Option<Buffer>,
}

impl<'a> Distillation<'a> {
    /// Over all sequences; weight 1, mean over the counted tokens, temperatures 1.
    ///
    /// # Errors
    /// A parameter of the divergence outside its domain.
    pub fn new(batch: Batch<'a>, divergence: TokenDivergence) -> Result<Self> {
        divergence.measure()?;
        let term = Term::tokens(OfDivergences, Sequences::All);
        Ok(Self { batch, divergence, term, temperatures: [1.0; 2], squared: false })
    }

    /// The sequences to learn from, each once: DCKD takes a pair's chosen and rejected ones, which are all,
    /// AlignDistil the chosen ones.
    #[must_use]
    pub fn with_sequences(self, sequences: Sequences) -> Self {
        Self { term: self.term.with_sequences(sequences), ..self }
    }

    /// The factor of the loss; the weights that the batch has for its sequences are others.
    #[must_use]
    pub fn with_weight(self, weight: f64) -> Self {
        Self { term: self.term.with_weight(weight), ..self }
    }

    /// What divides the sum of the divergences.
    #[must_use]
    pub fn with_reduction(self, reduction: Reduction) -> Self {
        Self { term: self.term.with_reduction(reduction), ..self }
    }

    /// The temperatures that divide the logits of the student and of the teacher, checked when used.
    #[must_use]
    pub fn with_temperatures(self, student: f64, teacher: f64) -> Self {
        Self { temperatures: [student, teacher], ..self }
    }

    /// Also the factor `T^2`, the product of the temperatures, which keeps the gradient's size where a
    /// distillation is mixed with a loss on labels (Hinton et al., 2015); GKD and DistiLLM have none.
    #[must_use]
    pub fn with_squared_temperature(self) -> Self {
        Self { squared: true, ..self }
    }

    /// The batch.
    pub fn batch(&self) -> &Batch<'a> {
        &self.batch
    }

    /// The loss: one read of the logits of both. Of a device it waits for the results.
    ///
    /// # Errors
    /// Logits that do not fit the batch, the backend or one another; a label outside the vocabulary; a
    /// reduction, weight or temperature outside its domain; a selection that the batch does not have or that
    /// names a sequence twice; or the device's own errors.
    pub fn forward<'t>(
        &self,
        backend: &dyn Backend,
        student: Logits<'_>,
        teacher: impl Into<AnyTeacher<'t>>,
    ) -> Result<Distilled> {
        untaken(backend, || {
            self.visit(backend, StudentTarget::Values(student), teacher.into(), None)
        })
    }

    /// The loss and its gradient, times the gradient `upstream` of the caller's own loss by this one, in one
    /// visit of the rows. [`StudentTarget::Added`] adds it to what another loss left in the buffer.
    ///
    /// # Errors
    /// As [`forward`](Self::forward)'s, an upstream gradient beyond the range of f32, or a target without a
    /// gradient. After an error of the device's own, or [`ErrorTaken`](crate::Error::ErrorTaken), a gradient may stand
    /// in place of the logits, or be added to what the buffer held.
    pub fn forward_with_logit_grads<'t>(
        &self,
        backend: &dyn Backend,
        target: StudentTarget<'_>,
        teacher: impl Into<AnyTeacher<'t>>,
        upstream: f64,
    ) -> Result<Distilled> {
        untaken(backend, || self.visit(backend, target, teacher.into(), Some(By::Loss(upstream))))
    }

    /// The gradient of a loss of the caller's own by the student's logits, from its gradient by the sum of
    /// each sequence's divergences, which [`Distilled::sums`] are: TDPO goes back this way. Selection, weight,
    /// reduction and `T^2` do not enter; token weights and temperatures do.
    ///
    /// # Errors
    /// Another number of sequences, or as [`forward_with_logit_grads`](Self::forward_with_logit_grads)'s.
    pub fn logit_grads<'t>(
        &self,
        backend: &dyn Backend,
        target: StudentTarget<'_>,
        teacher: impl Into<AnyTeacher<'t>>,
        by_sums: &[f64],
    ) -> Result<()> {
        same_length("gradients by sequence", self.batch.packing().sequences(), by_sums.len())?;
        untaken(backend, || self.visit(backend, target, teacher.into(), Some(By::Sums(by_sums))))?;
        Ok(())
    }

    fn visit(
        &self,
        backend: &dyn Backend,
        target: StudentTarget<'_>,
        teacher: AnyTeacher<'_>,
        by: Option<By<'_>>,
    ) -> Result<Distilled> {
        let (labels, weights) = (self.batch.labels(), self.batch.weights());
        let copies = TokenCopies::new(backend, labels, weights)?;
        let tokens = copies.tokens(labels, weights)?;
        let packing = self.batch.packing().place(backend)?;
        let logits = target.logits();
        same_length("rows of logits", tokens.count(), logits.tokens())?;
        let dtype = logits.dtype().per_token();
        let allocate = || backend.allocate(dtype, tokens.count());
        let mut values = allocate()?;
        // Of values that are still 0 the counts are right, which the reduction asks for.
        let [_, counts, _] = sequence_sums(backend, tokens, &packing, values.slice())?;
        let (counts, term) = (numbers(&counts)?, self.resolve()?);
        let by_sums = by.map(|by| match by {
            By::Sums(by) => by.to_vec(),
            By::Loss(upstream) => factors(&term, upstream, &counts),
        });
        let upstream =
            by_sums.map(|by| spread(backend, tokens, &packing, &by, dtype)).transpose()?;
        let mut student_entropy = allocate()?;
        let mut teacher_entropy = match self.divergence {
            TokenDivergence::ExpectedAdvantage { .. } => None,
            _ => Some(allocate()?),
        };
        let outputs = DivergenceOutputs {
            values: values.slice_mut(),
            student_entropy: Some(student_entropy.slice_mut()),
            teacher_entropy: teacher_entropy.as_mut().map(Buffer::slice_mut),
        };
        let upstream = upstream.as_ref().map(Buffer::slice);
        self.run(backend, (target, teacher), tokens, (outputs, upstream))?;
        let [sums, ..] = sequence_sums(backend, tokens, &packing, values.slice())?;
        let sums = numbers(&sums)?;
        let of_unit = |unit: usize| product(term.unit_weight(unit), sums[term.member(unit, 0)]);
        let losses: Vec<f64> = (0..term.units()).map(of_unit).collect();
        let loss = term.token_value(&losses, &counts)?;
        Ok(Distilled { loss, sums, values, student_entropy, teacher_entropy })
    }

    fn run(
        &self,
        backend: &dyn Backend,
        (target, teacher): (StudentTarget<'_>, AnyTeacher<'_>),
        tokens: Tokens<'_>,
        outputs: (DivergenceOutputs<'_>, Option<Slice<'_>>),
    ) -> Result<()> {
        let [count, vocab] = target.logits().shape().size();
        let divergence = self.divergence;
        match teacher {
            AnyTeacher::Dense(teacher) => {
                let needed = backend.divergence_scratch(count, vocab);
                let mut scratch = backend.allocate(DType::F64, needed)?;
                let (kind, scratch) = ((divergence, self.temperatures), scratch.slice_mut());
                let both = (target, teacher);
                backend.divergence(Divergence::new(backend, both, kind, tokens, outputs, scratch)?)
            }
            AnyTeacher::Sparse(teacher) => {
                let needed = backend.sparse_divergence_scratch(count, vocab);
                let mut scratch = backend.allocate(DType::F64, needed)?;
                let kind = (divergence, self.temperatures[0]);
                let (both, scratch) = ((target, teacher), scratch.slice_mut());
                let stage = SparseDivergence::new(backend, both, kind, tokens, outputs, scratch)?;
                backend.sparse_divergence(stage)
            }
        }
    }

    fn resolve(&self) -> Result<Resolved> {
        let [student, teacher] = self.temperatures;
        let factor = if self.squared { student * teacher } else { 1.0 };
        self.term.clone().with_weight(factor * self.term.weight).resolve(&self.batch)
    }
}

/// The gradient of the loss, times `upstream`, by each sequence's sum of divergences.
fn factors(term: &Resolved, upstream: f64, counts: &[f64]) -> Vec<f64> {
    let members = || (0..term.units()).map(|unit| (unit, term.member(unit, 0)));
    let all: f64 = members().map(|(_, sequence)| counts[sequence]).sum();
    let mut factors = vec![0.0; counts.len()];
    for (unit, sequence) in members() {
        let weight = term.unit_weight(unit) * term.weight();
        factors[sequence] = upstream * weight / divisor(term, counts[sequence], all);
    }
    factors
}

/// Divergences in the place of log-probs, so that a distillation is reduced as terms over tokens are.
#[derive(Debug)]
struct OfDivergences;

impl Objective<Token> for OfDivergences {
    fn name(&self) -> &'static str {
        "distillation"
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![]
    }

    fn check(&self) -> Result<(), ParameterError> {
        Ok(())
    }

    fn inputs(&self) -> Inputs {
        Inputs::NONE
    }

    fn evaluate(&self, token: &Token) -> Evaluation<Token> {
        let mut evaluation = Evaluation::<Token>::default();
        (evaluation.loss, evaluation.grad.policy) = (token.policy, 1.0);
        evaluation
    }
}

/// What the gradient comes from.
#[derive(Clone, Copy)]
enum By<'a> {
    Loss(f64),
    Sums(&'a [f64]),
}

/// The gradient by each token's divergence, from that by each sequence's sum.
fn spread(
    backend: &dyn Backend,
    tokens: Tokens<'_>,
    packing: &PlacedPacking,
    by_sums: &[f64],
    dtype: DType,
) -> Result<Buffer> {
    let mut checked = by_sums.iter();
    checked
        .try_for_each(|&by| check_factor("upstream gradient by a sequence's divergences", by))?;
    let by_sums = backend.upload(Slice::new(by_sums))?;
    let mut by_tokens = backend.allocate(dtype, tokens.count())?;
    let (from, to) = (by_sums.slice(), by_tokens.slice_mut());
    backend.token_grads(TokenGrads::new(backend, from, tokens, packing, to)?)?;
    Ok(by_tokens)
}

impl Distilled {
    /// The loss.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// `[sequences]` sums of token weight times divergence.
    pub fn sums(&self) -> &[f64] {
        &self.sums
    }

    /// `[tokens]` divergences, f32 (f64 for f64 logits); 0 at tokens that do not count.
    pub fn values(&self) -> Slice<'_> {
        self.values.slice()
    }

    /// `[tokens]` entropies of the student at its temperature, in nats.
    pub fn student_entropy(&self) -> Slice<'_> {
        self.student_entropy.slice()
    }

    /// `[tokens]` entropies of the teacher at its temperature, in nats; none of an expected advantage.
    pub fn teacher_entropy(&self) -> Option<Slice<'_>> {
        self.teacher_entropy.as_ref().map(Buffer::slice)
    }
}
