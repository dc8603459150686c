//! Student and teacher column by column: the logarithms of q and p, and the two themselves.
//!
//! What a column needs is computed for [`LANES`] columns at a time in loops of a few operations each. As one
//! loop it is a chain of dependent operations that fills the processor's scheduler before the next columns'
//! chain begins: 1.85 ns a column for the forward KL and its gradient, bf16 in cache with AVX-512, 1.6 so.

#![expect(
    clippy::needless_range_loop,
    reason = "one index over several lane arrays; the shape that vectorises"
)]

use crate::cpu::blocks::Chunk;
use crate::cpu::exp::{EXP_CUTOFF, exp_and_m1};
use crate::cpu::rows::{LANES, Scale, exp};
use crate::cpu::simd::Isa;
use crate::cpu::softmax::Softmax;

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
    inverse_sum: f32,
    /// Where z is below it, the probability would be subnormal.
    cutoff: f32,
}

impl Pair {
    pub fn new(student: &Softmax, teacher: &Softmax) -> Self {
        let apart = (student.log_sum() - teacher.log_sum()) as f32;
        let side = |row: &Softmax| {
            let log_sum = row.log_sum();
            // Just above, because both are rounded.
            let cutoff = (f64::from(EXP_CUTOFF) + log_sum + 1e-5) as f32;
            Side {
                scale: row.scale(),
                log_sum: log_sum as f32,
                inverse_sum: (-log_sum).exp() as f32,
                cutoff,
            }
        };
        Self { student: side(student), teacher: side(teacher), apart }
    }
}

/// A row has at most 64 columns of a larger probability, in as many blocks of the two.
const SMALL: f32 = 1.0 / 64.0;

impl Pair {
    /// Whether every probability of columns with these maxima is below [`SMALL`].
    pub fn is_flat(self, [student, teacher]: [f32; 2]) -> bool {
        let log_prob = |side: Side, maximum| scaled(maximum, side.scale) - side.log_sum;
        let likeliest = log_prob(self.student, student).max(log_prob(self.teacher, teacher));
        likeliest < SMALL.ln()
    }
}

#[inline(always)]
fn scaled(x: f32, scale: Scale) -> f32 {
    (x - scale.maximum) * scale.inverse_temperature
}

/// The larger of p and q, and the smaller one's ratio to it.
pub(super) struct Columns {
    /// `log p - log q`; NaN where both are -inf.
    pub log_ratio: Chunk,
    /// Of the larger one, its logarithm at first.
    pub larger: Chunk,
    /// Of the smaller one, for [`Columns::smaller`].
    pub log_smaller: Chunk,
    /// The ratio, but 2^-126 where it is less.
    pub ratio: Chunk,
    /// The ratio - 1.
    pub falls: Chunk,
}

impl Columns {
    /// One exponential is of the larger logarithm, the other is the ratio's, with 1 taken off before it
    /// rounds: q - p has its digits where the two are near each other.
    #[inline(always)]
    pub fn new<I: Isa>(pair: Pair, student: &Chunk, teacher: &Chunk) -> Self {
        let Pair { student: ours, teacher: theirs, apart } = pair;
        let [mut log_ratio, mut log_smaller, mut larger, mut ratio, mut falls] =
            [[0.0f32; LANES]; 5];
        for lane in 0..LANES {
            let z = scaled(student[lane], ours.scale);
            let other = scaled(teacher[lane], theirs.scale);
            let (log_q, log_p) = (z - ours.log_sum, other - theirs.log_sum);
            // Not of the two above, whose rounding is that of their size.
            log_ratio[lane] = (other - z) + apart;
            larger[lane] = if log_q > log_p { log_q } else { log_p };
            log_smaller[lane] = if log_q > log_p { log_p } else { log_q };
        }
        for lane in 0..LANES {
            larger[lane] = exp::<I>(larger[lane], EXP_CUTOFF);
        }
        for lane in 0..LANES {
            let size = -log_ratio[lane].abs();
            let both = if I::FMA { exp_and_m1::<true>(size) } else { exp_and_m1::<false>(size) };
            [ratio[lane], falls[lane]] = both;
        }
        Self { log_ratio, larger, log_smaller, ratio, falls }
    }

    #[inline(always)]
    pub fn by_student(&self, lane: usize) -> bool {
        self.log_ratio[lane] < 0.0
    }

    /// To its own digits.
    #[inline(always)]
    pub fn smaller(&self, lane: usize) -> f32 {
        // Before the product, which would be subnormal.
        let ratio = if self.log_smaller[lane] < EXP_CUTOFF { 0.0 } else { self.ratio[lane] };
        self.larger[lane] * ratio
    }
}

/// q and p themselves.
pub(super) struct Probabilities {
    pub q: Chunk,
    pub p: Chunk,
    /// q - p
    pub difference: Chunk,
    /// `log p - log q`; NaN where both are -inf.
    pub log_ratio: Chunk,
}

impl Probabilities {
    /// With the digits of q - p. The smaller of q and p is known to half an ulp of the larger, which in
    /// `p ln(p/q) + q - p` is no more than the larger one's own rounding.
    #[inline(always)]
    pub fn near<I: Isa>(pair: Pair, student: &Chunk, teacher: &Chunk) -> Self {
        let columns = Columns::new::<I>(pair, student, teacher);
        let [mut q, mut p, mut difference] = [[0.0f32; LANES]; 3];
        for lane in 0..LANES {
            let larger = columns.larger[lane];
            let by = larger * columns.falls[lane];
            let smaller = larger + by;
            [q[lane], p[lane], difference[lane]] = match columns.by_student(lane) {
                true => [larger, smaller, -by],
                false => [smaller, larger, by],
            };
        }
        Self { q, p, difference, log_ratio: columns.log_ratio }
    }

    /// Each from its own exponential, a sixth less work: q - p is known to an ulp of the larger one.
    #[inline(always)]
    pub fn apart<I: Isa>(pair: Pair, student: &Chunk, teacher: &Chunk) -> Self {
        let Pair { student: ours, teacher: theirs, apart } = pair;
        let [mut q, mut p, mut difference, mut log_ratio] = [[0.0f32; LANES]; 4];
        for lane in 0..LANES {
            q[lane] = scaled(student[lane], ours.scale);
            p[lane] = scaled(teacher[lane], theirs.scale);
            log_ratio[lane] = (p[lane] - q[lane]) + apart;
        }
        for lane in 0..LANES {
            q[lane] = exp::<I>(q[lane], ours.cutoff) * ours.inverse_sum;
        }
        for lane in 0..LANES {
            p[lane] = exp::<I>(p[lane], theirs.cutoff) * theirs.inverse_sum;
            difference[lane] = q[lane] - p[lane];
        }
        Self { q, p, difference, log_ratio }
    }
}

/// The student's q alone.
#[inline(always)]
pub(super) fn student<I: Isa>(pair: Pair, student: &Chunk) -> Chunk {
    let mut q = [0.0; LANES];
    for lane in 0..LANES {
        let log_q = scaled(student[lane], pair.student.scale) - pair.student.log_sum;
        q[lane] = exp::<I>(log_q, EXP_CUTOFF);
    }
    q
}
