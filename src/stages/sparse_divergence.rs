use super::divergence::{
    DivergenceOutputs, Measure, StudentTarget, TokenDivergence, check_student,
};
use super::{BackendId, Tokens, check_scratch, check_temperature};
use crate::backend::Backend;
use crate::batch::same_length;
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Slice, SliceMut};

/// The most entries of a teacher's distribution that are listed for a token; MOST_ENTRIES in
/// kernels/sparse_divergence.cu.
pub(crate) const MOST_ENTRIES: usize = 1024;

/// What became of the probability that a sparse teacher does not list.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// Nothing: the listed probabilities are divided by their sum, all others are 0.
    Renormalised,
    /// It is one more entry, of probability 1 minus that sum (0 within its rounding), against the student's
    /// probability of everything that is not listed. Where the sum is above 1, or the whole vocabulary is
    /// listed, there is none, as for `Renormalised`.
    Bin,
}

/// `[tokens, k]` entries of the teacher's distributions, as files of offline teachers have them: the ids of
/// the most probable ones, and their log-probs at the teacher's temperature. `k` is 1 to 1024.
#[derive(Clone, Copy, Debug)]
pub struct SparseTeacher<'a> {
    pub(crate) ids: Slice<'a>,
    pub(crate) log_probs: Slice<'a>,
    pub(crate) entries: usize,
    pub(crate) remainder: Remainder,
}

/// A list of entries that is none. What a token that does not count lists is not looked at.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SparseTeacherError {
    /// More entries than the student's vocabulary has.
    #[error("entries of a sparse teacher: expected at most {vocab}, the vocabulary, got {got}")]
    Entries {
        /// Entries of the vocabulary.
        vocab: usize,
        /// Those that a token lists.
        got: usize,
    },
    /// An id that the student's vocabulary does not have.
    #[error("teacher's ids of token {token}: expected 0 to {}, got {got}", vocab - 1)]
    Outside {
        /// The first token with such an id.
        token: usize,
        /// Entries of the vocabulary.
        vocab: usize,
        /// Its first such id.
        got: i64,
    },
    /// A log-prob of no probability.
    #[error("teacher's log-probs of token {token}: expected at most 0, got {got}")]
    AboveZero {
        /// The first token with such a log-prob.
        token: usize,
        /// Its first such log-prob.
        got: f64,
    },
    /// An id that is listed twice for a token.
    #[error("teacher's ids of token {token}: expected each once, got {got} again")]
    Twice {
        /// The first such token.
        token: usize,
        /// The first such id.
        got: i64,
    },
}

impl<'a> SparseTeacher<'a> {
    /// `[tokens, k]` i64 ids and log-probs (natural logarithms) of any element type of the backend's logits,
    /// in host memory or in that of the backend that will read them.
    ///
    /// # Errors
    /// Lengths that differ or are not a multiple of `k`, ids that are not i64, log-probs that are, or a `k`
    /// outside 1 to 1024.
    pub fn new(
        ids: Slice<'a>,
        log_probs: Slice<'a>,
        k: usize,
        remainder: Remainder,
    ) -> Result<Self> {
        if ids.dtype() != DType::I64 {
            let (what, expected) = ("teacher's ids", "i64");
            return Err(Error::DataType { what, expected, got: ids.dtype() });
        }
        if log_probs.dtype() == DType::I64 {
            let (what, expected) = ("teacher's log-probs", "f16, bf16, f32 or f64");
            return Err(Error::DataType { what, expected, got: log_probs.dtype() });
        }
        if !(1..=MOST_ENTRIES).contains(&k) {
            let (what, expected) = ("entries of a sparse teacher", "a number from 1 to 1024");
            return Err(Error::Scalar { what, expected, got: k as f64 });
        }
        same_length("teacher's log-probs", ids.len(), log_probs.len())?;
        same_length("teacher's ids", ids.len().next_multiple_of(k), ids.len())?;
        Ok(Self { ids, log_probs, entries: k, remainder })
    }

    fn check(&self, backend: &dyn Backend, tokens: usize, vocab: usize) -> Result<()> {
        let place = backend.place();
        same_length("tokens of a sparse teacher", tokens, self.ids.len() / self.entries)?;
        if self.entries > vocab {
            return Err(SparseTeacherError::Entries { vocab, got: self.entries }.into());
        }
        if !backend.dtypes().contains(&self.log_probs.dtype()) {
            let double = backend.dtypes().contains(&DType::F64);
            let expected = if double { "f16, bf16, f32 or f64" } else { "f16, bf16 or f32" };
            let what = "teacher's log-probs";
            return Err(Error::DataType { what, expected, got: self.log_probs.dtype() });
        }
        place.check("teacher's ids", self.ids.place())?;
        place.check("teacher's log-probs", self.log_probs.place())
    }
}

/// The inputs and outputs of the divergence from a sparse teacher. The log-probs of the teacher are what they
/// are: only the student has a temperature.
#[derive(Debug)]
pub struct SparseDivergence<'a> {
    pub(crate) backend: BackendId,
    pub(crate) student: StudentTarget<'a>,
    pub(crate) teacher: SparseTeacher<'a>,
    pub(crate) measure: Measure,
    pub(crate) temperature: f64,
    pub(crate) tokens: Tokens<'a>,
    pub(crate) outputs: DivergenceOutputs<'a>,
    pub(crate) upstream: Option<Slice<'a>>,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "devices alone need any"))]
    pub(crate) scratch: SliceMut<'a>,
}

impl<'a> SparseDivergence<'a> {
    /// As [`Divergence::new`](super::Divergence::new), from a sparse teacher; the teacher's entropies are those
    /// of its entries, the remainder among them.
    ///
    /// # Errors
    /// Those of [`Divergence::new`](super::Divergence::new), an expected advantage, more entries than the
    /// student has, or log-probs of a type that the backend does not take.
    pub fn new(
        backend: &dyn Backend,
        (student, teacher): (StudentTarget<'a>, SparseTeacher<'a>),
        (divergence, temperature): (TokenDivergence, f64),
        tokens: Tokens<'a>,
        (outputs, upstream): (DivergenceOutputs<'a>, Option<Slice<'a>>),
        scratch: SliceMut<'a>,
    ) -> Result<Self> {
        let [count, vocab] = student.logits().shape().size();
        check_student(backend, &student, tokens, (&outputs, upstream))?;
        teacher.check(backend, count, vocab)?;
        check_temperature("temperature of the student", temperature)?;
        let measure = divergence.measure()?;
        if matches!(measure, Measure::Advantage { .. }) {
            let (objective, expected) = ("an expected advantage", "logits of the whole vocabulary");
            return Err(Error::Selection { objective, expected, got: "a sparse teacher" });
        }
        let needed = backend.sparse_divergence_scratch(count, vocab);
        check_scratch(backend.place(), "scratch of sparse_divergence", needed, &scratch)?;
        let backend = BackendId::of(backend);
        Ok(Self {
            backend,
            student,
            teacher,
            measure,
            temperature,
            tokens,
            outputs,
            upstream,
            scratch,
        })
    }
}

impl SparseTeacher<'_> {
    /// `seen` is false for each entry of the vocabulary, and is so again afterwards.
    ///
    /// # Errors
    /// An id outside the vocabulary or listed twice, or a log-prob above 0, of a token that counts.
    pub(crate) fn check_entries(&self, ids: &[i64], token: usize, seen: &mut [bool]) -> Result<()> {
        let vocab = seen.len();
        let entries = token * self.entries..(token + 1) * self.entries;
        let ids = &ids[entries.clone()];
        let outside = |&id: &i64| usize::try_from(id).map_or(true, |id| id >= vocab);
        if let Some(&got) = ids.iter().find(|id| outside(id)) {
            return Err(SparseTeacherError::Outside { token, vocab, got }.into());
        }
        if let Some(got) = entries.map(|at| self.log_probs.get(at)).find(|&log_p| log_p > 0.0) {
            return Err(SparseTeacherError::AboveZero { token, got }.into());
        }
        let again = ids.iter().find(|&&id| std::mem::replace(&mut seen[id as usize], true));
        ids.iter().for_each(|&id| seen[id as usize] = false);
        match again {
            Some(&got) => Err(SparseTeacherError::Twice { token, got }.into()),
            None => Ok(()),
        }
    }

    /// Whether the listed probabilities are divided by their sum, whatever that is.
    pub(crate) fn leaves_nothing(&self, vocab: usize) -> bool {
        self.remainder == Remainder::Renormalised || self.entries == vocab
    }

    /// Makes the log-probs of a token's entries those of a distribution, and returns the logarithm of what
    /// is left for all others.
    pub(crate) fn normalise(&self, log_probs: &mut [f64], vocab: usize) -> f64 {
        if !self.leaves_nothing(vocab) {
            let left = 1.0 - log_probs.iter().map(|log_p| log_p.exp()).sum::<f64>();
            // Half an ulp of each addition, and of each of the logarithms.
            let rounding = 4.0 * f64::EPSILON * log_probs.len() as f64;
            if left > rounding {
                return left.ln();
            }
            if left >= 0.0 {
                return f64::NEG_INFINITY;
            }
        }
        let maximum = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = log_probs.iter().map(|log_p| (log_p - maximum).exp()).sum();
        log_probs.iter_mut().for_each(|log_p| *log_p = (*log_p - maximum) - sum.ln());
        f64::NEG_INFINITY
    }
}
