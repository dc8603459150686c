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

impl Tokens<'_> {
    /// Calls `row` for every token that counts, which have been checked, with its logits and the gradient by its divergence.
    pub fn each(
        &self,
        target: StudentTarget<'_>,
        (mut outputs, mut scratch): (DivergenceOutputs<'_>, SliceMut<'_>),
        row: impl Fn(usize, &mut Student<'_>, f64) -> Results + Sync,
    ) -> Result<()> {
        let count = target.logits().tokens();
        let results = &mut scratch.host::<f64>()?[..self::scratch(count)];
        let results = results.as_chunks_mut().0;
        match target.logits().dtype() {
            DType::F32 => self.run::<f32>(target, results, &row)?,
            DType::F16 => self.run::<f16>(target, results, &row)?,
            DType::BF16 => self.run::<bf16>(target, results, &row)?,
            got => return Err(Error::LogitsType { backend: self.backend, expected: DTYPES, got }),
        }
        for (token, results) in results.iter().enumerate() {
            outputs.set(token, *results);
        }
        Ok(())
    }

    fn run<E: Logit>(
        &self,
        target: StudentTarget<'_>,
        results: &mut [Results],
        row: &(impl Fn(usize, &mut Student<'_>, f64) -> Results + Sync),
    ) -> Result<()> {
        let tensor = |logits| Tensor::new(self.backend, logits);
        match target {
            StudentTarget::Values(logits) => {
                let (logits, vocab) = (tensor(logits)?, logits.vocab());
                let results = results.par_iter_mut().enumerate().with_min_len(rows_per_task(vocab));
                results.for_each(|(token, results)| {
                    let student = Student::Values(logits.row(token, self.columns));
                    *results = self.token(token, student, MaskedRows::AlreadyZero, row);
                });
            }
            StudentTarget::Written(Target::InPlace(mut logits), masked) => {
                let shape = logits.shape();
                let rows = rows_mut(logits.data_mut().host::<E>()?, shape);
                rows.zip(results).for_each(|((token, data), results)| {
                    let student = Student::InPlace(E::row_mut(data));
                    *results = self.token(token, student, masked, row);
                });
            }
            StudentTarget::Written(Target::OutOfPlace { logits, grads }, masked) => {
                self.apart::<E>(tensor(logits)?, (grads, false, masked), results, row)?;
            }
            StudentTarget::Added { logits, grads } => {
                let grads = (grads, true, MaskedRows::AlreadyZero);
                self.apart::<E>(tensor(logits)?, grads, results, row)?;
            }
        }
        Ok(())
    }

    fn apart<E: Logit>(
        &self,
        logits: Tensor<'_>,
        (mut grads, add, masked): (LogitsMut<'_>, bool, MaskedRows),
        results: &mut [Results],
        row: &(impl Fn(usize, &mut Student<'_>, f64) -> Results + Sync),
    ) -> Result<()> {
        let shape = grads.shape();
        let rows = rows_mut(grads.data_mut().host::<E>()?, shape);
        rows.zip(results).for_each(|((token, data), results)| {
            let (logits, grads) = (logits.row(token, self.columns), E::row_mut(data));
            *results = self.token(token, Student::Apart { logits, grads, add }, masked, row);
        });
        Ok(())
    }

    fn token(
        &self,
        token: usize,
        mut student: Student<'_>,
        masked: MaskedRows,
        row: &(impl Fn(usize, &mut Student<'_>, f64) -> Results + Sync),
    ) -> Results {
        if self.tokens.counted_label(token).is_none() {
            if masked == MaskedRows::Zero {
                student.set(0, 0.0);
            }
            return Results::default();
        }
        let upstream = self.upstream.map_or(0.0, |upstream| upstream.get(token));
        let results = row(token, &mut student, upstream);
        student.set(if upstream == 0.0 { 0 } else { self.columns }, 0.0);
        results
    }
}
