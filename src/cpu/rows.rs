//! The two visits of a row of logits: block states (stage 1) and logits gradient (stage 4).
//!
//! Plain loops over fixed arrays of lanes; `simd` compiles them once per instruction set, and they
//! become straight vector code there. Everything is `#[inline(always)]` and free of closures: a
//! function that stays outlined is compiled for the baseline and calls libm for every fused
//! multiply-add.
//!
//! Column v of a block always adds to lane v mod 64, the lanes always meet in the same tree, and
//! short tails are padded with -inf. So a row's bits do not depend on its alignment, on its
//! neighbours, or on how blocks are given to threads.

#![expect(
    clippy::needless_range_loop,
    reason = "one index over several lane arrays; the shape that vectorises"
)]

use crate::cpu::convert::Lanes;
use crate::cpu::exp::{EXP_CUTOFF, Exponential, multiply_add};
use crate::cpu::peak::Peak;
use crate::cpu::simd::Isa;
use crate::cpu::state::BlockState;

/// Columns per [`BlockState`]. Two neighbouring f32 blocks fit a first-level cache. 2048 measured 3
/// to 9 % slower: the tree and the f64 merge come twice as often.
pub(crate) const BLOCK: usize = 4096;

/// Four AVX-512 registers of f32: enough independent sums to hide the latency of an addition.
pub(crate) const LANES: usize = 64;

/// A block whose sum is below this is summed a second time without its largest element, see
/// [`settle`].
pub(crate) const PEAKED: f32 = 1.5;

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
    weighted: [f32; LANES],
    squares: [f32; LANES],
}

impl<const MOMENTS: bool> Sums<MOMENTS> {
    #[inline(always)]
    fn new() -> Self {
        Self { plain: [0.0; LANES], weighted: [0.0; LANES], squares: [0.0; LANES] }
    }

    /// `REST` leaves out the elements equal to the maximum (they weigh 0 in the second sum anyway).
    #[inline(always)]
    fn add<E: Lanes, I: Isa, const REST: bool>(
        &mut self,
        isa: I,
        chunk: &[E; LANES],
        scale: Scale,
    ) {
        let differences = scale.differences(&E::load_lanes(isa, chunk));
        let exponentials = scale.exponential.of(isa, &differences);
        for lane in 0..LANES {
            let (difference, e) = (differences[lane], exponentials[lane]);
            let term = if REST && difference == 0.0 { 0.0 } else { e };
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

/// Sums over `block`, and the maximum of `next` on the way (a NaN may be that; the sums show it).
///
/// Waiting for memory (the maximum of the next block) and exponentials (of this one, from cache)
/// overlap: 20 % faster than one after the other. The prefetch buys as much again: hardware stops
/// at 4 KiB pages.
#[inline(always)]
fn sum_block<E: Lanes, I: Isa, const MOMENTS: bool>(
    isa: I,
    block: &[E],
    next: &[E],
    scale: Scale,
) -> (Sums<MOMENTS>, f32) {
    let mut sums = Sums::<MOMENTS>::new();
    let mut peak = E::Peak::NONE;
    let (chunks, tail) = block.as_chunks::<LANES>();
    let (next_chunks, next_tail) = next.as_chunks::<LANES>();
    // Only the last block of a row is short, so `next` is never the longer one.
    let (paired, unpaired) = chunks.split_at(next_chunks.len());
    for (chunk, next_chunk) in paired.iter().zip(next_chunks) {
        isa.prefetch_ahead(next_chunk);
        peak.raise(isa, next_chunk);
        sums.add::<E, I, false>(isa, chunk, scale);
    }
    for chunk in unpaired {
        sums.add::<E, I, false>(isa, chunk, scale);
    }
    if !tail.is_empty() {
        sums.add::<E, I, false>(isa, &padded(tail), scale);
    }
    if !next_tail.is_empty() {
        peak.raise(isa, &padded(next_tail));
    }
    (sums, peak.value())
}

#[inline(always)]
fn block_maximum<E: Lanes, I: Isa>(isa: I, block: &[E]) -> f32 {
    let mut peak = E::Peak::NONE;
    let (chunks, tail) = block.as_chunks::<LANES>();
    for chunk in chunks {
        isa.prefetch_ahead(chunk);
        peak.raise(isa, chunk);
    }
    if !tail.is_empty() {
        peak.raise(isa, &padded(tail));
    }
    peak.value()
}

/// The sums over the elements below the maximum.
#[inline(always)]
fn rest_of_block<E: Lanes, I: Isa, const MOMENTS: bool>(
    isa: I,
    block: &[E],
    scale: Scale,
) -> Sums<MOMENTS> {
    let mut sums = Sums::<MOMENTS>::new();
    let (chunks, tail) = block.as_chunks::<LANES>();
    for chunk in chunks {
        sums.add::<E, I, true>(isa, chunk, scale);
    }
    if !tail.is_empty() {
        sums.add::<E, I, true>(isa, &padded(tail), scale);
    }
    sums
}

#[inline(always)]
fn has_nan<E: Lanes>(block: &[E]) -> bool {
    let mut found = false;
    for value in block {
        found |= value.load().is_nan();
    }
    found
}

/// The excess of a block that is one peak and little else drowns in the rounding of the 1 that its
/// peak adds to a lane. Such a block is summed again without it. A sum below [`PEAKED`] has exactly
/// one element at the maximum (two would make it 2: rounding is monotone), so nothing needs
/// counting; and only the block is asked, so the answer is its own. Leaving the peak out of every
/// sum instead (a comparison and a masked addition per element) makes every row 7 to 12 % slower
/// with AVX-512, from cache.
#[inline(always)]
fn settle<E: Lanes, I: Isa, const MOMENTS: bool>(
    isa: I,
    block: &[E],
    sums: Sums<MOMENTS>,
    scale: Scale,
) -> BlockState {
    let maximum = scale.maximum;
    let sum = tree_sum(sums.plain);
    let weighted = if MOMENTS { tree_sum(sums.weighted) } else { 0.0 };
    if sum.is_nan() {
        // An element is NaN, or the maximum is infinite and gave inf - inf.
        return if has_nan(block) {
            BlockState::nan(f32::NAN)
        } else if maximum == f32::NEG_INFINITY {
            BlockState::EMPTY
        } else {
            BlockState::nan(maximum)
        };
    }
    let squares = |sums: &Sums<MOMENTS>| if MOMENTS { tree_sum(sums.squares) } else { 0.0 };
    if sum < f64::from(PEAKED) {
        let rest = rest_of_block::<E, I, MOMENTS>(isa, block, scale);
        return BlockState {
            maximum,
            excess: tree_sum(rest.plain),
            weighted,
            squares: squares(&rest),
        };
    }
    BlockState { maximum, excess: sum - 1.0, weighted, squares: squares(&sums) - 1.0 }
}

/// Stage 1: one state per block of `x`, which starts at a block boundary of its row.
#[inline(always)]
pub(crate) fn block_states<E: Lanes, I: Isa, const MOMENTS: bool>(
    isa: I,
    mut x: &[E],
    exponential: Exponential,
    states: &mut [BlockState],
) {
    let mut maximum = block_maximum(isa, &x[..x.len().min(BLOCK)]);
    for state in states {
        let (block, rest) = x.split_at(x.len().min(BLOCK));
        let scale = Scale { maximum, exponential };
        let (sums, next_maximum) =
            sum_block::<E, I, MOMENTS>(isa, block, &rest[..rest.len().min(BLOCK)], scale);
        *state = settle(isa, block, sums, scale);
        (x, maximum) = (rest, next_maximum);
    }
}

/// First column equal to `maximum`, or first NaN if that is NaN; `block.len()` if there is none.
#[inline(always)]
pub(crate) fn find<E: Lanes, I: Isa>(isa: I, block: &[E], maximum: f32) -> usize {
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
