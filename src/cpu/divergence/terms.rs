//! What a column adds to a divergence, and its gradient.
//!
//! With `w[v] = q[v] * dD/dq[v]` the gradient by a logit is `w - q * sum w`, and any multiple of q may be
//! added to w. All forms here are so centred that w is 0 where p = q, and so that nothing cancels: in a row
//! that is sure of one column, the digits of that column's gradient are those of what the others leave it.
//! Likewise any multiple of q - p may be added to a divergence, whose sum is 0: `p ln(p/q) + q - p` is of
//! second order in what the row's logarithms of sums are off by, `p ln(p/q)` of first.

#![expect(
    clippy::needless_range_loop,
    reason = "one index over several lane arrays; the shape that vectorises"
)]

use super::blocks::{Block, Chunk};
use super::softmax::Softmax;
use crate::cpu::exp::{EXP_CUTOFF, exp_and_m1};
use crate::cpu::ln::ln;
use crate::cpu::rows::{LANES, Scale, exp, fused, tree_sum};
use crate::cpu::simd::{Isa, Kernel};

/// Student and teacher of a row.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    student: Side,
    teacher: Side,
    /// Difference of the logarithms of their sums, rounded once.
    apart: f32,
}

#[derive(Clone, Copy)]
struct Side {
    scale: Scale,
    log_sum: f32,
}

impl Pair {
    pub fn new(student: &Softmax, teacher: &Softmax) -> Self {
        let apart = (student.log_sum() - teacher.log_sum()) as f32;
        let side = |row: &Softmax| Side { scale: row.scale(), log_sum: row.log_sum() as f32 };
        Self { student: side(student), teacher: side(teacher), apart }
    }
}

/// Of a column.
struct Column {
    log_q: f32,
    log_p: f32,
    /// `log p - log q`; NaN where both are -inf.
    log_ratio: f32,
}

#[inline(always)]
fn scaled(x: f32, scale: Scale) -> f32 {
    (x - scale.maximum) * scale.inverse_temperature
}

#[inline(always)]
fn column(pair: Pair, student: f32, teacher: f32) -> Column {
    let (z, other) = (scaled(student, pair.student.scale), scaled(teacher, pair.teacher.scale));
    Column {
        log_q: z - pair.student.log_sum,
        log_p: other - pair.teacher.log_sum,
        // Not of the two above, whose rounding is that of their size.
        log_ratio: (other - z) + pair.apart,
    }
}

/// The larger of p and q, by how much the smaller one falls short of it, and whether q is the larger.
///
/// One exponential is of the larger logarithm, the other is the ratio's, with 1 taken off before it rounds:
/// q - p has its digits where the two are near each other, for less than two exponentials and the series of
/// that case. Where both are -inf it is all 0.
#[inline(always)]
fn larger<I: Isa>(column: &Column) -> (f32, [f32; 2], bool) {
    let by_student = column.log_ratio < 0.0;
    let log = if column.log_q > column.log_p { column.log_q } else { column.log_p };
    let size = -column.log_ratio.abs();
    let both = if I::FMA { exp_and_m1::<true>(size) } else { exp_and_m1::<false>(size) };
    (exp::<I>(log, EXP_CUTOFF), both, by_student)
}

/// q, p and q - p. The smaller one is known to half an ulp of the larger, which in `p ln(p/q) + q - p` is
/// no more than the larger one's own rounding.
#[inline(always)]
fn probabilities<I: Isa>(column: &Column) -> [f32; 3] {
    let (larger, [_, falls], by_student) = larger::<I>(column);
    let difference = larger * falls;
    let smaller = larger + difference;
    match by_student {
        true => [larger, smaller, -difference],
        false => [smaller, larger, difference],
    }
}

/// A divergence as sums of N terms of each column; the first sum is its value.
pub(super) trait Terms<const N: usize>: Copy {
    fn terms<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> [f32; N];
    /// By the student's logit, of temperature 1.
    fn gradient<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> f32;
}

/// `forward KL(p || q) + reverse KL(q || p)`; without `BOTH` forward is 1 and reverse 0, which saves a
/// tenth of the sweep.
#[derive(Clone, Copy)]
pub(super) struct Kl<const BOTH: bool> {
    pub forward: f32,
    pub reverse: f32,
    /// `KL(q || p)`, for the gradient of that part.
    pub divergence: f32,
}

/// Where the factor is 0, the logarithm may be infinite.
#[inline(always)]
fn product(factor: f32, logarithm: f32) -> f32 {
    if factor == 0.0 { 0.0 } else { factor * logarithm }
}

impl<const BOTH: bool> Terms<1> for Kl<BOTH> {
    #[inline(always)]
    fn terms<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> [f32; 1] {
        let column = column(pair, student, teacher);
        let [q, p, difference] = probabilities::<I>(&column);
        if !BOTH {
            return [product(p, column.log_ratio) + difference];
        }
        let logarithms = product(self.forward * p, column.log_ratio)
            - product(self.reverse * q, column.log_ratio);
        [fused::<I>(self.forward - self.reverse, difference, logarithms)]
    }

    #[inline(always)]
    fn gradient<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> f32 {
        let column = column(pair, student, teacher);
        let [q, _, difference] = probabilities::<I>(&column);
        if !BOTH {
            return difference;
        }
        let reverse = product(self.reverse * q, column.log_ratio);
        let by_student = fused::<I>(self.reverse * q, self.divergence, reverse);
        fused::<I>(self.forward, difference, -by_student)
    }
}

/// `sum |p - q| / 2`. Its other sums are those of q where q is above p, below it, and where they are equal.
#[derive(Clone, Copy, Default)]
pub(super) struct TotalVariation {
    /// `1 - sum sign q`, `-1 - sum sign q` and `-sum sign q`.
    pub above: f32,
    pub below: f32,
    pub equal: f32,
}

impl Terms<4> for TotalVariation {
    #[inline(always)]
    fn terms<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> [f32; 4] {
        let [q, _, difference] = probabilities::<I>(&column(pair, student, teacher));
        [
            0.5 * difference.abs(),
            if difference > 0.0 { q } else { 0.0 },
            if difference < 0.0 { q } else { 0.0 },
            if difference == 0.0 { q } else { 0.0 },
        ]
    }

    #[inline(always)]
    fn gradient<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> f32 {
        let [q, _, difference] = probabilities::<I>(&column(pair, student, teacher));
        let below = if difference < 0.0 { self.below } else { self.equal };
        0.5 * q * if difference > 0.0 { self.above } else { below }
    }
}

/// `forward KL(p || m) + reverse KL(q || m)` with `m = teacher p + student q`; its other sum is that of w.
///
/// With `lean = forward student - reverse teacher`, which is 0 for Jensen and Shannon's, a column adds
/// `forward p ln(p/m) + reverse q ln(q/m) + lean (q - p)`, and w is `q (reverse ln(q/m) + student lean (q -
/// p)/m)`. All of it comes from r, the smaller of p and q by the larger: m is the larger times `t = c + (1 -
/// c) r` with c the larger one's part.
#[derive(Clone, Copy)]
pub(super) struct Mixture {
    /// Parts of the mixture, above 0, whose sum is 1 also as rounded.
    teacher: f32,
    student: f32,
    forward: f32,
    reverse: f32,
    lean: f32,
    /// Of w; for the gradient.
    sum: f32,
}

impl Mixture {
    pub fn new(teacher: f64, forward: f64, reverse: f64) -> Self {
        let student = 1.0 - teacher;
        // The smaller one rounds, the other is what it leaves: that difference rounds to a number which
        // rounds back to 1. Below the least normal number, r would be 0 before the part matters.
        let smaller = (teacher.min(student) as f32).max(f32::MIN_POSITIVE);
        let lean = (forward * student - reverse * teacher) as f32;
        let parts =
            if teacher < student { [smaller, 1.0 - smaller] } else { [1.0 - smaller, smaller] };
        let [forward, reverse] = [forward as f32, reverse as f32];
        Self { teacher: parts[0], student: parts[1], forward, reverse, lean, sum: 0.0 }
    }

    pub fn with_sum(self, sum: f64) -> Self {
        Self { sum: sum as f32, ..self }
    }

    /// q, p and q - p, and ln(q/m), ln(p/m) and (q - p)/m.
    #[inline(always)]
    fn column<I: Isa>(self, column: &Column) -> [[f32; 3]; 2] {
        let (larger, [r, falls], by_student) = larger::<I>(column);
        // Where both are -inf.
        let size = if larger == 0.0 { 0.0 } else { column.log_ratio.abs() };
        let least = if by_student { column.log_p } else { column.log_q };
        // Before the product, which would be subnormal.
        let smaller = larger * if least < EXP_CUTOFF { 0.0 } else { r };
        let falls = -falls;
        let (part, other) = match by_student {
            true => (self.student, self.teacher),
            false => (self.teacher, self.student),
        };
        let loss = other * falls;
        let t = if loss < 0.5 { 1.0 - loss } else { fused::<I>(other, r, part) };
        // ln(1 - loss): what t lacks of it.
        let lacks = (1.0 - t) - loss;
        let log_larger = -(natural::<I>(t) + lacks);
        let log_smaller = if smaller == 0.0 { 0.0 } else { log_larger - size };
        let (difference, relative) = (larger * falls, falls / t);
        match by_student {
            true => [[larger, smaller, difference], [log_larger, log_smaller, relative]],
            false => [[smaller, larger, -difference], [log_smaller, log_larger, -relative]],
        }
    }

    #[inline(always)]
    fn w<I: Isa>(self, q: f32, log_q: f32, relative: f32) -> f32 {
        q * fused::<I>(self.student * self.lean, relative, self.reverse * log_q)
    }
}

#[inline(always)]
fn natural<I: Isa>(x: f32) -> f32 {
    if I::FMA { ln::<true>(x) } else { ln::<false>(x) }
}

impl Terms<2> for Mixture {
    #[inline(always)]
    fn terms<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> [f32; 2] {
        let [[q, p, difference], [log_q, log_p, relative]] =
            self.column::<I>(&column(pair, student, teacher));
        let logarithms = fused::<I>(self.forward * p, log_p, self.reverse * q * log_q);
        [fused::<I>(self.lean, difference, logarithms), self.w::<I>(q, log_q, relative)]
    }

    #[inline(always)]
    fn gradient<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> f32 {
        let [[q, ..], [log_q, _, relative]] = self.column::<I>(&column(pair, student, teacher));
        self.w::<I>(q, log_q, relative) - q * self.sum
    }
}

/// `sum q A`, of which the value is the opposite, with `A = slope x + offset` of the teacher's x between two
/// limits.
#[derive(Clone, Copy)]
pub(super) struct Advantage {
    pub slope: f32,
    pub offset: f32,
    pub low: f32,
    pub high: f32,
    pub expected: f32,
}

impl Advantage {
    /// q and A, 0 where q is 0.
    #[inline(always)]
    fn column<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> [f32; 2] {
        let log_q = scaled(student, pair.student.scale) - pair.student.log_sum;
        let q = exp::<I>(log_q, EXP_CUTOFF);
        let advantage = fused::<I>(teacher, self.slope, self.offset);
        let above = if advantage < self.low { self.low } else { advantage };
        let clipped = if above > self.high { self.high } else { above };
        [q, if q == 0.0 { 0.0 } else { clipped }]
    }
}

impl Terms<1> for Advantage {
    #[inline(always)]
    fn terms<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> [f32; 1] {
        let [q, advantage] = self.column::<I>(pair, student, teacher);
        [q * advantage]
    }

    #[inline(always)]
    fn gradient<I: Isa>(self, pair: Pair, student: f32, teacher: f32) -> f32 {
        let [q, advantage] = self.column::<I>(pair, student, teacher);
        q * (self.expected - advantage)
    }
}

/// The sums of the terms over a block.
pub(super) struct Sums<'a, T, const N: usize> {
    pub terms: T,
    pub pair: Pair,
    pub student: &'a Block,
    pub teacher: &'a Block,
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
    fn run<I: Isa>(self, _: I) -> [f64; N] {
        let mut sums = [[0.0; LANES]; N];
        for (student, teacher) in self.student.chunks().iter().zip(self.teacher.chunks()) {
            for lane in 0..LANES {
                let terms = self.terms.terms::<I>(self.pair, student[lane], teacher[lane]);
                for term in 0..N {
                    sums[term][lane] += terms[term];
                }
            }
        }
        tree_sums(sums)
    }
}

/// What a gradient of temperature 1 is multiplied by. 1/T comes last: as one factor the two could overflow
/// where the products do not.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    upstream: f32,
    inverse_temperature: f32,
    /// Gradients below it become 0: subnormal products cost some 150 cycles each.
    least: f32,
}

impl Factor {
    pub fn new(upstream: f64, inverse_temperature: f64) -> Self {
        let size = upstream.abs() * inverse_temperature.min(1.0);
        let least = (f64::from(f32::MIN_POSITIVE) / size.min(1.0)) as f32;
        let [upstream, inverse_temperature] = [upstream as f32, inverse_temperature as f32];
        Self { upstream, inverse_temperature, least }
    }

    #[inline(always)]
    fn times(self, gradient: f32) -> f32 {
        let gradient = if gradient.abs() < self.least { 0.0 } else { gradient };
        gradient * self.upstream * self.inverse_temperature
    }
}

/// The gradient of a block in place of the student's logits, and with `SUMS` the sums of the terms.
pub(super) struct Gradient<'a, T, const N: usize, const SUMS: bool> {
    pub terms: T,
    pub pair: Pair,
    pub student: &'a mut Block,
    pub teacher: &'a Block,
    pub factor: Factor,
}

impl<T: Terms<N>, const N: usize, const SUMS: bool> Kernel for Gradient<'_, T, N, SUMS> {
    type Output = [f64; N];

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> [f64; N] {
        let mut sums = [[0.0; LANES]; N];
        let chunks = self.student.chunks_mut().iter_mut().zip(self.teacher.chunks());
        for (student, teacher) in chunks {
            for lane in 0..LANES {
                let (x, other) = (student[lane], teacher[lane]);
                if SUMS {
                    let terms = self.terms.terms::<I>(self.pair, x, other);
                    for term in 0..N {
                        sums[term][lane] += terms[term];
                    }
                }
                student[lane] = self.factor.times(self.terms.gradient::<I>(self.pair, x, other));
            }
        }
        tree_sums(sums)
    }
}
