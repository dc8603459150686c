//! The two visits of a row of logits: block states (stage 1) and logits gradient (stage 4).
//!
//! Plain loops over fixed arrays of lanes; `simd` compiles them once per instruction set, and they
//! become straight vector code there. Everything is `#[inline(always)]` and free of closures: a
//! function that stays outlined is compiled for the baseline and calls libm for every fused
//! multiply-add.
//!
//! Each of 64 columns always adds to the same lane, the lanes always meet in the same tree, and short tails are
//! padded with -inf. So a row's bits do not depend on its alignment, on its
//! neighbours, or on how blocks are given to threads.

#![expect(
    clippy::needless_range_loop,
    reason = "one index over several lane arrays; the shape that vectorises"
)]

use crate::cpu::convert::Lanes;
use crate::cpu::exp::{EXP_CUTOFF, Exponential, multiply_add};
use crate::cpu::peak::Peak;
use crate::cpu::simd::{Isa, Kernel};
use crate::cpu::state::BlockState;

/// Columns per [`BlockState`]. An f32 block fits a first-level cache, for those that are summed twice. 2048
/// measured 3 to 9 % slower: the tree and the f64 merge come twice as often.
pub(crate) const BLOCK: usize = 4096;

/// Four AVX-512 registers of f32: enough independent sums to hide the latency of an addition.
pub(crate) const LANES: usize = 64;

/// A block whose sum is below this is summed a second time without its largest elements, see [`block_state`].
const PEAKED: f64 = 2.5;

#[inline(always)]
pub(crate) fn fused<I: Isa>(a: f32, b: f32, c: f32) -> f32 {
    if I::FMA { multiply_add::<true>(a, b, c) } else { multiply_add::<false>(a, b, c) }
}

#[inline(always)]
pub(crate) fn padded<E: Lanes>(tail: &[E]) -> [E; LANES] {
    let mut lanes = [E::NEG_INFINITY; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    lanes
}

#[inline(always)]
pub(crate) fn tree_sum(mut lanes: [f32; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    f64::from(lanes[0])
}

/// Just above ln 2^-63. The square of an exponential below it would be subnormal (for what that costs
/// see [`EXP_CUTOFF`]). All of them together are less than 2^-63 of the sum of what is not the maximum,
/// which is nothing beside a result of at least ln sum exp(z) in size.
const SQUARE_CUTOFF: f32 = -43.668_26;

/// sum exp(z) and, with `MOMENTS`, sum exp(z) z and sum exp(z)^2.
struct Sums<const MOMENTS: bool> {
    plain: [f32; LANES],
    /// How many elements were left out.
    peaks: [f32; LANES],
    weighted: [f32; LANES],
    squares: [f32; LANES],
}

impl<const MOMENTS: bool> Sums<MOMENTS> {
    #[inline(always)]
    fn new() -> Self {
        let [plain, peaks, weighted, squares] = [[0.0; LANES]; 4];
        Self { plain, peaks, weighted, squares }
    }

    #[inline(always)]
    fn add_sums(&mut self, other: &Self) {
        for lane in 0..LANES {
            self.plain[lane] += other.plain[lane];
            self.peaks[lane] += other.peaks[lane];
            if MOMENTS {
                self.weighted[lane] += other.weighted[lane];
                self.squares[lane] += other.squares[lane];
            }
        }
    }

    /// `REST` leaves out the elements equal to the maximum (they weigh 0 in the second sum anyway), and takes the
    /// others from their exact distance: where one element is far above all, what the differences lose would be all
    /// of the error.
    #[inline(always)]
    fn add<E: Lanes, I: Isa, const REST: bool>(
        &mut self,
        isa: I,
        chunk: &[E; LANES],
        scale: Scale,
    ) {
        let values = E::load_unordered(isa, chunk);
        let differences = scale.differences(&values);
        let exponentials = scale.exponential.of(isa, &differences);
        for lane in 0..LANES {
            let (difference, e) = (differences[lane], exponentials[lane]);
            let mut term = e;
            if REST {
                let lost = values[lane] - (difference + scale.maximum);
                let exact = fused::<I>(e, lost * scale.exponential.inverse_temperature, e);
                // 0 * (-inf - -inf) would be NaN.
                term = if difference == 0.0 || e == 0.0 { 0.0 } else { exact };
                self.peaks[lane] += if difference == 0.0 { 1.0 } else { 0.0 };
            }
            self.plain[lane] += term;
            if MOMENTS {
                let z = difference * scale.exponential.inverse_temperature;
                // 0 * -inf would be NaN.
                let finite = if z < EXP_CUTOFF { 0.0 } else { z };
                self.weighted[lane] = fused::<I>(e, finite, self.weighted[lane]);
                let root = if z < SQUARE_CUTOFF { 0.0 } else { term };
                self.squares[lane] = fused::<I>(root, root, self.squares[lane]);
            }
        }
    }
}

/// z = (x - maximum) / T. The maximum always goes first: folding it into one multiply-add of x
/// loses the digits of z when the logits have a large common offset.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub maximum: f32,
    pub exponential: Exponential,
}

impl Scale {
    #[inline(always)]
    pub fn differences(self, x: &[f32; LANES]) -> [f32; LANES] {
        let mut differences = [0.0; LANES];
        for lane in 0..LANES {
            differences[lane] = x[lane] - self.maximum;
        }
        differences
    }

    #[inline(always)]
    pub fn z(self, x: f32) -> f32 {
        (x - self.maximum) * self.exponential.inverse_temperature
    }
}

/// Sums over the block, without the elements equal to the scale's maximum if `REST`, and with the block's
/// maximum if not (a NaN may be that; the sums show it).
///
/// The prefetch buys 20 %: hardware stops at 4 KiB pages.
#[inline(always)]
fn sum_block<E: Lanes, I: Isa, const MOMENTS: bool, const REST: bool>(
    isa: I,
    block: &[E],
    scale: Scale,
) -> (Sums<MOMENTS>, f32) {
    let mut sums = Sums::<MOMENTS>::new();
    let mut peak = E::Peak::NONE;
    let (chunks, tail) = block.as_chunks::<LANES>();
    for chunks in chunks.chunks(GROUP) {
        let mut group = Sums::<MOMENTS>::new();
        for chunk in chunks {
            isa.prefetch_ahead(chunk);
            if !REST {
                peak.raise(isa, chunk);
            }
            group.add::<E, I, REST>(isa, chunk, scale);
        }
        sums.add_sums(&group);
    }
    if !tail.is_empty() {
        let tail = padded(tail);
        peak.raise(isa, &tail);
        sums.add::<E, I, REST>(isa, &tail, scale);
    }
    (sums, peak.value())
}

/// Chunks whose lanes are summed before they join those of the block: beside a large element a lane loses what is
/// small of so many others, at most.
const GROUP: usize = 8;

/// The maximum of the first [`LANES`] columns, near that of all of them.
#[inline(always)]
fn estimate<E: Lanes, I: Isa>(isa: I, block: &[E]) -> f32 {
    let mut peak = E::Peak::NONE;
    peak.raise(isa, &padded(&block[..block.len().min(LANES)]));
    peak.value()
}

/// How far the maximum's z may lie above the estimate's. The sum of exp(z)^2 over a lane is far below the largest
/// f32, and the moments, moved by as much, are off by less than 10 half ulps of the total.
const FAR: f64 = 10.0;

#[inline(always)]
fn has_nan<E: Lanes>(block: &[E]) -> bool {
    let mut found = false;
    for value in block {
        found |= value.load().is_nan();
    }
    found
}

/// Stage 1 of a block, in one visit: its exponentials are of the distance from an estimate of the maximum, and
/// their sums are moved in f64 to the maximum, which is known afterwards. (A visit for the maximum before makes
/// f32 rows two fifths slower, whose blocks of 16 KiB then are to stay in the first-level cache beside the next.)
///
/// The excess of a block that is a peak or two and little else drowns in the rounding of the 1 that a peak adds to
/// a lane. Such a block is summed again without them, and only the block is asked, so the answer is its own.
/// Leaving the peaks out of every sum instead (a comparison and a masked addition per element) makes every row 7
/// to 12 % slower with AVX-512, from cache.
#[inline(always)]
fn block_state<E: Lanes, I: Isa, const MOMENTS: bool>(
    isa: I,
    block: &[E],
    exponential: Exponential,
) -> BlockState {
    let scale = |maximum| Scale { maximum, exponential };
    let estimate = estimate(isa, block);
    let (mut sums, maximum) = sum_block::<E, I, MOMENTS, false>(isa, block, scale(estimate));
    let mut above =
        (f64::from(maximum) - f64::from(estimate)) * f64::from(exponential.inverse_temperature);
    // NaN where both are infinite, or one is NaN.
    if above.is_nan() || above > FAR {
        (sums, _) = sum_block::<E, I, MOMENTS, false>(isa, block, scale(maximum));
        above = 0.0;
    }
    let factor = (-above).exp();
    let total = tree_sum(sums.plain);
    if total.is_nan() {
        // An element is NaN, or the maximum is infinite and gave inf - inf.
        return if has_nan(block) {
            BlockState::nan(f32::NAN)
        } else if maximum == f32::NEG_INFINITY {
            BlockState::EMPTY
        } else {
            BlockState::nan(maximum)
        };
    }
    let moment = |lanes| if MOMENTS { tree_sum(lanes) } else { 0.0 };
    if factor * total < PEAKED {
        let (rest, _) = sum_block::<E, I, MOMENTS, true>(isa, block, scale(maximum));
        let others = tree_sum(rest.peaks) - 1.0;
        return BlockState {
            maximum,
            excess: tree_sum(rest.plain) + others,
            weighted: moment(rest.weighted),
            squares: moment(rest.squares) + others,
        };
    }
    BlockState {
        maximum,
        excess: factor * total - 1.0,
        weighted: if MOMENTS { factor * (tree_sum(sums.weighted) - above * total) } else { 0.0 },
        squares: factor * factor * moment(sums.squares) - 1.0,
    }
}

/// Stage 1: one state per block of `x`, which starts at a block boundary of its row.
pub(crate) struct BlockStates<'a, E, const MOMENTS: bool> {
    pub x: &'a [E],
    pub exponential: Exponential,
    pub states: &'a mut [BlockState],
}

impl<E: Lanes, const MOMENTS: bool> Kernel for BlockStates<'_, E, MOMENTS> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (state, block) in self.states.iter_mut().zip(self.x.chunks(BLOCK)) {
            *state = block_state::<E, I, MOMENTS>(isa, block, self.exponential);
        }
    }
}

/// First column equal to `maximum`, or first NaN if that is NaN; `block.len()` if there is none.
pub(crate) struct Find<'a, E> {
    pub block: &'a [E],
    pub maximum: f32,
}

impl<E: Lanes> Kernel for Find<'_, E> {
    type Output = usize;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        let Self { block, maximum } = self;
        let (chunks, _) = block.as_chunks::<LANES>();
        let mut start = 0;
        for chunk in chunks {
            let values = E::load_lanes(isa, chunk);
            let mut found = false;
            for lane in 0..LANES {
                found |= values[lane] == maximum || (values[lane].is_nan() && maximum.is_nan());
            }
            if found {
                break;
            }
            start += LANES;
        }
        for (offset, value) in block[start..].iter().enumerate() {
            let value = value.load();
            if value == maximum || (value.is_nan() && maximum.is_nan()) {
                return start + offset;
            }
        }
        block.len()
    }
}
