//! Sums of terms over a block, and the gradient of one.

#![expect(
    clippy::needless_range_loop,
    reason = "one index over several lane arrays; the shape that vectorises"
)]

use super::columns::Pair;
use super::terms::Terms;
use crate::cpu::blocks::{Ahead, Block, Chunk};
use crate::cpu::gradient::Factor;
use crate::cpu::rows::{LANES, tree_sum};
use crate::cpu::simd::{Isa, Kernel};

/// The sums of the terms over a block.
pub(super) struct Sums<'a, T, const N: usize> {
    pub terms: T,
    pub pair: Pair,
    pub student: &'a Block,
    pub teacher: &'a Block,
    pub ahead: Ahead<'a>,
}

#[inline(always)]
fn tree_sums<const N: usize>(lanes: [Chunk; N]) -> [f64; N] {
    let mut sums = [0.0; N];
    for term in 0..N {
        sums[term] = tree_sum(lanes[term]);
    }
    sums
}

#[inline(always)]
fn add<T: Terms<N>, const N: usize, I: Isa>(terms: T, columns: &T::Columns, sums: &mut [Chunk; N]) {
    for lane in 0..LANES {
        let terms = terms.terms::<I>(columns, lane);
        for term in 0..N {
            sums[term][lane] += terms[term];
        }
    }
}

impl<T: Terms<N>, const N: usize> Kernel for Sums<'_, T, N> {
    type Output = [f64; N];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f64; N] {
        let mut sums = [[0.0; LANES]; N];
        let chunks = self.student.chunks().iter().zip(self.teacher.chunks());
        for (chunk, (student, teacher)) in chunks.enumerate() {
            self.ahead.prefetch(isa, chunk);
            let columns = self.terms.columns(isa, self.pair, student, teacher);
            add::<T, N, I>(self.terms, &columns, &mut sums);
        }
        tree_sums(sums)
    }
}

/// The gradient of a block in place of the student's logits, and with `SUMS` the sums of the terms.
pub(super) struct Gradient<'a, T, const N: usize, const SUMS: bool> {
    terms: T,
    pair: Pair,
    student: &'a mut Block,
    teacher: &'a Block,
    factor: Factor,
    ahead: Ahead<'a>,
}

impl<'a, T: Terms<N>, const N: usize, const SUMS: bool> Gradient<'a, T, N, SUMS> {
    pub fn new(
        terms: T,
        (pair, student, teacher): (Pair, &'a mut Block, &'a Block),
        (factor, ahead): (Factor, Ahead<'a>),
    ) -> Self {
        Self { terms, pair, student, teacher, factor, ahead }
    }
}

impl<T: Terms<N>, const N: usize, const SUMS: bool> Kernel for Gradient<'_, T, N, SUMS> {
    type Output = [f64; N];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f64; N] {
        let mut sums = [[0.0; LANES]; N];
        let chunks = self.student.chunks_mut().iter_mut().zip(self.teacher.chunks());
        for (chunk, (student, teacher)) in chunks.enumerate() {
            self.ahead.prefetch(isa, chunk);
            let columns = self.terms.columns(isa, self.pair, student, teacher);
            let mut gradient = [0.0; LANES];
            for lane in 0..LANES {
                gradient[lane] = self.factor.times(self.terms.gradient::<I>(&columns, lane));
            }
            *student = gradient;
            if SUMS {
                add::<T, N, I>(self.terms, &columns, &mut sums);
            }
        }
        tree_sums(sums)
    }
}
