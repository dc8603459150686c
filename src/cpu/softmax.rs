//! The sums of exponentials of student and teacher, block by block in index order.
//!
//! A block's exponentials are of the largest logit so far, so that what was summed before is scaled only
//! where a block raises it: a few times a row, where states of each block would be merged by exponentials in
//! f64 for every block.

use std::ops::Range;

use super::blocks::{Ahead, Block, Chunk, Row, blocks, next};
use super::exp::{EXP_CUTOFF, Exponential};
use super::rows::{LANES, Scale, fused, tree_sum};
use super::simd::{Isa, Kernel, Simd};
use super::state::RowState;

/// A block whose sum is below this has exactly one element at the maximum (two would make it 2).
const PEAKED: f32 = 1.5;

/// Of a row so far, with z = (x - maximum) / T.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    maximum: f32,
    inverse_temperature: f64,
    exponential: Exponential,
    /// `sum exp(z)` without the 1 of the maximum: a confident row keeps its digits.
    excess: f64,
    /// `sum exp(z) z`, where it is asked for.
    weighted: f64,
    /// `sum exp(z) (z - z')` with z' of the other distribution, likewise, over what the other does not exclude.
    gap: f64,
    /// The largest logit that the other excludes, likewise.
    excluded: f32,
}

impl Softmax {
    pub fn new(inverse_temperature: f64) -> Self {
        let [maximum, excluded] = [f32::NEG_INFINITY; 2];
        let exponential = Exponential::new(inverse_temperature);
        let [excess, weighted, gap] = [0.0; 3];
        Self { maximum, inverse_temperature, exponential, excess, weighted, gap, excluded }
    }

    /// Of the first columns of a row by itself, as stage 1 has it: its elements are read as they are, where the
    /// blocks of two rows are widened first.
    pub fn of(
        simd: Simd,
        row: Row<'_>,
        (columns, inverse_temperature): (usize, f64),
        moments: bool,
    ) -> Self {
        Self::of_state(&row.state(simd, columns, (inverse_temperature, moments)))
    }

    pub fn of_state(state: &RowState) -> Self {
        let (maximum, weighted) = (state.maximum(), state.weighted());
        let excess = if maximum == f32::NEG_INFINITY { 0.0 } else { state.excess() };
        Self { maximum, excess, weighted, ..Self::new(state.inverse_temperature()) }
    }

    /// Of a row whose blocks, and their maxima, `read` makes from the memory that `bytes` names.
    pub fn read<'a>(
        simd: Simd,
        bytes: impl Fn(Range<usize>) -> &'a [u8],
        (columns, inverse_temperature): (usize, f64),
        moments: bool,
        read: impl Fn(Range<usize>, &mut Block) -> f32,
    ) -> Self {
        let (mut state, mut block) = (Self::new(inverse_temperature), Block::new());
        for range in blocks(columns) {
            let ahead = bytes(next(&range, columns));
            let maximum = read(range, &mut block);
            let raised = state.shift(maximum);
            state.raise(maximum, [raised.unwrap_or(0.0); 2]);
            let other = (&block, state.scale());
            state.add((simd, ahead), &block, other, (raised.is_some(), moments));
        }
        state
    }

    /// Adds a block of two rows, with the block's maxima; `moments` says whose are summed.
    pub fn add_pair(
        (simd, ahead): (Simd, [&[u8]; 2]),
        pair: &mut [Self; 2],
        blocks: [&Block; 2],
        maxima: [f32; 2],
        moments: [bool; 2],
    ) {
        let raised = [pair[0].shift(maxima[0]), pair[1].shift(maxima[1])];
        let shifts = raised.map(|shift| shift.unwrap_or(0.0));
        for side in [0, 1] {
            pair[side].raise(maxima[side], [shifts[side], shifts[1 - side]]);
        }
        let scales = pair.each_ref().map(Self::scale);
        for side in [0, 1] {
            let other = (blocks[1 - side], scales[1 - side]);
            let asked = (raised[side].is_some(), moments[side]);
            pair[side].add((simd, ahead[side]), blocks[side], other, asked);
        }
    }

    /// By how much every z falls if the maximum rises to this one.
    fn shift(&self, maximum: f32) -> Option<f64> {
        // NaN raises nothing; the sums show it.
        let raises = maximum > self.maximum;
        let by = f64::from(self.scale().maximum) - f64::from(maximum);
        raises.then_some(by * self.inverse_temperature)
    }

    /// Moves the sums by the shifts of the own z and of the other's.
    fn raise(&mut self, maximum: f32, [shift, others]: [f64; 2]) {
        let total = self.total();
        if total == 0.0 {
            self.maximum = self.maximum.max(maximum);
            return;
        }
        let apart = shift - others;
        if apart != 0.0 {
            self.gap += apart * total;
        }
        if maximum > self.maximum {
            let factor = shift.exp();
            self.maximum = maximum;
            self.excess = factor * total;
            // The shift may be infinite, and what weighs nothing any more counts for nothing.
            let weighted = self.weighted + shift * total;
            self.weighted = if factor == 0.0 { 0.0 } else { factor * weighted };
            self.gap *= factor;
        }
    }

    fn add(
        &mut self,
        (simd, ahead): (Simd, &[u8]),
        block: &Block,
        (other, other_scale): (&Block, Scale),
        (raised, moments): (bool, bool),
    ) {
        let (x, scale) = (block.chunks(), self.scale());
        let (other, ahead) = ((other.chunks(), other_scale), Ahead([ahead, &[], &[]]));
        let ([sum, weighted, gap], excluded) = match moments {
            true => simd.run(Sums::<true> { x, scale, other, ahead }),
            false => simd.run(Sums::<false> { x, scale, other, ahead }),
        };
        // As in `rows`: what is left of the largest 1 drowns in its rounding where it is small.
        self.excess += match raised {
            true if sum < f64::from(PEAKED) => simd.run(Rest { x, scale }),
            true => sum - 1.0,
            false => sum,
        };
        self.weighted += weighted;
        self.gap += gap;
        self.excluded = self.excluded.max(excluded);
    }

    /// How z is computed. 0 stands for the maximum as long as all logits are -inf, so that their z is -inf.
    pub fn scale(&self) -> Scale {
        let maximum = if self.maximum == f32::NEG_INFINITY { 0.0 } else { self.maximum };
        Scale { maximum, exponential: self.exponential }
    }

    pub fn inverse_temperature(&self) -> f64 {
        self.inverse_temperature
    }

    fn total(&self) -> f64 {
        let largest = if self.maximum == f32::NEG_INFINITY { 0.0 } else { 1.0 };
        largest + self.excess
    }

    /// `ln sum exp(z)` >= 0. NaN for a row with NaN or +inf, or of -inf alone.
    pub fn log_sum(&self) -> f64 {
        if self.maximum == f32::NEG_INFINITY { f64::NAN } else { self.excess.ln_1p() }
    }

    /// Whether every logit is -inf.
    pub fn is_empty(&self) -> bool {
        self.maximum == f32::NEG_INFINITY && self.excess == 0.0
    }

    pub fn entropy(&self) -> f64 {
        self.log_sum() - self.weighted / self.total()
    }

    /// The Kullback-Leibler divergence of this distribution from the other.
    pub fn divergence_from(&self, other: &Self) -> f64 {
        let below = f64::from(self.excluded) - f64::from(self.maximum);
        if below * self.inverse_temperature >= f64::from(EXP_CUTOFF) {
            return f64::INFINITY;
        }
        self.gap / self.total() - (self.log_sum() - other.log_sum())
    }
}

/// The sums over a block, and with `MOMENTS` those of z and of z - z', and the largest logit that the other
/// excludes.
struct Sums<'a, const MOMENTS: bool> {
    x: &'a [Chunk],
    scale: Scale,
    other: (&'a [Chunk], Scale),
    ahead: Ahead<'a>,
}

impl<const MOMENTS: bool> Kernel for Sums<'_, MOMENTS> {
    type Output = ([f64; 3], f32);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> ([f64; 3], f32) {
        let (scale, (others, other_scale)) = (self.scale, self.other);
        let [mut plain, mut weighted, mut gap] = [[0.0f32; LANES]; 3];
        let mut excluded = [f32::NEG_INFINITY; LANES];
        for (chunk, (x, other)) in self.x.iter().zip(others).enumerate() {
            self.ahead.prefetch(isa, chunk);
            let exponentials = scale.exponential.of(isa, &scale.differences(x));
            for lane in 0..LANES {
                let e = exponentials[lane];
                plain[lane] += e;
                if MOMENTS {
                    let (z, other) = (scale.z(x[lane]), other_scale.z(other[lane]));
                    let is_excluded = other == f32::NEG_INFINITY;
                    // 0 * -inf would be NaN.
                    let finite = if z < EXP_CUTOFF { 0.0 } else { z };
                    let difference = if z < EXP_CUTOFF || is_excluded { 0.0 } else { z - other };
                    let logit = if is_excluded { x[lane] } else { f32::NEG_INFINITY };
                    excluded[lane] = if logit > excluded[lane] { logit } else { excluded[lane] };
                    weighted[lane] = fused::<I>(e, finite, weighted[lane]);
                    gap[lane] = fused::<I>(e, difference, gap[lane]);
                }
            }
        }
        let moment = |lanes| if MOMENTS { tree_sum(lanes) } else { 0.0 };
        let excluded = excluded.into_iter().fold(f32::NEG_INFINITY, f32::max);
        ([tree_sum(plain), moment(weighted), moment(gap)], excluded)
    }
}

/// The sum over the logits of a block below the maximum.
struct Rest<'a> {
    x: &'a [Chunk],
    scale: Scale,
}

impl Kernel for Rest<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        let mut rest = [0.0f32; LANES];
        for x in self.x {
            let differences = self.scale.differences(x);
            let exponentials = self.scale.exponential.of(isa, &differences);
            for lane in 0..LANES {
                rest[lane] += if differences[lane] == 0.0 { 0.0 } else { exponentials[lane] };
            }
        }
        tree_sum(rest)
    }
}
