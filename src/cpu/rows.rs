//! Stage 1 of a row of logits: the states of its blocks.
//!
//! Like all row kernels these are plain loops over fixed arrays of lanes; `simd` compiles them once per instruction
//! set, and they become straight vector code there. Everything is `#[inline(always)]` and free of closures: a
//! function that stays outlined is compiled for the baseline and calls libm for every fused multiply-add.
//!
//! Each of 64 columns always adds to the same lane, the lanes always meet in the same tree, and short tails are
//! padded with -inf. So a row's bits do not depend on its alignment, on its
//! neighbours, or on how blocks are given to threads.

use crate::cpu::anchored::Anchored;
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
pub(crate) fn tree_sum<const N: usize>(mut lanes: [f32; N]) -> f64 {
    let mut half = N / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    f64::from(lanes[0])
}

/// Just above ln 2^-63, and a 32nd of a binade more, by which [`Anchored`] may be below the estimate. The square of an
/// exponential below it would be subnormal (for what that costs see [`EXP_CUTOFF`]). All of them together are less than 2^-63 of the sum of what is not the maximum,
/// which is nothing beside a result of at least ln sum exp(z) in size.
const SQUARE_CUTOFF: f32 = -43.646;

/// sum exp(z) and, with `MOMENTS`, sum exp(z) z T and sum exp(z)^2.
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

    #[inline(always)]
    fn add<E: Lanes, I: Isa, M: Exponentials<I>>(
        &mut self,
        isa: I,
        chunk: &[E; LANES],
        scale: Scale,
        (exponentials, [least, least_root]): (M, [f32; 2]),
    ) {
        let values = E::load_unordered(isa, chunk);
        let terms = exponentials.add(isa, &values, scale, [&mut self.plain, &mut self.peaks]);
        if !MOMENTS {
            return;
        }
        for lane in 0..LANES {
            let difference = values[lane] - scale.maximum;
            // 0 * -inf would be NaN.
            let finite = if difference > least { difference } else { least };
            self.weighted[lane] = fused::<I>(terms[lane], finite, self.weighted[lane]);
            let root = if difference < least_root { 0.0 } else { terms[lane] };
            self.squares[lane] = fused::<I>(root, root, self.squares[lane]);
        }
    }
}

/// A form of the exponentials of a block.
trait Exponentials<I: Isa>: Copy {
    /// Whether the elements equal to the scale's maximum are left out, and counted.
    const REST: bool = false;

    /// Adds those of some columns, and returns them.
    fn add(
        self,
        isa: I,
        values: &[f32; LANES],
        scale: Scale,
        sums: [&mut [f32; LANES]; 2],
    ) -> [f32; LANES];
}

/// Of the logits as they are.
impl<I: Isa> Exponentials<I> for Anchored {
    #[inline(always)]
    fn add(
        self,
        isa: I,
        values: &[f32; LANES],
        _: Scale,
        [plain, _]: [&mut [f32; LANES]; 2],
    ) -> [f32; LANES] {
        isa.add_anchored(&self, values, plain)
    }
}

/// Of their distances from the scale's maximum.
#[derive(Clone, Copy)]
struct Distances;

impl<I: Isa> Exponentials<I> for Distances {
    #[inline(always)]
    fn add(
        self,
        isa: I,
        values: &[f32; LANES],
        scale: Scale,
        [plain, _]: [&mut [f32; LANES]; 2],
    ) -> [f32; LANES] {
        let exponentials = scale.exponential.of(isa, &scale.differences(values));
        for lane in 0..LANES {
            plain[lane] += exponentials[lane];
        }
        exponentials
    }
}

/// Those without the elements equal to the maximum (they weigh 0 in the second sum anyway), from their exact
/// distance: where one element is far above all, what the differences lose would be all of the error.
#[derive(Clone, Copy)]
struct Rest;

impl<I: Isa> Exponentials<I> for Rest {
    const REST: bool = true;

    #[inline(always)]
    fn add(
        self,
        isa: I,
        values: &[f32; LANES],
        scale: Scale,
        [plain, peaks]: [&mut [f32; LANES]; 2],
    ) -> [f32; LANES] {
        let differences = scale.differences(values);
        let mut terms = scale.exponential.of(isa, &differences);
        for lane in 0..LANES {
            let (difference, e) = (differences[lane], terms[lane]);
            // Knuth's, for whichever is the larger.
            let back = difference - values[lane];
            let lost = (values[lane] - (difference - back)) - (scale.maximum + back);
            let exact = fused::<I>(e, lost * scale.exponential.inverse_temperature, e);
            // 0 * (-inf - -inf) would be NaN.
            terms[lane] = if difference == 0.0 || e == 0.0 { 0.0 } else { exact };
            peaks[lane] += if difference == 0.0 { 1.0 } else { 0.0 };
            plain[lane] += terms[lane];
        }
        terms
    }
}

/// z = (x - maximum) / T. The maximum goes first: folding its rounded multiple into one multiply-add of x
/// loses the digits of z when the logits have a large common offset. ([`Anchored`] folds in what is exact.)
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

/// Sums over the block, and the block's maximum where they are not without it (a NaN may be that; the sums show it).
///
/// The prefetch buys 20 %: hardware stops at 4 KiB pages.
#[inline(always)]
fn sum_block<E: Lanes, I: Isa, M: Exponentials<I>, const MOMENTS: bool>(
    isa: I,
    block: &[E],
    scale: Scale,
    exponentials: M,
) -> (Sums<MOMENTS>, f32) {
    let mut sums = Sums::<MOMENTS>::new();
    let mut peak = E::Peak::NONE;
    let temperature = 1.0 / scale.exponential.inverse_temperature;
    let exponentials = (exponentials, [EXP_CUTOFF * temperature, SQUARE_CUTOFF * temperature]);
    let (chunks, tail) = block.as_chunks::<LANES>();
    for chunks in chunks.chunks(GROUP) {
        let mut group = Sums::<MOMENTS>::new();
        for chunk in chunks {
            isa.prefetch_ahead(chunk);
            if !M::REST {
                peak.raise(isa, chunk);
            }
            group.add(isa, chunk, scale, exponentials);
        }
        sums.add_sums(&group);
    }
    if !tail.is_empty() {
        let tail = padded(tail);
        if !M::REST {
            peak.raise(isa, &tail);
        }
        sums.add(isa, &tail, scale, exponentials);
    }
    (sums, peak.value())
}

/// Sums whose exponentials are of the distance from an estimate of the maximum, and what moves them to the maximum.
struct Near<const MOMENTS: bool> {
    sums: Sums<MOMENTS>,
    maximum: f32,
    /// z of the maximum, from the estimate and from what the exponentials are relative to. NaN or infinite if one of
    /// the logits is.
    above: [f64; 2],
}

#[inline(always)]
fn sum_near<E: Lanes, I: Isa, const MOMENTS: bool>(
    isa: I,
    block: &[E],
    exponential: Exponential,
    estimate: f32,
) -> Near<MOMENTS> {
    let scale = Scale { maximum: estimate, exponential };
    let anchored = if I::BY_TABLE { Anchored::near(exponential, estimate) } else { None };
    let ((sums, maximum), reference) = match anchored {
        Some(anchored) => (sum_block(isa, block, scale, anchored), Some(anchored)),
        None => (sum_block(isa, block, scale, Distances), None),
    };
    let above =
        (f64::from(maximum) - f64::from(estimate)) * f64::from(exponential.inverse_temperature);
    let above = [above, reference.map_or(above, |anchored| anchored.above(maximum))];
    Near { sums, maximum, above }
}

/// Chunks whose lanes are summed before they join those of the block: beside a large element a lane loses what is
/// small of so many others, at most.
pub(crate) const GROUP: usize = 8;

/// The maximum of the first [`LANES`] columns, near that of all of them.
#[inline(always)]
pub(crate) fn estimate<E: Lanes, I: Isa>(isa: I, block: &[E]) -> f32 {
    let mut peak = E::Peak::NONE;
    peak.raise(isa, &padded(&block[..block.len().min(LANES)]));
    peak.value()
}

/// How far the maximum's z may lie above the estimate's. The sum of exp(z)^2 over a lane is far below the largest
/// f32, and the moments, moved by as much, are off by less than 10 half ulps of the total.
pub(crate) const FAR: f64 = 10.0;

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
#[inline(always)]
fn block_state<E: Lanes, I: Isa, const MOMENTS: bool>(
    isa: I,
    block: &[E],
    exponential: Exponential,
) -> BlockState {
    let mut near = sum_near::<E, I, MOMENTS>(isa, block, exponential, estimate(isa, block));
    // NaN where both are infinite, or one is NaN.
    if near.above[0].is_nan() || near.above[0] > FAR {
        near = sum_near::<E, I, MOMENTS>(isa, block, exponential, near.maximum);
    }
    let Near { sums, maximum, above: [above, above_reference] } = near;
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
    let factor = (-above_reference).exp();
    let moment = |lanes| if MOMENTS { tree_sum(lanes) } else { 0.0 };
    let inverse_temperature = f64::from(exponential.inverse_temperature);
    BlockState {
        maximum,
        excess: factor * total - 1.0,
        weighted: match MOMENTS {
            true => factor * (tree_sum(sums.weighted) * inverse_temperature - above * total),
            false => 0.0,
        },
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

/// The state of a block that holds the maximum of a row with little else: the excess of such a block drowns in the
/// rounding of the 1 that a peak adds to a lane. So it is summed again, its largest elements counted apart.
///
/// Leaving the peaks out of every sum instead (a comparison and a masked addition per element) makes every row 7
/// to 12 % slower with AVX-512, from cache; asking each block instead of the row, a tenth in bf16.
pub(crate) struct PeakState<'a, E, const MOMENTS: bool> {
    pub block: &'a [E],
    pub maximum: f32,
    pub exponential: Exponential,
}

impl<E: Lanes, const MOMENTS: bool> Kernel for PeakState<'_, E, MOMENTS> {
    type Output = BlockState;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> BlockState {
        let Self { block, maximum, exponential } = self;
        let scale = Scale { maximum, exponential };
        let (rest, _) = sum_block::<E, I, Rest, MOMENTS>(isa, block, scale, Rest);
        let others = tree_sum(rest.peaks) - 1.0;
        let moment = |lanes| if MOMENTS { tree_sum(lanes) } else { 0.0 };
        BlockState {
            maximum,
            excess: tree_sum(rest.plain) + others,
            weighted: moment(rest.weighted) * f64::from(exponential.inverse_temperature),
            squares: moment(rest.squares) + others,
        }
    }
}
