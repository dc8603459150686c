//! A token's teacher: one row of logits, or a combination of them that is made block by block.

#![expect(
    clippy::needless_range_loop,
    reason = "one index over several lane arrays; the shape that vectorises"
)]

use std::ops::Range;

use super::blocks::{Ahead, Block, Chunk, Row, Tensor, blocks};
use super::columns::Pair;
use super::softmax::Softmax;
use super::sweeps::Sums;
use super::terms::TotalVariation;
use crate::cpu::rows::{LANES, Peak};
use crate::cpu::simd::{Isa, Kernel, Simd};
use crate::error::Result;
use crate::stages::{Adaptive, MOST_PARTS, Teacher};

/// The tensors that a teacher is made of.
pub(super) struct Tensors<'a> {
    parts: Vec<(f64, Tensor<'a>)>,
    adaptive: Option<Adaptive>,
}

impl<'a> Tensors<'a> {
    pub fn new(backend: &'static str, teacher: &Teacher<'a>) -> Result<Self> {
        let tensor = |&(coefficient, logits)| Ok((coefficient, Tensor::new(backend, logits)?));
        let parts = teacher.parts().iter().map(tensor).collect::<Result<_>>()?;
        Ok(Self { parts, adaptive: teacher.adaptive() })
    }

    /// The teacher of a token, and the factor of its divergence.
    pub fn of_token(&self, simd: Simd, token: usize, columns: usize) -> (TokenTeacher<'a>, f64) {
        let mut teacher = TokenTeacher { parts: [None; MOST_PARTS], plain: false };
        let alone = self.parts.len() == 1 && self.parts[0].0 == 1.0;
        for (part, (coefficient, tensor)) in teacher.parts.iter_mut().zip(&self.parts) {
            let row = tensor.row(token, columns);
            let maximum = if alone { 0.0 } else { maximum(simd, row, columns) };
            *part = Some(Part::new(row, *coefficient, maximum));
        }
        teacher.plain = alone;
        let Some(Adaptive { ratio, beta }) = self.adaptive else { return (teacher, 1.0) };
        let alpha = ratio * teacher.distance(simd, columns) + Adaptive::LEAST;
        for (part, coefficient) in teacher.parts.iter_mut().flatten().zip([1.0 + alpha, -alpha]) {
            part.coefficient = coefficient as f32;
        }
        (teacher, beta / alpha)
    }

    /// The teacher of an advantage, and what `sum_i c_i log p_i` has beside the combination divided by the
    /// temperature; NaN if a part is.
    pub fn of_advantage(
        &self,
        (simd, columns): (Simd, usize),
        token: usize,
        inverse_temperature: f64,
    ) -> (TokenTeacher<'a>, f64) {
        let mut teacher = TokenTeacher { parts: [None; MOST_PARTS], plain: false };
        let mut offset = 0.0;
        for (part, (coefficient, tensor)) in teacher.parts.iter_mut().zip(&self.parts) {
            let row = tensor.row(token, columns);
            let state = Softmax::of(simd, row, (columns, inverse_temperature), false);
            offset -= coefficient * state.log_sum();
            *part = Some(Part::new(row, *coefficient, state.scale().maximum));
        }
        (teacher, offset)
    }
}

/// `sum_i c_i (z_i - max z_i)`, whose softmax is that of `sum_i c_i z_i`, but which keeps its digits where
/// logits have a large common offset.
pub(super) struct TokenTeacher<'a> {
    parts: [Option<Part<'a>>; MOST_PARTS],
    /// One part of coefficient 1, taken as it is.
    plain: bool,
}

#[derive(Clone, Copy)]
struct Part<'a> {
    row: Row<'a>,
    coefficient: f32,
    maximum: f32,
}

impl<'a> Part<'a> {
    /// An infinite maximum is left where it is: the difference would be NaN in columns that the part excludes.
    fn new(row: Row<'a>, coefficient: f64, maximum: f32) -> Self {
        let maximum = if maximum.is_finite() { maximum } else { 0.0 };
        Self { row, coefficient: coefficient as f32, maximum }
    }
}

impl TokenTeacher<'_> {
    /// Some of the columns, and their maximum, which NaN never is.
    pub fn block(&self, simd: Simd, columns: Range<usize>, to: &mut Block) -> f32 {
        let [Some(first), ..] = &self.parts else { return f32::NEG_INFINITY };
        let maximum = first.row.widen(simd, columns.clone(), to);
        if self.plain {
            return maximum;
        }
        let Part { coefficient, maximum, .. } = *first;
        simd.run(Scaled { coefficient, maximum, to: to.chunks_mut() });
        let mut other = Block::new();
        for part in self.parts[1..].iter().flatten() {
            part.row.widen(simd, columns.clone(), &mut other);
            let Part { coefficient, maximum, .. } = *part;
            simd.run(Scaled { coefficient, maximum, to: other.chunks_mut() });
            simd.run(Joined { other: other.chunks(), to: to.chunks_mut() });
        }
        to.exclude_beyond(columns.len());
        simd.run(Largest { chunks: to.chunks() })
    }

    /// What some of the columns will be made from; of several parts the first, whose turn comes first.
    pub fn bytes(&self, columns: Range<usize>) -> &[u8] {
        self.parts[0].map_or(&[], |part| part.row.bytes(columns))
    }

    /// AlignDistil's `sum |p - p'|` of its two parts, at temperature 1.
    fn distance(&self, simd: Simd, columns: usize) -> f64 {
        let [Some(first), Some(second), _] = &self.parts else { return f64::NAN };
        let states = [first, second].map(|part| Softmax::of(simd, part.row, (columns, 1.0), false));
        let pair = Pair::new(&states[0], &states[1]);
        let (mut a, mut b, mut sum) = (Block::new(), Block::new(), 0.0);
        for range in blocks(columns) {
            first.row.widen(simd, range.clone(), &mut a);
            second.row.widen(simd, range, &mut b);
            let terms = TotalVariation::default();
            let [half, ..] =
                simd.run(Sums { terms, pair, student: &a, teacher: &b, ahead: Ahead::NOTHING });
            sum += half;
        }
        2.0 * sum
    }
}

fn maximum(simd: Simd, row: Row<'_>, columns: usize) -> f32 {
    let mut block = Block::new();
    let maxima = blocks(columns).map(|range| row.widen(simd, range, &mut block));
    maxima.fold(f32::NEG_INFINITY, f32::max)
}

/// `c (x - maximum)` in place; 0 for a coefficient of 0, also of what is infinite.
struct Scaled<'a> {
    coefficient: f32,
    maximum: f32,
    to: &'a mut [Chunk],
}

impl Kernel for Scaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for chunk in self.to {
            for lane in 0..LANES {
                let scaled = self.coefficient * (chunk[lane] - self.maximum);
                chunk[lane] = if self.coefficient == 0.0 { 0.0 } else { scaled };
            }
        }
    }
}

/// Adds another part. A column that one of them excludes stays excluded, also where the other is infinite.
struct Joined<'a> {
    other: &'a [Chunk],
    to: &'a mut [Chunk],
}

impl Kernel for Joined<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for (to, other) in self.to.iter_mut().zip(self.other) {
            for lane in 0..LANES {
                let (a, b) = (to[lane], other[lane]);
                let excluded = a == f32::NEG_INFINITY || b == f32::NEG_INFINITY;
                to[lane] = if excluded { f32::NEG_INFINITY } else { a + b };
            }
        }
    }
}

struct Largest<'a> {
    chunks: &'a [Chunk],
}

impl Kernel for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let mut peak = Peak::new();
        for chunk in self.chunks {
            peak.raise(isa, chunk);
        }
        peak.value()
    }
}
