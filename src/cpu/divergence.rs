//! Stage `divergence`: the rows of student and teacher are swept block by block, once for their sums of
//! exponentials, once more where the gradient asks for a sum over the columns, and once for the gradient. A
//! row's later sweeps find it in the second-level cache.
//!
//! Scratch: three f64 results for each row.

mod columns;
mod softmax;
mod sweeps;
mod teacher;
mod terms;
mod visit;

use half::{bf16, f16};
use rayon::prelude::*;

use super::blocks::{Block, Logit, Tensor, blocks, next};
use super::logit_grads::rows_mut;
use super::simd::Simd;
use super::{DTYPES, rows_per_task};
use crate::batch::LogitsMut;
use crate::element::DType;
use crate::error::{Error, Result};
use crate::memory::Slice;
use crate::stages::{Divergence, HostTokens, MaskedRows, Measure, StudentTarget, Target};
use softmax::Softmax;
use teacher::Tensors;
use terms::Advantage;
use visit::{Student, Visit};

/// The divergence, and the entropies of student and teacher.
const RESULTS: usize = 3;

pub(super) fn scratch(tokens: usize) -> usize {
    tokens.saturating_mul(RESULTS)
}

pub(super) fn divergence(simd: Simd, stage: Divergence<'_>) -> Result<()> {
    let Divergence { backend, student, teacher, temperatures, columns, upstream, .. } = stage;
    let (mut outputs, mut scratch) = (stage.outputs, stage.scratch);
    let [count, vocab] = student.logits().shape().size();
    let tokens = stage.tokens.host()?;
    tokens.check(vocab)?;
    let results = scratch.host::<f64>()?[..count * RESULTS].as_chunks_mut::<RESULTS>().0;
    let rows = Rows {
        simd,
        tokens,
        columns,
        measure: without_ends(stage.measure),
        teacher: Tensors::new(backend.name, &teacher)?,
        inverse_temperatures: temperatures.map(|temperature| 1.0 / temperature),
        entropies: [outputs.student_entropy.is_some(), outputs.teacher_entropy.is_some()],
        upstream,
        backend: backend.name,
    };
    match student.logits().dtype() {
        DType::F32 => rows.run::<f32>(student, results)?,
        DType::F16 => rows.run::<f16>(student, results)?,
        DType::BF16 => rows.run::<bf16>(student, results)?,
        got => return Err(Error::LogitsType { backend: backend.name, expected: DTYPES, got }),
    }
    for (token, results) in results.iter().enumerate() {
        outputs.set(token, *results);
    }
    Ok(())
}

/// A mixture that is one of the two has the divergence from the other alone.
fn without_ends(measure: Measure) -> Measure {
    let kl = |forward, reverse| Measure::Kl { forward, reverse, cross: false };
    match measure {
        Measure::Mixture { teacher: 0.0, forward, .. } => kl(forward, 0.0),
        Measure::Mixture { teacher: 1.0, reverse, .. } => kl(0.0, reverse),
        measure => measure,
    }
}

struct Rows<'a> {
    simd: Simd,
    tokens: HostTokens<'a>,
    columns: usize,
    measure: Measure,
    teacher: Tensors<'a>,
    /// Of student and teacher.
    inverse_temperatures: [f64; 2],
    /// Which of them are asked for.
    entropies: [bool; 2],
    upstream: Option<Slice<'a>>,
    backend: &'static str,
}

impl Rows<'_> {
    fn run<E: Logit>(
        &self,
        target: StudentTarget<'_>,
        results: &mut [[f64; RESULTS]],
    ) -> Result<()> {
        let tensor = |logits| Tensor::new(self.backend, logits);
        match target {
            StudentTarget::Values(logits) => {
                let (logits, vocab) = (tensor(logits)?, logits.vocab());
                let results = results.par_iter_mut().enumerate().with_min_len(rows_per_task(vocab));
                results.for_each(|(token, results)| {
                    let student = Student::Values(logits.row(token, self.columns));
                    *results = self.token(token, student, MaskedRows::AlreadyZero);
                });
            }
            StudentTarget::Written(Target::InPlace(mut logits), masked) => {
                let shape = logits.shape();
                let rows = rows_mut(logits.data_mut().host::<E>()?, shape);
                rows.zip(results).for_each(|((token, row), results)| {
                    let student = Student::InPlace(E::row_mut(row));
                    *results = self.token(token, student, masked);
                });
            }
            StudentTarget::Written(Target::OutOfPlace { logits, grads }, masked) => {
                self.apart::<E>(tensor(logits)?, (grads, false, masked), results)?;
            }
            StudentTarget::Added { logits, grads } => {
                let grads = (grads, true, MaskedRows::AlreadyZero);
                self.apart::<E>(tensor(logits)?, grads, results)?;
            }
        }
        Ok(())
    }

    fn apart<E: Logit>(
        &self,
        logits: Tensor<'_>,
        (mut grads, add, masked): (LogitsMut<'_>, bool, MaskedRows),
        results: &mut [[f64; RESULTS]],
    ) -> Result<()> {
        let shape = grads.shape();
        let rows = rows_mut(grads.data_mut().host::<E>()?, shape);
        rows.zip(results).for_each(|((token, row), results)| {
            let (logits, grads) = (logits.row(token, self.columns), E::row_mut(row));
            *results = self.token(token, Student::Apart { logits, grads, add }, masked);
        });
        Ok(())
    }

    fn token(&self, token: usize, mut student: Student<'_>, masked: MaskedRows) -> [f64; RESULTS] {
        if self.tokens.counted_label(token).is_none() {
            if masked == MaskedRows::Zero {
                student.set(0, 0.0);
            }
            return [0.0; RESULTS];
        }
        let upstream = self.upstream.map_or(0.0, |upstream| upstream.get(token));
        let results = match self.measure {
            Measure::Advantage { beta, low, high } => {
                self.advantage(token, (&mut student, upstream), [beta, low, high])
            }
            measure => self.divergence(token, (&mut student, upstream), measure),
        };
        student.set(if upstream == 0.0 { 0 } else { self.columns }, 0.0);
        results
    }

    fn divergence(
        &self,
        token: usize,
        (student, upstream): (&mut Student<'_>, f64),
        measure: Measure,
    ) -> [f64; RESULTS] {
        let Self { simd, columns, inverse_temperatures, entropies, .. } = *self;
        let (teacher, weight) = self.teacher.of_token(simd, token, columns);
        let mut moments = entropies;
        if let Measure::Kl { reverse, cross, .. } = measure {
            moments = [moments[0] || reverse != 0.0, moments[1] || cross];
        }
        let mut rows = inverse_temperatures.map(Softmax::new);
        let (mut ours, mut theirs) = (Block::new(), Block::new());
        for range in blocks(columns) {
            let next = next(&range, columns);
            let ahead = [student.logits().bytes(next.clone()), teacher.bytes(next)];
            let maxima = [
                student.logits().widen(simd, range.clone(), &mut ours),
                teacher.block(simd, range, &mut theirs),
            ];
            Softmax::add_pair((simd, ahead), &mut rows, [&ours, &theirs], maxima, moments);
        }
        let upstream = upstream * weight;
        let mut visit = Visit::new((simd, columns), student, (&teacher, &rows), upstream);
        [weight * visit.divergence(measure, &rows), rows[0].entropy(), rows[1].entropy()]
    }

    fn advantage(
        &self,
        token: usize,
        (student, upstream): (&mut Student<'_>, f64),
        [beta, low, high]: [f64; 3],
    ) -> [f64; RESULTS] {
        let Self { simd, columns, inverse_temperatures: [inverse, teachers], .. } = *self;
        let (teacher, offset) = self.teacher.of_advantage((simd, columns), token, teachers);
        let row = Softmax::of(simd, student.logits(), (columns, inverse), self.entropies[0]);
        let terms = Advantage {
            slope: (beta * teachers) as f32,
            offset: (beta * offset) as f32,
            low: low as f32,
            high: high as f32,
            expected: 0.0,
        };
        let mut visit = Visit::new((simd, columns), student, (&teacher, &[row; 2]), upstream);
        [visit.advantage(terms), row.entropy(), 0.0]
    }
}
