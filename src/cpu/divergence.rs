//! Stage `divergence`: the rows of student and teacher are swept block by block, once for their sums of
//! exponentials, once more where the gradient asks for a sum over the columns, and once for the gradient. A
//! row's later sweeps find it in the second-level cache.

mod columns;
mod kept;
mod sweeps;
mod teacher;
mod terms;
mod visit;

use super::blocks::{Block, blocks, next};
use super::simd::Simd;
use super::softmax::Softmax;
use super::student::{Results, Student, Tokens, Visited};
use crate::error::Result;
use crate::stages::{Divergence, Measure};
use kept::Kept;
use teacher::{Tensors, TokenTeacher};
use terms::Advantage;
use visit::Visit;

pub(super) fn divergence(simd: Simd, stage: Divergence<'_>) -> Result<()> {
    let Divergence { backend, student, teacher, temperatures, columns, upstream, .. } = stage;
    let rows = Rows {
        simd,
        columns,
        measure: stage.measure.without_ends(),
        teacher: Tensors::new(backend.name, &teacher)?,
        inverse_temperatures: temperatures.map(|temperature| 1.0 / temperature),
        entropies: stage.outputs.entropies(),
    };
    let tokens = stage.tokens.host()?;
    tokens.check(student.logits().vocab())?;
    let tokens = Tokens { backend: backend.name, tokens, columns, upstream };
    tokens.each(student, (stage.outputs, stage.scratch), |kept, visited| rows.token(kept, visited))
}

struct Rows<'a> {
    simd: Simd,
    columns: usize,
    measure: Measure,
    teacher: Tensors<'a>,
    /// Of student and teacher.
    inverse_temperatures: [f64; 2],
    /// Which of them are asked for.
    entropies: [bool; 2],
}

/// What a divergence is of, beside the student.
struct Token<'a> {
    teacher: &'a TokenTeacher<'a>,
    measure: Measure,
    upstream: f64,
}

impl Rows<'_> {
    fn token(&self, kept: &mut Kept, visited: Visited<'_, '_>) -> Results {
        match self.measure {
            Measure::Advantage { beta, low, high } => {
                let Visited { token, student, upstream, .. } = visited;
                self.advantage(token, (student, upstream), [beta, low, high])
            }
            measure => self.divergence(kept, visited, measure),
        }
    }

    fn divergence(&self, kept: &mut Kept, visited: Visited<'_, '_>, measure: Measure) -> Results {
        let Self { simd, columns, .. } = *self;
        let Visited { token, student, behind, upstream } = visited;
        let (teacher, weight) = self.teacher.of_token(simd, token, columns);
        if upstream != 0.0 && upstream * weight == 0.0 {
            student.set(0, 0.0);
        }
        let upstream = upstream * weight;
        let row = Token { teacher: &teacher, measure, upstream };
        let known = self.kept(student, &row, (kept, behind));
        let (value, rows) = known.unwrap_or_else(|| self.swept(student, &row));
        [weight * value, rows[0].entropy(), rows[1].entropy()]
    }

    /// A forward KL by exponentials that are kept, where student and teacher are rows of one type.
    fn kept(
        &self,
        student: &mut Student<'_>,
        token: &Token<'_>,
        (kept, behind): (&mut Kept, Option<&mut Student<'_>>),
    ) -> Option<(f64, [Softmax; 2])> {
        let Self { simd, columns, inverse_temperatures, .. } = *self;
        let Measure::Kl { forward: 1.0, reverse: 0.0, .. } = token.measure else { return None };
        let keep = token.upstream != 0.0 && student.grads().is_some();
        let logits = [student.logits(), token.teacher.row()?];
        let pair =
            kept::Rows { logits, columns, inverse_temperatures, moments: self.moments(token) };
        let rows = kept.sweep(simd, (&pair, keep), behind)?;
        let mut visit =
            Visit::new((simd, columns), student, (token.teacher, &rows), token.upstream);
        Some((visit.divergence(token.measure, &rows, Some(kept)), rows))
    }

    fn swept(&self, student: &mut Student<'_>, token: &Token<'_>) -> (f64, [Softmax; 2]) {
        let Self { simd, columns, .. } = *self;
        let rows = match token.measure {
            Measure::Kl { reverse, .. } if reverse != 0.0 => {
                self.together(student, token.teacher, [true, self.entropies[1]])
            }
            _ => {
                let [ours, theirs] = self.inverse_temperatures.map(|inverse| (columns, inverse));
                let moments = self.moments(token);
                [
                    Softmax::of(simd, student.logits(), ours, moments[0]),
                    token.teacher.softmax(simd, theirs, moments[1]),
                ]
            }
        };
        let mut visit =
            Visit::new((simd, columns), student, (token.teacher, &rows), token.upstream);
        (visit.divergence(token.measure, &rows, None), rows)
    }

    /// Which of student and teacher have moments summed.
    fn moments(&self, token: &Token<'_>) -> [bool; 2] {
        let cross = matches!(token.measure, Measure::Kl { cross: true, .. });
        [self.entropies[0], self.entropies[1] || cross]
    }

    /// The softmax of both from one sweep, with what a divergence of one from the other asks for.
    fn together(
        &self,
        student: &Student<'_>,
        teacher: &TokenTeacher<'_>,
        moments: [bool; 2],
    ) -> [Softmax; 2] {
        let Self { simd, columns, inverse_temperatures, .. } = *self;
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
        rows
    }

    fn advantage(
        &self,
        token: usize,
        (student, upstream): (&mut Student<'_>, f64),
        [beta, low, high]: [f64; 3],
    ) -> Results {
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
