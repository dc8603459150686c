//! What a column adds to a divergence, and its gradient.
//!
//! With `w[v] = q[v] * dD/dq[v]` the gradient by a logit is `w - q * sum w`, and any multiple of q may be
//! added to w. All forms here are so centred that w is 0 where p = q, and so that nothing cancels: in a row
//! that is sure of one column, the digits of that column's gradient are those of what the others leave it.
//! Likewise any multiple of q - p may be added to a divergence, whose sum is 0: `p ln(p/q) + q - p` is of
//! second order in what the row's logarithms of sums are off by, `p ln(p/q)` of first.

use super::columns::{Columns, Pair, Probabilities, student};
use crate::cpu::blocks::Chunk;
use crate::cpu::ln::ln;
use crate::cpu::rows::{LANES, fused};
use crate::cpu::simd::Isa;
use crate::stages::Measure;

/// A divergence as sums of N terms of each column; the first sum is its value.
pub(super) trait Terms<const N: usize>: Copy {
    type Columns;
    /// The same for a block that [`Pair::is_flat`].
    type Flat: Terms<N>;

    fn flat(self) -> Self::Flat;

    fn columns<I: Isa>(self, isa: I, pair: Pair, student: &Chunk, teacher: &Chunk)
    -> Self::Columns;
    fn terms<I: Isa>(self, columns: &Self::Columns, lane: usize) -> [f32; N];
    /// By the student's logit, of temperature 1.
    fn gradient<I: Isa>(self, columns: &Self::Columns, lane: usize) -> f32;
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

impl<const BOTH: bool> Kl<BOTH> {
    #[inline(always)]
    fn term<I: Isa>(self, column: Probabilities) -> f32 {
        let Probabilities { q, p, difference, log_ratio } = column;
        if !BOTH {
            return product(p, log_ratio) + difference;
        }
        let logarithms =
            product(self.forward * p, log_ratio) - product(self.reverse * q, log_ratio);
        fused::<I>(self.forward - self.reverse, difference, logarithms)
    }

    #[inline(always)]
    fn slope<I: Isa>(self, column: Probabilities) -> f32 {
        let Probabilities { q, difference, log_ratio, .. } = column;
        if !BOTH {
            return difference;
        }
        let reverse = product(self.reverse * q, log_ratio);
        let by_student = fused::<I>(self.reverse * q, self.divergence, reverse);
        fused::<I>(self.forward, difference, -by_student)
    }
}

impl<const BOTH: bool> Terms<1> for Kl<BOTH> {
    type Columns = Columns;
    type Flat = FlatKl<BOTH>;

    fn flat(self) -> FlatKl<BOTH> {
        FlatKl(self)
    }

    #[inline(always)]
    fn columns<I: Isa>(self, isa: I, pair: Pair, student: &Chunk, teacher: &Chunk) -> Columns {
        Columns::new(isa, pair, student, teacher)
    }

    #[inline(always)]
    fn terms<I: Isa>(self, columns: &Columns, lane: usize) -> [f32; 1] {
        [self.term::<I>(columns.probabilities(lane))]
    }

    #[inline(always)]
    fn gradient<I: Isa>(self, columns: &Columns, lane: usize) -> f32 {
        self.slope::<I>(columns.probabilities(lane))
    }
}

#[derive(Clone, Copy)]
pub(super) struct FlatKl<const BOTH: bool>(Kl<BOTH>);

impl<const BOTH: bool> Terms<1> for FlatKl<BOTH> {
    /// q, p and `log p - log q`.
    type Columns = [Chunk; 3];
    type Flat = Self;

    fn flat(self) -> Self {
        self
    }

    #[inline(always)]
    fn columns<I: Isa>(self, isa: I, pair: Pair, student: &Chunk, teacher: &Chunk) -> [Chunk; 3] {
        pair.apart(isa, student, teacher)
    }

    #[inline(always)]
    fn terms<I: Isa>(self, [q, p, log_ratio]: &[Chunk; 3], lane: usize) -> [f32; 1] {
        [self.0.term::<I>(Probabilities::new(q[lane], p[lane], log_ratio[lane]))]
    }

    #[inline(always)]
    fn gradient<I: Isa>(self, [q, p, log_ratio]: &[Chunk; 3], lane: usize) -> f32 {
        self.0.slope::<I>(Probabilities::new(q[lane], p[lane], log_ratio[lane]))
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
    type Columns = Columns;
    type Flat = Self;

    fn flat(self) -> Self {
        self
    }

    #[inline(always)]
    fn columns<I: Isa>(self, isa: I, pair: Pair, student: &Chunk, teacher: &Chunk) -> Columns {
        Columns::new(isa, pair, student, teacher)
    }

    #[inline(always)]
    fn terms<I: Isa>(self, columns: &Columns, lane: usize) -> [f32; 4] {
        let Probabilities { q, difference, .. } = columns.probabilities(lane);
        [
            0.5 * difference.abs(),
            if difference > 0.0 { q } else { 0.0 },
            if difference < 0.0 { q } else { 0.0 },
            if difference == 0.0 { q } else { 0.0 },
        ]
    }

    #[inline(always)]
    fn gradient<I: Isa>(self, columns: &Columns, lane: usize) -> f32 {
        let Probabilities { q, difference, .. } = columns.probabilities(lane);
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
        let lean = (forward * (1.0 - teacher) - reverse * teacher) as f32;
        let [teacher, student] = Measure::parts(teacher);
        let [forward, reverse] = [forward as f32, reverse as f32];
        Self { teacher, student, forward, reverse, lean, sum: 0.0 }
    }

    pub fn with_sum(self, sum: f64) -> Self {
        Self { sum: sum as f32, ..self }
    }

    #[inline(always)]
    fn w<I: Isa>(self, q: f32, log_q: f32, relative: f32) -> f32 {
        q * fused::<I>(self.student * self.lean, relative, self.reverse * log_q)
    }
}

/// Of the larger of p and q, and of the smaller one.
pub(super) struct Mixed {
    columns: Columns,
    /// m by the larger one.
    t: Chunk,
    /// ln(larger/m)
    log: Chunk,
}

impl Mixed {
    /// q and p, ln(q/m) and ln(p/m), and q - p and that by m.
    #[inline(always)]
    fn column(&self, lane: usize) -> [[f32; 2]; 3] {
        let Self { columns, t, log } = self;
        let (larger, smaller, log) = (columns.larger[lane], columns.smaller(lane), log[lane]);
        let log_smaller = if smaller == 0.0 { 0.0 } else { log - columns.log_ratio[lane].abs() };
        let falls = columns.falls[lane];
        let [difference, relative] = [larger * falls, falls / t[lane]];
        match columns.by_student(lane) {
            true => [[larger, smaller], [log, log_smaller], [-difference, -relative]],
            false => [[smaller, larger], [log_smaller, log], [difference, relative]],
        }
    }
}

#[inline(always)]
fn natural<I: Isa>(x: f32) -> f32 {
    if I::FMA { ln::<true>(x) } else { ln::<false>(x) }
}

impl Terms<2> for Mixture {
    type Columns = Mixed;
    type Flat = Self;

    fn flat(self) -> Self {
        self
    }

    #[inline(always)]
    fn columns<I: Isa>(self, isa: I, pair: Pair, student: &Chunk, teacher: &Chunk) -> Mixed {
        let columns = Columns::new(isa, pair, student, teacher);
        let [mut t, mut log] = [[0.0f32; LANES]; 2];
        for lane in 0..LANES {
            let (part, other) = match columns.by_student(lane) {
                true => (self.student, self.teacher),
                false => (self.teacher, self.student),
            };
            let loss = -other * columns.falls[lane];
            let near = 1.0 - loss;
            t[lane] = if loss < 0.5 { near } else { fused::<I>(other, columns.ratio[lane], part) };
            // Of ln(1 - loss), what t lacks of it.
            log[lane] = (1.0 - t[lane]) - loss;
        }
        for lane in 0..LANES {
            log[lane] = -(natural::<I>(t[lane]) + log[lane]);
        }
        Mixed { columns, t, log }
    }

    #[inline(always)]
    fn terms<I: Isa>(self, columns: &Mixed, lane: usize) -> [f32; 2] {
        let [[q, p], [log_q, log_p], [difference, relative]] = columns.column(lane);
        // Not fused: the divergence of Jensen and Shannon has the same bits with the two exchanged.
        let logarithms = self.forward * p * log_p + self.reverse * q * log_q;
        [fused::<I>(self.lean, difference, logarithms), self.w::<I>(q, log_q, relative)]
    }

    #[inline(always)]
    fn gradient<I: Isa>(self, columns: &Mixed, lane: usize) -> f32 {
        let [[q, _], [log_q, _], [_, relative]] = columns.column(lane);
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

impl Terms<1> for Advantage {
    /// q and A, 0 where q is 0.
    type Columns = [Chunk; 2];
    type Flat = Self;

    fn flat(self) -> Self {
        self
    }

    #[inline(always)]
    fn columns<I: Isa>(self, isa: I, pair: Pair, ours: &Chunk, teacher: &Chunk) -> [Chunk; 2] {
        let (q, mut advantages) = (student(isa, pair, ours), [0.0; LANES]);
        for lane in 0..LANES {
            let advantage = fused::<I>(teacher[lane], self.slope, self.offset);
            let above = if advantage < self.low { self.low } else { advantage };
            let clipped = if above > self.high { self.high } else { above };
            advantages[lane] = if q[lane] == 0.0 { 0.0 } else { clipped };
        }
        [q, advantages]
    }

    #[inline(always)]
    fn terms<I: Isa>(self, [q, advantage]: &[Chunk; 2], lane: usize) -> [f32; 1] {
        [q[lane] * advantage[lane]]
    }

    #[inline(always)]
    fn gradient<I: Isa>(self, [q, advantage]: &[Chunk; 2], lane: usize) -> f32 {
        q[lane] * (self.expected - advantage[lane])
    }
}
