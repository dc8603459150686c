//! The student's rows as the divergences visit them: read alone, in place of their gradient, or apart from
//! it.

use half::{bf16, f16};
use rayon::prelude::*;

use super::blocks::{Logit, Row, RowMut, Tensor};
use super::logit_grads::rows_mut;
use super::{DTYPES, rows_per_task};
use crate::batch::LogitsMut;
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::{Slice, SliceMut};
use crate::stages::{DivergenceOutputs, HostTokens, MaskedRows, StudentTarget, Target};

/// A token's divergence, and the entropies of student and teacher.
pub(super) type Results = [f64; 3];

pub(super) fn scratch(tokens: usize) -> usize {
    tokens.saturating_mul(size_of::<Results>() / size_of::<f64>())
}

/// A token's logits, and where their gradient goes.
pub(super) enum Student<'a> {
    Values(Row<'a>),
    InPlace(RowMut<'a>),
    Apart { logits: Row<'a>, grads: RowMut<'a>, add: bool },
}

impl<'a> Student<'a> {
    pub fn logits(&self) -> Row<'_> {
        match self {
            Self::Values(logits) | Self::Apart { logits, .. } => *logits,
            Self::InPlace(logits) => logits.view(),
        }
    }

    /// And whether the gradient is added to it.
    pub fn grads(&mut self) -> Option<(&mut RowMut<'a>, bool)> {
        match self {
            Self::Values(_) => None,
            Self::InPlace(grads) => Some((grads, false)),
            Self::Apart { grads, add, .. } => Some((grads, *add)),
        }
    }

    /// The gradient's memory, where it is not that of the logits.
    pub fn grads_apart(&self) -> Option<Row<'_>> {
        match self {
            Self::Apart { grads, .. } => Some(grads.view()),
            Self::Values(_) | Self::InPlace(_) => None,
        }
    }

    /// Sets the gradient from a column on, if it is not one that is added.
    pub fn set(&mut self, first: usize, value: f32) {
        if let Some((grads, false)) = self.grads() {
            grads.fill(first..grads.len(), value);
        }
    }

    /// Makes the gradient of some columns NaN. Computed, it could be a NaN of the logits, which no kernel that
    /// narrows may see.
    pub fn fail(&mut self, columns: usize) {
        if let Some((grads, _)) = self.grads() {
            grads.fill(0..columns, f32::NAN);
        }
    }
}

/// The tokens of a divergence.
pub(super) struct Tokens<'a> {
    pub backend: &'static str,
    pub tokens: HostTokens<'a>,
    /// Those of which there is a gradient; that of the others is 0.
    pub columns: usize,
    /// By each token's divergence.
    pub upstream: Option<Slice<'a>>,
}

/// What a thread takes from one token to its next.
pub(super) trait Carry: Send {
    fn start() -> Self;

    /// Whether the gradient of the last token is still to be written.
    fn is_behind(&self) -> bool;

    /// After the last token, which is given if it is behind.
    fn finish(self, behind: Option<&mut Student<'_>>);
}

/// Nothing.
impl Carry for () {
    fn start() {}

    fn is_behind(&self) -> bool {
        false
    }

    fn finish(self, _: Option<&mut Student<'_>>) {}
}

/// A token, the one before if it is behind, and the gradient by the token's divergence.
pub(super) struct Visited<'v, 'a> {
    pub token: usize,
    pub student: &'v mut Student<'a>,
    pub behind: Option<&'v mut Student<'a>>,
    pub upstream: f64,
}

struct Ahead<'a, C> {
    carry: C,
    behind: Option<Student<'a>>,
}

impl<C: Carry> Ahead<'_, C> {
    fn start() -> Self {
        Self { carry: C::start(), behind: None }
    }

    fn finish(mut self) {
        self.carry.finish(self.behind.as_mut());
    }
}

impl Tokens<'_> {
    /// Calls `row` for every token that counts, which have been checked; on a thread for one after the other.
    pub fn each<C: Carry>(
        &self,
        target: StudentTarget<'_>,
        (mut outputs, mut scratch): (DivergenceOutputs<'_>, SliceMut<'_>),
        row: impl Fn(&mut C, Visited<'_, '_>) -> Results + Sync,
    ) -> Result<()> {
        let count = target.logits().tokens();
        let results = &mut scratch.host::<f64>()?[..self::scratch(count)];
        let results = results.as_chunks_mut().0;
        match target.logits().dtype() {
            DType::F32 => self.run::<f32, C>(target, results, &row)?,
            DType::F16 => self.run::<f16, C>(target, results, &row)?,
            DType::BF16 => self.run::<bf16, C>(target, results, &row)?,
            got => return Err(Error::LogitsType { backend: self.backend, expected: DTYPES, got }),
        }
        for (token, results) in results.iter().enumerate() {
            outputs.set(token, *results);
        }
        Ok(())
    }

    fn run<E: Logit, C: Carry>(
        &self,
        target: StudentTarget<'_>,
        results: &mut [Results],
        row: &(impl Fn(&mut C, Visited<'_, '_>) -> Results + Sync),
    ) -> Result<()> {
        let tensor = |logits| Tensor::new(self.backend, logits);
        match target {
            StudentTarget::Values(logits) => {
                let (logits, vocab) = (tensor(logits)?, logits.vocab());
                let tokens = (0..results.len()).into_par_iter().with_min_len(rows_per_task(vocab));
                let students =
                    tokens.map(|token| (token, Student::Values(logits.row(token, self.columns))));
                self.students(students, results, MaskedRows::AlreadyZero, row);
            }
            StudentTarget::Written(Target::InPlace(mut logits), masked) => {
                let shape = logits.shape();
                let rows = rows_mut(logits.data_mut().host::<E>()?, shape);
                let students =
                    rows.map(|(token, data)| (token, Student::InPlace(E::row_mut(data))));
                self.students(students, results, masked, row);
            }
            StudentTarget::Written(Target::OutOfPlace { logits, grads }, masked) => {
                self.apart::<E, C>(tensor(logits)?, (grads, false, masked), results, row)?;
            }
            StudentTarget::Added { logits, grads } => {
                let grads = (grads, true, MaskedRows::AlreadyZero);
                self.apart::<E, C>(tensor(logits)?, grads, results, row)?;
            }
        }
        Ok(())
    }

    fn apart<E: Logit, C: Carry>(
        &self,
        logits: Tensor<'_>,
        (mut grads, add, masked): (LogitsMut<'_>, bool, MaskedRows),
        results: &mut [Results],
        row: &(impl Fn(&mut C, Visited<'_, '_>) -> Results + Sync),
    ) -> Result<()> {
        let shape = grads.shape();
        let rows = rows_mut(grads.data_mut().host::<E>()?, shape);
        let students = rows.map(|(token, data)| {
            let (logits, grads) = (logits.row(token, self.columns), E::row_mut(data));
            (token, Student::Apart { logits, grads, add })
        });
        self.students(students, results, masked, row);
        Ok(())
    }

    fn students<'a, C: Carry>(
        &self,
        students: impl IndexedParallelIterator<Item = (usize, Student<'a>)>,
        results: &mut [Results],
        masked: MaskedRows,
        row: &(impl Fn(&mut C, Visited<'_, '_>) -> Results + Sync),
    ) {
        let each = students.zip(results).fold(Ahead::start, |mut ahead, (student, results)| {
            *results = self.token(&mut ahead, student, masked, row);
            ahead
        });
        each.for_each(Ahead::finish);
    }

    fn token<'a, C: Carry>(
        &self,
        ahead: &mut Ahead<'a, C>,
        (token, mut student): (usize, Student<'a>),
        masked: MaskedRows,
        row: &(impl Fn(&mut C, Visited<'_, '_>) -> Results + Sync),
    ) -> Results {
        if self.tokens.counted_label(token).is_none() {
            if masked == MaskedRows::Zero {
                student.set(0, 0.0);
            }
            return Results::default();
        }
        let upstream = self.upstream.map_or(0.0, |upstream| upstream.get(token));
        let Ahead { carry, behind } = ahead;
        let behind = behind.as_mut();
        let results = row(carry, Visited { token, student: &mut student, behind, upstream });
        student.set(if upstream == 0.0 { 0 } else { self.columns }, 0.0);
        ahead.behind = ahead.carry.is_behind().then_some(student);
        results
    }
}
