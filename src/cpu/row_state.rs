//! Stage 1 of whole rows, from the states of their blocks.

#![expect(
    clippy::needless_range_loop,
    reason = "one index over several lane arrays; the shape that vectorises"
)]

use crate::cpu::convert::Lanes;
use crate::cpu::exp::Exponential;
use crate::cpu::rows::{BLOCK, BlockStates, LANES, PeakState};
use crate::cpu::simd::{Isa, Kernel, Simd};
use crate::cpu::state::{BlockState, RowBlocks, RowState};

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

impl Simd {
    /// Stage 1 for the columns `x` of a row, which start at a multiple of [`BLOCK`]: one state per
    /// block.
    ///
    /// Without `moments` the states' later sums are 0.
    pub fn block_states<E: Lanes>(
        self,
        x: &[E],
        inverse_temperature: f64,
        moments: bool,
        states: &mut [BlockState],
    ) {
        assert_eq!(states.len(), x.len().div_ceil(BLOCK), "one state per block");
        let exponential = Exponential::new(inverse_temperature);
        match moments {
            true => self.run(BlockStates::<E, true> { x, exponential, states }),
            false => self.run(BlockStates::<E, false> { x, exponential, states }),
        }
    }

    /// The same of one block.
    pub fn block_state<E: Lanes>(
        self,
        block: &[E],
        (inverse_temperature, moments): (f64, bool),
    ) -> BlockState {
        let mut state = [BlockState::EMPTY];
        self.block_states(block, inverse_temperature, moments, &mut state);
        let [state] = state;
        state
    }

    /// The state of a block whose sum is little more than its maximum.
    pub fn peak_state<E: Lanes>(
        self,
        block: &[E],
        maximum: f32,
        (inverse_temperature, moments): (f64, bool),
    ) -> BlockState {
        let exponential = Exponential::new(inverse_temperature);
        match moments {
            true => self.run(PeakState::<E, true> { block, maximum, exponential }),
            false => self.run(PeakState::<E, false> { block, maximum, exponential }),
        }
    }

    /// Stage 1 for a whole row.
    pub fn row_state<E: Lanes>(
        self,
        row: &[E],
        inverse_temperature: f64,
        moments: bool,
    ) -> RowState {
        const BATCH: usize = 64;
        let mut blocks = RowBlocks::new(inverse_temperature);
        for part in row.chunks(BATCH * BLOCK) {
            let mut states = [BlockState::EMPTY; BATCH];
            let states = &mut states[..part.len().div_ceil(BLOCK)];
            self.block_states(part, inverse_temperature, moments, states);
            for state in states {
                blocks.push(*state);
            }
        }
        self.merged(row, blocks, moments)
    }

    /// The state of a row from those of its blocks, wherever they were computed.
    pub fn merged<E: Lanes>(self, row: &[E], mut blocks: RowBlocks, moments: bool) -> RowState {
        let state = blocks.merged();
        if !state.is_peaked() {
            return state;
        }
        let asked = (state.inverse_temperature(), moments);
        let block = peak_block(row, &state);
        blocks.set_peak(self.peak_state(block, state.maximum(), asked));
        blocks.merged()
    }

    /// Lowest column of the row's maximum, or of its first NaN.
    pub fn argmax<E: Lanes>(self, row: &[E], state: &RowState) -> usize {
        let block = peak_block(row, state);
        state.peak_block() * BLOCK + self.run(Find { block, maximum: state.maximum() })
    }
}

fn peak_block<'a, E>(row: &'a [E], state: &RowState) -> &'a [E] {
    let start = state.peak_block() * BLOCK;
    &row[start..row.len().min(start + BLOCK)]
}
