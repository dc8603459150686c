//! The sweeps of a token's row that follow its sums of exponentials.

use std::ops::Range;

use super::columns::Pair;
use super::kept::Kept;
use super::sweeps::{Gradient, Sums};
use super::teacher::TokenTeacher;
use super::terms::{Advantage, Kl, Mixture, Terms, TotalVariation};
use crate::cpu::blocks::{Ahead, Block, blocks, next};
use crate::cpu::gradient::Factor;
use crate::cpu::simd::Simd;
use crate::cpu::softmax::Softmax;
use crate::cpu::student::Student;
use crate::stages::Measure;

/// A row whose sums are known.
pub(super) struct Visit<'v, 'a> {
    simd: Simd,
    columns: usize,
    student: &'v mut Student<'a>,
    teacher: &'v TokenTeacher<'v>,
    pair: Pair,
    /// Whether one of the distributions is NaN.
    void: bool,
    /// Where a gradient is asked for.
    factor: Option<Factor>,
}

impl<'v, 'a> Visit<'v, 'a> {
    pub fn new(
        (simd, columns): (Simd, usize),
        student: &'v mut Student<'a>,
        (teacher, rows): (&'v TokenTeacher<'v>, &[Softmax; 2]),
        upstream: f64,
    ) -> Self {
        let wanted = upstream != 0.0 && student.grads().is_some();
        let factor = wanted.then(|| Factor::new(upstream, rows[0].inverse_temperature()));
        let void = rows.iter().any(|row| row.log_sum().is_nan());
        let pair = Pair::new(&rows[0], &rows[1]);
        Self { simd, columns, student, teacher, pair, void, factor }
    }

    /// The divergence of the row, and its gradient where one is asked for.
    pub fn divergence(
        &mut self,
        measure: Measure,
        rows: &[Softmax; 2],
        kept: Option<&mut Kept>,
    ) -> f64 {
        let [student, teacher] = rows;
        if self.void {
            return self.fail(f64::NAN);
        }
        match measure {
            Measure::Kl { forward, reverse, cross } => {
                let entropy = if cross { forward * teacher.entropy() } else { 0.0 };
                let from = if reverse == 0.0 { 0.0 } else { student.divergence_from(teacher) };
                entropy + self.kl([forward, reverse], from, (rows, kept))
            }
            Measure::Mixture { teacher, forward, reverse } => {
                self.mixture(Mixture::new(teacher, forward, reverse))
            }
            Measure::TotalVariation => self.total_variation(),
            // Has a visit of its own.
            Measure::Advantage { .. } => f64::NAN,
        }
    }

    /// `from` is the reverse part's divergence, for its gradient. What rounding leaves below 0 is 0.
    fn kl(
        &mut self,
        [forward, reverse]: [f64; 2],
        from: f64,
        (rows, kept): (&[Softmax; 2], Option<&mut Kept>),
    ) -> f64 {
        if !from.is_finite() {
            return self.fail(from);
        }
        let [f, r, divergence] = [forward, reverse, from].map(|number| number as f32);
        let value = match (forward, reverse) {
            (1.0, 0.0) => {
                self.forward_kl(Kl::<false> { forward: f, reverse: r, divergence }, (rows, kept))
            }
            _ => self.in_one_sweep(Kl::<true> { forward: f, reverse: r, divergence }),
        };
        value.max(0.0)
    }

    fn in_one_sweep<T: Terms<1>>(&mut self, terms: T) -> f64 {
        self.range_in_one_sweep(terms, 0..self.columns, [&mut Block::new(), &mut Block::new()])
    }

    fn range_in_one_sweep<T: Terms<1>>(
        &mut self,
        terms: T,
        columns: Range<usize>,
        [student, teacher]: [&mut Block; 2],
    ) -> f64 {
        let mut value = 0.0;
        for range in blocks(columns.len()) {
            let range = columns.start + range.start..columns.start + range.end;
            value += self.block_in_one_sweep(terms, range, [&mut *student, &mut *teacher]);
        }
        value
    }

    fn block_in_one_sweep<T: Terms<1>>(
        &mut self,
        terms: T,
        range: Range<usize>,
        widened: [&mut Block; 2],
    ) -> f64 {
        let [value] = match self.factor {
            Some(factor) => self.block_gradient::<_, 1, true>(terms, factor, range, widened),
            None => self.block_sums(terms, range, widened),
        };
        value
    }

    fn forward_kl(
        &mut self,
        terms: Kl<false>,
        (rows, kept): (&[Softmax; 2], Option<&mut Kept>),
    ) -> f64 {
        let Some(kept) = kept else { return self.in_one_sweep(terms) };
        let factor = self.factor.map(Factor::product);
        let (second, behind) = kept.second((self.pair, *rows), factor);
        let (mut student, mut teacher, mut value) = (Block::new(), Block::new(), 0.0);
        for (block, range) in second.blocks(self.columns) {
            let (known, multiples) = (second.divergence(block), second.multiples(block));
            let is_done = known.is_some() && (factor.is_none() || multiples.is_some());
            let swept = match is_done {
                true => 0.0,
                false => self.range_in_one_sweep(terms, range, [&mut student, &mut teacher]),
            };
            value += known.unwrap_or(swept);
            behind.push(multiples);
        }
        value
    }

    fn mixture(&mut self, terms: Mixture) -> f64 {
        let [value, sum] = self.sums(terms);
        if let Some(factor) = self.factor {
            self.gradient(terms.with_sum(sum), factor);
        }
        value.max(0.0)
    }

    fn total_variation(&mut self) -> f64 {
        let [value, above, below, equal] = self.sums(TotalVariation::default());
        if let Some(factor) = self.factor {
            let numbers = [2.0 * below + equal, -(2.0 * above + equal), below - above];
            let [above, below, equal] = numbers.map(|number| number as f32);
            self.gradient(TotalVariation { above, below, equal }, factor);
        }
        value
    }

    /// The same of an expected advantage; an `offset` of NaN is that of a teacher that is.
    pub fn advantage(&mut self, terms: Advantage) -> f64 {
        if self.void || terms.offset.is_nan() {
            return self.fail(f64::NAN);
        }
        let [expected] = self.sums(terms);
        if !expected.is_finite() {
            return self.fail(-expected);
        }
        if let Some(factor) = self.factor {
            self.gradient(Advantage { expected: expected as f32, ..terms }, factor);
        }
        -expected
    }

    /// The value of a row whose gradient is NaN throughout.
    fn fail(&mut self, value: f64) -> f64 {
        if self.factor.is_some() {
            self.student.fail(self.columns);
        }
        value
    }

    /// Whether the columns are flat.
    fn read(&self, range: Range<usize>, student: &mut Block, teacher: &mut Block) -> bool {
        let ours = self.student.logits().widen(self.simd, range.clone(), student);
        let theirs = self.teacher.block(self.simd, range, teacher);
        self.pair.is_flat([ours, theirs])
    }

    fn ahead(&self, columns: Range<usize>) -> Ahead<'_> {
        let grads = self.student.grads_apart().filter(|_| self.factor.is_some());
        let grads = grads.map_or(&[][..], |grads| grads.bytes(columns.clone()));
        Ahead([self.student.logits().bytes(columns.clone()), self.teacher.bytes(columns), grads])
    }

    fn sums<T: Terms<N>, const N: usize>(&self, terms: T) -> [f64; N] {
        let (mut student, mut teacher, mut sums) = (Block::new(), Block::new(), [0.0; N]);
        for range in blocks(self.columns) {
            let block = self.block_sums(terms, range, [&mut student, &mut teacher]);
            sums.iter_mut().zip(block).for_each(|(sum, block)| *sum += block);
        }
        sums
    }

    fn block_sums<T: Terms<N>, const N: usize>(
        &self,
        terms: T,
        range: Range<usize>,
        [student, teacher]: [&mut Block; 2],
    ) -> [f64; N] {
        let ahead = self.ahead(next(&range, self.columns));
        let is_flat = self.read(range, student, teacher);
        let (pair, student, teacher) = (self.pair, &*student, &*teacher);
        match is_flat {
            true => self.simd.run(Sums { terms: terms.flat(), pair, student, teacher, ahead }),
            false => self.simd.run(Sums { terms, pair, student, teacher, ahead }),
        }
    }

    fn gradient<T: Terms<N>, const N: usize>(&mut self, terms: T, factor: Factor) {
        let (mut student, mut teacher) = (Block::new(), Block::new());
        for range in blocks(self.columns) {
            self.block_gradient::<T, N, false>(terms, factor, range, [&mut student, &mut teacher]);
        }
    }

    /// Writes the gradient, and sums on the way where `SUMS` says so.
    fn block_gradient<T: Terms<N>, const N: usize, const SUMS: bool>(
        &mut self,
        terms: T,
        factor: Factor,
        range: Range<usize>,
        [student, teacher]: [&mut Block; 2],
    ) -> [f64; N] {
        let is_flat = self.read(range.clone(), student, teacher);
        let ahead = self.ahead(next(&range, self.columns));
        let (columns, how) = ((self.pair, &mut *student, &*teacher), (factor, ahead));
        let sums = match is_flat {
            true => self.simd.run(Gradient::<_, N, SUMS>::new(terms.flat(), columns, how)),
            false => self.simd.run(Gradient::<_, N, SUMS>::new(terms, columns, how)),
        };
        if let Some((grads, add)) = self.student.grads() {
            grads.write(self.simd, range, student, add);
        }
        sums
    }
}
