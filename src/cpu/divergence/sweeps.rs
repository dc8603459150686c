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

impl<T: Terms<N>, const N: usize> Kernel for Sums<'_, T, N> {
    type Output = [f64; N];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f64; N] {
        let mut sums = [[0.0; LANES]; N];
        let chunks = self.student.chunks().iter().zip(self.teacher.chunks());
        for (chunk, (student, teacher)) in chunks.enumerate() {
            self.ahead.prefetch(isa, chunk);
            let columns = self.terms.columns::<I>(self.pair, student, teacher);
            for lane in 0..LANES {
                let terms = self.terms.terms::<I>(&columns, lane);
                for term in 0..N {
                    sums[term][lane] += terms[term];
                }
            }
        }
        tree_sums(sums)
    }
}

/// The gradient of a block in place of the student's logits, and with `SUMS` the sums of the terms.
pub(super) struct Gradient<'a, T, const N: usize, const SUMS: bool> {
    pub terms: T,
    pub pair: Pair,
    pub student: &'a mut Block,
    pub teacher: &'a Block,
    pub factor: Factor,
    pub ahead: Ahead<'a>,
}

impl<T: Terms<N>, const N: usize, const SUMS: bool> Kernel for Gradient<'_, T, N, SUMS> {
    type Output = [f64; N];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f64; N] {
        let mut sums = [[0.0; LANES]; N];
        let chunks = self.student.chunks_mut().iter_mut().zip(self.teacher.chunks());
        for (chunk, (student, teacher)) in chunks.enumerate() {
            self.ahead.prefetch(isa, chunk);
            let columns = self.terms.columns::<I>(self.pair, student, teacher);
            for lane in 0..LANES {
                if SUMS {
                    let terms = self.terms.terms::<I>(&columns, lane);
                    for term in 0..N {
                        sums[term][lane] += terms[term];
                    }
                }
                student[lane] = self.factor.times(self.terms.gradient::<I>(&columns, lane));
            }
        }
        tree_sums(sums)
    }
}
