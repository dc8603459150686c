//! A token's teacher: one row of logits, or a combination of them that is made block by block.

use std::ops::Range;

use super::columns::Pair;
use super::sweeps::Sums;
use super::terms::TotalVariation;
use crate::batch::MOST_PARTS;
use crate::cpu::blocks::{Ahead, Block, Row, blocks};
use crate::cpu::combination::{self, Part, combine};
use crate::cpu::simd::Simd;
use crate::cpu::softmax::Softmax;
use crate::error::Result;
use crate::stages::{Adaptive, Teacher};

/// The tensors that a teacher is made of.
pub(super) struct Tensors<'a> {
    logits: combination::Tensors<'a>,
    /// One of coefficient 1.
    alone: bool,
    adaptive: Option<Adaptive>,
}

impl<'a> Tensors<'a> {
    pub fn new(backend: &'static str, teacher: &Teacher<'a>) -> Result<Self> {
        let logits = combination::Tensors::new(backend, teacher.logits())?;
        let alone = matches!(teacher.parts(), [(1.0, _)]);
        Ok(Self { logits, alone, adaptive: teacher.adaptive() })
    }

    /// Those that enter.
    fn parts(&self, token: usize, columns: usize) -> [Option<Part<'a>>; MOST_PARTS] {
        let parts = self.logits.parts(token, columns);
        parts.map(|part| part.filter(|part| part.coefficient != 0.0))
    }

    /// The teacher of a token, and the factor of its divergence.
    pub fn of_token(&self, simd: Simd, token: usize, columns: usize) -> (TokenTeacher<'a>, f64) {
        let parts = self.parts(token, columns);
        let mut teacher = TokenTeacher { parts, plain: self.alone };
        if !self.alone {
            for part in teacher.parts.iter_mut().flatten() {
                part.anchor = Some(maximum(simd, part.row, columns));
            }
        }
        let Some(Adaptive { ratio, beta }) = self.adaptive else { return (teacher, 1.0) };
        let alpha = ratio * teacher.distance(simd, columns) + Adaptive::LEAST;
        for (part, coefficient) in teacher.parts.iter_mut().flatten().zip([1.0 + alpha, -alpha]) {
            part.coefficient = coefficient;
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
        let parts = self.parts(token, columns);
        let (mut teacher, mut offset) = (TokenTeacher { parts, plain: false }, 0.0);
        for part in teacher.parts.iter_mut().flatten() {
            let state = Softmax::of(simd, part.row, (columns, inverse_temperature), false);
            offset -= part.coefficient * state.log_sum();
            part.anchor = Some(state.scale().maximum);
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

impl<'a> TokenTeacher<'a> {
    /// The logits, where they are those of one tensor as they are.
    pub fn row(&self) -> Option<Row<'a>> {
        self.parts[0].filter(|_| self.plain).map(|part| part.row)
    }
}

impl TokenTeacher<'_> {
    /// Some of the columns, and their maximum, which NaN never is.
    pub fn block(&self, simd: Simd, columns: Range<usize>, to: &mut Block) -> f32 {
        if let Some(row) = self.row() {
            return row.widen(simd, columns, to);
        }
        combine(simd, &self.parts, [columns, 0..0], [&mut *to, &mut Block::new()]);
        to.maximum(simd)
    }

    /// Its softmax, and with `moments` what the entropy asks for.
    pub fn softmax(
        &self,
        simd: Simd,
        (columns, inverse_temperature): (usize, f64),
        moments: bool,
    ) -> Softmax {
        if let Some(row) = self.row() {
            return Softmax::of(simd, row, (columns, inverse_temperature), moments);
        }
        let read = |columns, block: &mut Block| self.block(simd, columns, block);
        let bytes = |columns| self.bytes(columns);
        Softmax::read(simd, bytes, (columns, inverse_temperature), moments, read)
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
