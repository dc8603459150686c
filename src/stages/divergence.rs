use super::logit_grads::{MaskedRows, Target, check_target};
use super::{
    BackendId, Tokens, check_logits, check_logits_type, check_scratch, check_temperature,
    same_values,
};
use crate::backend::Backend;
use crate::batch::{Combination, Logits, LogitsMut, same_length};
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Place, Slice, SliceMut};

/// How far a student's distribution q lies from its teacher's p at a token, summed over the vocabulary.
///
/// `0 log 0` is 0. A divergence is infinite where its formula is: the reverse KL where the student gives a
/// probability to what the teacher's logits of -inf exclude, the forward KL the other way round. The gradient
/// of such a row is NaN, but for a forward KL's, which stays `q - p`. Beside a logit of -inf, a probability
/// below 2^-126 is 0, so that masks of -inf and of a type's lowest number agree; the fast backends compare it
/// with the row's largest.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenDivergence {
    /// `KL(p || q)`: the student covers all that the teacher does (Hinton et al., 2015).
    ForwardKl,
    /// `KL(q || p)`: the student keeps to what is probable for the teacher (MiniLLM, Gu et al., 2024).
    ReverseKl,
    /// `(1 - reverse) KL(p || q) + reverse KL(q || p)`, as torchtune's `SymmetricKLLoss` has it.
    SymmetricKl {
        /// Share of the reverse KL, 0 to 1; 1 minus torchtune's `sym_kd_ratio`, whose default is 0.5.
        reverse: f64,
    },
    /// `beta KL(p || m) + (1 - beta) KL(q || m)` with `m = beta p + (1 - beta) q`; as GKD (Agarwal et al.,
    /// 2024, eq. 1) and its implementations have it, 0 stands for `KL(p || q)` and 1 for `KL(q || p)`,
    /// although the formula goes to 0 there.
    JensenShannon {
        /// The teacher's part in the mixture, 0 to 1; GKD's default is 0.5.
        beta: f64,
    },
    /// `KL(p || alpha p + (1 - alpha) q)` (DistiLLM, Ko et al., 2024, eq. 4).
    SkewForwardKl {
        /// The teacher's part in the mixture, 0 to 1; the paper uses 0.1.
        alpha: f64,
    },
    /// `KL(q || (1 - alpha) p + alpha q)` (DistiLLM, Ko et al., 2024, eq. 5).
    SkewReverseKl {
        /// The student's part in the mixture, 0 to 1; the paper uses 0.1.
        alpha: f64,
    },
    /// `sum |p - q| / 2` (f-DISTILL's TVD, Wen et al., 2023); the gradient takes the sign of `q - p`, 0 where
    /// they are equal.
    TotalVariation,
    /// `-sum p log q`, the cross-entropy with soft targets (Hinton et al., 2015, whose eq. 2 is the gradient):
    /// the forward KL and the teacher's entropy, of the same gradient.
    SoftCrossEntropy,
    /// `-sum q A`, what the student expects of the advantage `A = beta sum_i c_i log p_i` of the teacher's
    /// logits, each normalised by itself: ADPA (Gao et al., 2025) has `beta (log p_dpo - log p_reference)`, of
    /// [`Teacher::combination`] with the coefficients 1 and -1. It may be negative.
    ExpectedAdvantage {
        /// Scale of the advantage, above 0.
        beta: f64,
        /// The advantage is held between these; the released code has 1e-8 and 1 - 1e-8, the paper no
        /// limits: `(f64::NEG_INFINITY, f64::INFINITY)`.
        clip: (f64, f64),
    },
}

/// `[tokens, vocab]` logits of what the student is to learn, of any element type that the backend takes.
///
/// Where the vocabularies differ, both distributions are over the columns that all have, the first ones:
/// columns of the teacher beyond the student's are not read, and those of the student beyond the teacher's
/// are as if they were masked. Their gradient is 0.
#[derive(Clone, Copy, Debug)]
pub struct Teacher<'a> {
    logits: Combination<'a>,
    adaptive: Option<Adaptive>,
}

/// How AlignDistil's coefficient follows from the total variation at a token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adaptive {
    /// `r * kappa`, by the sum of `|p - p'|`.
    pub ratio: f64,
    pub beta: f64,
}

impl Adaptive {
    /// What the coefficient is at least (AlignDistil's code).
    pub const LEAST: f64 = 1e-3;
}

impl<'a> Teacher<'a> {
    /// One model.
    pub fn new(logits: Logits<'a>) -> Self {
        Self { logits: Combination::one(logits), adaptive: None }
    }

    /// `sum_i c_i z_i` of 1 to 3 models: a mixture in the space of logits. Theorem 1 of AlignDistil has
    /// `b z_dpo + (1 - b) z_reference` with `b = beta_0 / beta`, its contrastive form `(1 + b) z_dpo - b
    /// z_reverse`.
    ///
    /// # Errors
    /// As [`Combination::new`]'s.
    pub fn combination(parts: &[(f64, Logits<'a>)]) -> Result<Self> {
        Ok(Self { logits: Combination::new(parts)?, adaptive: None })
    }

    /// AlignDistil (Zhang et al., 2025, eq. 15 to 19): `z_dpo + alpha (z_dpo - z_reverse)` with `alpha =
    /// ratio * D + 1e-3`, `D` the total variation between the two models at the token, and the divergence of
    /// the token times `beta / alpha`. `alpha` is a constant of the gradient and of temperature 1.
    ///
    /// The paper has the reverse KL, `beta` 0.1 and `ratio` 10 (15 for the policy's own samples).
    ///
    /// # Errors
    /// Logits of another shape, or a number that is not above 0.
    pub fn align_distil(
        dpo: Logits<'a>,
        reverse: Logits<'a>,
        (beta, ratio): (f64, f64),
    ) -> Result<Self> {
        for (what, got) in [("beta of AlignDistil", beta), ("ratio of AlignDistil", ratio)] {
            if !(got > 0.0 && got.is_finite()) {
                return Err(Error::Scalar { what, expected: "a finite number above 0", got });
            }
        }
        let adaptive = Some(Adaptive { ratio: 0.5 * ratio, beta });
        Ok(Self { adaptive, ..Self::combination(&[(1.0, dpo), (-1.0, reverse)])? })
    }

    /// The sum of `|p - p'|` for the total variation, twice the paper's, as the released code of AlignDistil
    /// has it. Changes nothing of other teachers.
    #[must_use]
    pub fn with_doubled_variation(mut self) -> Self {
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.ratio *= 2.0;
        }
        self
    }

    pub(crate) fn logits(&self) -> &Combination<'a> {
        &self.logits
    }

    pub(crate) fn parts(&self) -> &[(f64, Logits<'a>)] {
        self.logits.parts()
    }

    pub(crate) fn adaptive(&self) -> Option<Adaptive> {
        self.adaptive
    }

    fn check(&self, backend: &dyn Backend, tokens: usize) -> Result<()> {
        for (_, logits) in self.parts() {
            check_logits_type(backend, *logits)?;
            same_length("rows of teacher logits", tokens, logits.tokens())?;
            backend.place().check("teacher logits", logits.data().place())?;
        }
        Ok(())
    }
}

/// The student's logits, and where their gradient goes.
#[non_exhaustive]
#[derive(Debug)]
pub enum StudentTarget<'a> {
    /// No gradient is asked for.
    Values(Logits<'a>),
    /// The gradient is written; what becomes of the rows of tokens that do not count is said beside it.
    Written(Target<'a>, MaskedRows),
    /// The gradient is added to what another loss left: in f32, then rounded. Rows of tokens that do not
    /// count are left alone.
    Added {
        /// What to read.
        logits: Logits<'a>,
        /// What to add to, of the logits' shape and element type.
        grads: LogitsMut<'a>,
    },
}

impl StudentTarget<'_> {
    pub(crate) fn logits(&self) -> Logits<'_> {
        match self {
            Self::Values(logits) | Self::Added { logits, .. } => *logits,
            Self::Written(target, _) => target.logits(),
        }
    }

    fn check(&self, place: Place) -> Result<()> {
        match self {
            Self::Values(_) => Ok(()),
            Self::Written(target, _) => check_target(place, &target.logits(), target.grads()),
            Self::Added { logits, grads } => check_target(place, logits, Some(grads)),
        }
    }
}

/// The inputs and outputs of the stage: the divergence of each token, and the student's gradient, from the
/// logits of both.
#[derive(Debug)]
pub struct Divergence<'a> {
    pub(crate) backend: BackendId,
    pub(crate) student: StudentTarget<'a>,
    pub(crate) teacher: Teacher<'a>,
    pub(crate) measure: Measure,
    /// Of student and teacher.
    pub(crate) temperatures: [f64; 2],
    pub(crate) tokens: Tokens<'a>,
    /// The columns that all logits have.
    pub(crate) columns: usize,
    pub(crate) outputs: DivergenceOutputs<'a>,
    pub(crate) upstream: Option<Slice<'a>>,
    pub(crate) scratch: SliceMut<'a>,
}

/// `[tokens]` numbers, of the type that log-probs of the student's logits have. 0 at tokens that do not
/// count.
#[derive(Debug)]
pub struct DivergenceOutputs<'a> {
    /// Divergences; times AlignDistil's weight, where the teacher has one.
    pub values: SliceMut<'a>,
    /// Entropies of the student at its temperature, in nats.
    pub student_entropy: Option<SliceMut<'a>>,
    /// Entropies of the teacher at its temperature, in nats; not of an expected advantage, which has none.
    pub teacher_entropy: Option<SliceMut<'a>>,
}

/// The forms that the divergences come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Measure {
    /// `forward KL(p || q) + reverse KL(q || p)`, and `forward` times the teacher's entropy if `cross`.
    Kl { forward: f64, reverse: f64, cross: bool },
    /// `forward KL(p || m) + reverse KL(q || m)` with `m = teacher p + (1 - teacher) q`.
    Mixture { teacher: f64, forward: f64, reverse: f64 },
    /// `sum |p - q| / 2`.
    TotalVariation,
    /// `-sum q min(max(beta sum_i c_i log p_i, low), high)`.
    Advantage { beta: f64, low: f64, high: f64 },
}

impl Measure {
    /// A mixture that is one of the two has the divergence from the other alone.
    pub(crate) fn without_ends(self) -> Self {
        let kl = |forward, reverse| Self::Kl { forward, reverse, cross: false };
        match self {
            Self::Mixture { teacher: 0.0, forward, .. } => kl(forward, 0.0),
            Self::Mixture { teacher: 1.0, reverse, .. } => kl(0.0, reverse),
            measure => measure,
        }
    }

    /// Parts of teacher and student in a mixture, as f32 whose sum rounds to 1: the smaller one rounds, the
    /// other is what it leaves. Below the least normal number the smaller of p and q would be 0 before its
    /// part matters.
    pub(crate) fn parts(teacher: f64) -> [f32; 2] {
        let student = 1.0 - teacher;
        let smaller = (teacher.min(student) as f32).max(f32::MIN_POSITIVE);
        if teacher < student { [smaller, 1.0 - smaller] } else { [1.0 - smaller, smaller] }
    }
}

impl TokenDivergence {
    /// # Errors
    /// A parameter outside its domain.
    pub(crate) fn measure(self) -> Result<Measure> {
        let share = |what, got: f64| match (0.0..=1.0).contains(&got) {
            true => Ok(got),
            false => Err(Error::Scalar { what, expected: "a number from 0 to 1", got }),
        };
        let kl = |reverse: f64| Measure::Kl { forward: 1.0 - reverse, reverse, cross: false };
        let mixture =
            |teacher, [forward, reverse]: [f64; 2]| Measure::Mixture { teacher, forward, reverse };
        Ok(match self {
            Self::ForwardKl => kl(0.0),
            Self::ReverseKl => kl(1.0),
            Self::SymmetricKl { reverse } => kl(share("share of the reverse KL", reverse)?),
            Self::JensenShannon { beta } => {
                match share("beta of a Jensen-Shannon divergence", beta)? {
                    end @ (0.0 | 1.0) => kl(end),
                    beta => mixture(beta, [beta, 1.0 - beta]),
                }
            }
            Self::SkewForwardKl { alpha } => {
                mixture(share("alpha of a skew KL", alpha)?, [1.0, 0.0])
            }
            Self::SkewReverseKl { alpha } => {
                mixture(1.0 - share("alpha of a skew KL", alpha)?, [0.0, 1.0])
            }
            Self::TotalVariation => Measure::TotalVariation,
            Self::SoftCrossEntropy => Measure::Kl { forward: 1.0, reverse: 0.0, cross: true },
            Self::ExpectedAdvantage { beta, clip: (low, high) } => {
                if !(beta > 0.0 && beta.is_finite()) {
                    let (what, expected) = ("beta of an advantage", "a finite number above 0");
                    return Err(Error::Scalar { what, expected, got: beta });
                }
                if low.is_nan() || high.is_nan() || low > high {
                    let (what, expected) =
                        ("upper limit of an advantage", "at least the lower one");
                    return Err(Error::Scalar { what, expected, got: high });
                }
                Measure::Advantage { beta, low, high }
            }
        })
    }
}

impl<'a> Divergence<'a> {
    /// The divergence of each token that counts; `temperatures` are those of the student and of the teacher,
    /// which divide the logits, and `upstream` the `[tokens]` gradient of a loss by the values, for a target
    /// that asks for a gradient. Labels say which tokens count and nothing else.
    ///
    /// # Errors
    /// A shape or type that does not fit, a gradient without an upstream or the reverse, a parameter outside
    /// its domain, a temperature outside 1e-30 to 1e30, an expected advantage of AlignDistil's teacher or
    /// the teacher's entropy of one, or too little scratch.
    pub fn new(
        backend: &dyn Backend,
        (student, teacher): (StudentTarget<'a>, Teacher<'a>),
        (divergence, temperatures): (TokenDivergence, [f64; 2]),
        tokens: Tokens<'a>,
        (outputs, upstream): (DivergenceOutputs<'a>, Option<Slice<'a>>),
        scratch: SliceMut<'a>,
    ) -> Result<Self> {
        let logits = student.logits();
        check_student(backend, &student, tokens, (&outputs, upstream))?;
        teacher.check(backend, tokens.count())?;
        check_temperature("temperature of the student", temperatures[0])?;
        check_temperature("temperature of the teacher", temperatures[1])?;
        let measure = divergence.measure()?;
        if matches!(measure, Measure::Advantage { .. }) {
            let objective = "an expected advantage";
            if teacher.adaptive.is_some() {
                let (expected, got) = ("a combination of logits", "AlignDistil's teacher");
                return Err(Error::Selection { objective, expected, got });
            }
            if outputs.teacher_entropy.is_some() {
                let (expected, got) = ("the student's entropy alone", "the teacher's");
                return Err(Error::Selection { objective, expected, got });
            }
        }
        let needed = backend.divergence_scratch(tokens.count(), logits.vocab());
        check_scratch(backend.place(), "scratch of divergence", needed, &scratch)?;
        let columns = teacher.parts().iter().map(|(_, logits)| logits.vocab());
        let columns = columns.fold(logits.vocab(), usize::min);
        let backend = BackendId::of(backend);
        Ok(Self {
            backend,
            student,
            teacher,
            measure,
            temperatures,
            tokens,
            columns,
            outputs,
            upstream,
            scratch,
        })
    }
}

/// What every teacher's stage asks of the student.
pub(super) fn check_student(
    backend: &dyn Backend,
    student: &StudentTarget<'_>,
    tokens: Tokens<'_>,
    (outputs, upstream): (&DivergenceOutputs<'_>, Option<Slice<'_>>),
) -> Result<()> {
    let (place, logits) = (backend.place(), student.logits());
    check_logits(backend, logits, tokens)?;
    student.check(place)?;
    let (count, dtype) = (tokens.count(), logits.dtype().per_token());
    outputs.check(place, dtype, count)?;
    let what = "upstream gradient by divergences";
    match (student, upstream) {
        (StudentTarget::Values(_), None) => Ok(()),
        (StudentTarget::Values(_), Some(_)) => {
            let (expected, got) = ("a target that takes a gradient", "StudentTarget::Values");
            Err(Error::Selection { objective: what, expected, got })
        }
        (_, Some(upstream)) => same_values(place, what, upstream, dtype, count),
        (_, None) => {
            let (objective, got) = ("a target that takes a gradient", "none");
            Err(Error::Selection { objective, expected: what, got })
        }
    }
}

impl DivergenceOutputs<'_> {
    fn check(&self, place: Place, dtype: DType, count: usize) -> Result<()> {
        same_values(place, "divergences", self.values.as_slice(), dtype, count)?;
        if let Some(entropy) = &self.student_entropy {
            same_values(place, "student entropy", entropy.as_slice(), dtype, count)?;
        }
        if let Some(entropy) = &self.teacher_entropy {
            same_values(place, "teacher entropy", entropy.as_slice(), dtype, count)?;
        }
        Ok(())
    }

    /// Which entropies are asked for, of student and teacher.
    pub(crate) fn entropies(&self) -> [bool; 2] {
        [self.student_entropy.is_some(), self.teacher_entropy.is_some()]
    }

    /// Stores a token's divergence and the entropies of student and teacher.
    pub(crate) fn set(&mut self, token: usize, [value, student, teacher]: [f64; 3]) {
        self.values.set(token, value);
        if let Some(entropy) = &mut self.student_entropy {
            entropy.set(token, student);
        }
        if let Some(entropy) = &mut self.teacher_entropy {
            entropy.set(token, teacher);
        }
    }
}
