//! Stage `mixed_log_probs`: one visit of each row, block by block in index order.
//!
//! A block is made of differences from its own maxima, which costs no visit before: where the block lies
//! among the others is known in f64, and so are the row's maximum and the label's distance from it.
//!
//! Scratch: three f64 results for each row.

use rayon::prelude::*;

use super::blocks::{Block, blocks, next};
use super::combination::{Tensors, combine};
use super::rows_per_task;
use super::simd::Simd;
use super::state::BlockState;
use crate::error::Result;
use crate::stages::{MixedLogProbs, NOT_COUNTED};

/// log-prob, maximum, log-sum.
const RESULTS: usize = 3;

pub(super) fn scratch(tokens: usize) -> usize {
    tokens.saturating_mul(RESULTS)
}

pub(super) fn mixed_log_probs(simd: Simd, stage: MixedLogProbs<'_>) -> Result<()> {
    let MixedLogProbs { backend, logits, tokens, temperature, mut outputs, mut scratch } = stage;
    let ([count, vocab], tokens) = (logits.size(), tokens.host()?);
    tokens.check(vocab)?;
    let results = scratch.host::<f64>()?[..count * RESULTS].as_chunks_mut::<RESULTS>().0;
    let tensors = Tensors::new(backend.name, &logits)?;
    let rows = Rows { simd, tensors, vocab, inverse_temperature: 1.0 / temperature };
    let tasks = results.par_iter_mut().enumerate().with_min_len(rows_per_task(vocab));
    tasks.for_each(|(token, results)| {
        let label = tokens.counted_label(token);
        *results = label.map_or(NOT_COUNTED, |label| rows.results(token, label));
    });
    for (token, results) in results.iter().enumerate() {
        outputs.set(token, *results);
    }
    Ok(())
}

struct Rows<'a> {
    simd: Simd,
    tensors: Tensors<'a>,
    vocab: usize,
    inverse_temperature: f64,
}

impl Rows<'_> {
    fn results(&self, token: usize, label: usize) -> [f64; RESULTS] {
        let Self { simd, vocab, inverse_temperature, .. } = *self;
        let parts = self.tensors.parts(token, vocab);
        let (mut block, mut other) = (Block::new(), Block::new());
        let (mut state, mut of_label) = (State::new(inverse_temperature), f64::NAN);
        for columns in blocks(vocab) {
            let both = [columns.clone(), next(&columns, vocab)];
            let offset = combine(simd, &parts, both, [&mut block, &mut other]);
            let x = block.chunks().as_flattened();
            if columns.contains(&label) {
                // As the block has it: where it is the maximum, the difference is exactly 0.
                of_label = f64::from(x[label - columns.start]) + offset;
            }
            let mut of_block = [BlockState::EMPTY];
            simd.block_states(x, inverse_temperature, false, &mut of_block);
            let [mut of_block] = of_block;
            if of_block.is_peaked() {
                // At once: the row's own peak is known when the block is gone.
                of_block = simd.peak_state(x, of_block.maximum, (inverse_temperature, false));
            }
            state.push(of_block, offset);
        }
        let log_sum = state.log_sum();
        let log_prob = (of_label - state.maximum) * inverse_temperature - log_sum;
        [log_prob, state.maximum, log_sum]
    }
}

/// A row so far, as a [`BlockState`] is.
struct State {
    maximum: f64,
    excess: f64,
    inverse_temperature: f64,
}

impl State {
    fn new(inverse_temperature: f64) -> Self {
        Self { maximum: f64::NEG_INFINITY, excess: -1.0, inverse_temperature }
    }

    /// Adds a block that lies `offset` above where it was computed.
    fn push(&mut self, block: BlockState, offset: f64) {
        let maximum = f64::from(block.maximum) + offset;
        if maximum == f64::NEG_INFINITY || self.maximum.is_nan() {
            return;
        }
        if self.maximum == f64::NEG_INFINITY || maximum.is_nan() {
            (self.maximum, self.excess) = (maximum, block.excess);
            return;
        }
        let shift = (maximum - self.maximum) * self.inverse_temperature;
        if shift > 0.0 {
            self.excess = block.excess + (-shift).exp() * (1.0 + self.excess);
            self.maximum = maximum;
        } else {
            self.excess += shift.exp() * (1.0 + block.excess);
        }
    }

    /// `ln sum exp(z)` >= 0. NaN for a row with NaN or +inf, or of -inf alone.
    fn log_sum(&self) -> f64 {
        if self.maximum == f64::NEG_INFINITY { f64::NAN } else { self.excess.ln_1p() }
    }
}
