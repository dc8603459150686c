//! Stage 1: one visit of each row, which reads it once.
//!
//! Scratch: six f64 results for each row, so that rows can be computed in any order; for few rows
//! also four f64 numbers for each block.

use half::{bf16, f16};
use rayon::prelude::*;

use super::convert::Lanes;
use super::rows::BLOCK;
use super::simd::Simd;
use super::state::{BlockState, RowBlocks, RowState};
use super::{DTYPES, FEW_ROWS, is_one_task, rows_per_task};
use crate::batch::Logits;
use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::stages::{HostTokens, LogProbs, TokenOutputs};

/// log-prob, maximum, log-sum, entropy, log of the sum of squares, argmax.
pub(super) const RESULTS: usize = 6;
pub(super) const NOT_COUNTED: [f64; RESULTS] = [0.0, f64::NAN, f64::NAN, 0.0, 0.0, -1.0];

/// maximum, excess, weighted, squares.
const STATE: usize = 4;

pub(super) fn scratch(tokens: usize, vocab: usize) -> usize {
    let blocks = if tokens < FEW_ROWS { vocab.div_ceil(BLOCK) } else { 0 };
    tokens.saturating_mul(blocks.saturating_mul(STATE).saturating_add(RESULTS))
}

pub(super) fn log_probs(simd: Simd, mut stage: LogProbs<'_>) -> Result<()> {
    let logits = stage.logits;
    let tokens = stage.tokens.host()?;
    tokens.check(logits.vocab())?;
    let needed = scratch(logits.tokens(), logits.vocab());
    let scratch = &mut stage.scratch.host::<f64>()?[..needed];
    let (results, states) = scratch.split_at_mut(logits.tokens() * RESULTS);
    let results = results.as_chunks_mut::<RESULTS>().0;
    let visit = Visit::new(simd, stage.temperature, &stage.outputs);
    let rows = Rows { visit, logits, tokens };
    match logits.dtype() {
        DType::F32 => rows.run::<f32>(results, states)?,
        DType::F16 => rows.run::<f16>(results, states)?,
        DType::BF16 => rows.run::<bf16>(results, states)?,
        got => {
            let backend = stage.backend.name;
            return Err(Error::LogitsType { backend, expected: DTYPES, got });
        }
    }
    for (token, results) in results.iter().enumerate() {
        store(&mut stage.outputs, token, results);
    }
    Ok(())
}

/// A row's results, rounded to the type of the outputs.
pub(super) fn store(outputs: &mut TokenOutputs<'_>, token: usize, results: &[f64; RESULTS]) {
    let &[log_prob, maximum, log_sum, entropy, log_sum_squares, argmax] = results;
    outputs.log_probs.set(token, log_prob);
    outputs.maximum.set(token, maximum);
    outputs.log_sum.set(token, log_sum);
    if let Some(entropies) = &mut outputs.entropy {
        entropies.set(token, entropy);
    }
    if let Some(logarithms) = &mut outputs.log_sum_squares {
        logarithms.set(token, log_sum_squares);
    }
    if let Some(indices) = &mut outputs.argmax {
        indices.set(token, argmax);
    }
}

/// What is computed from each row.
pub(super) struct Visit {
    simd: Simd,
    inverse_temperature: f64,
    moments: bool,
    argmax: bool,
}

impl Visit {
    pub fn new(simd: Simd, temperature: f64, outputs: &TokenOutputs<'_>) -> Self {
        Self {
            simd,
            inverse_temperature: 1.0 / temperature,
            moments: outputs.entropy.is_some() || outputs.log_sum_squares.is_some(),
            argmax: outputs.argmax.is_some(),
        }
    }

    /// From a whole row.
    pub fn row<E: Element + Lanes>(&self, row: &[E], label: usize) -> [f64; RESULTS] {
        let state = self.simd.row_state(row, self.inverse_temperature, self.moments);
        self.results(row, label, &state)
    }

    fn results<E: Element + Lanes>(
        &self,
        row: &[E],
        label: usize,
        state: &RowState,
    ) -> [f64; RESULTS] {
        let argmax = if self.argmax { self.simd.argmax(row, state) as f64 } else { -1.0 };
        let moment = |value: f64| if self.moments { value } else { 0.0 };
        [
            state.log_prob(row[label].to_f64() as f32),
            f64::from(state.maximum()),
            state.log_sum(),
            moment(state.entropy()),
            moment(state.log_sum_squares()),
            argmax,
        ]
    }
}

struct Rows<'a> {
    visit: Visit,
    logits: Logits<'a>,
    tokens: HostTokens<'a>,
}

impl Rows<'_> {
    fn run<E: Element + Lanes>(
        &self,
        results: &mut [[f64; RESULTS]],
        states: &mut [f64],
    ) -> Result<()> {
        let data = self.logits.data().host::<E>()?;
        let vocab = self.logits.vocab();
        let row = |token: usize| &data[token * self.logits.shape().stride..][..vocab];
        let whole = |(token, result): (usize, &mut [f64; RESULTS])| {
            let label = self.tokens.counted_label(token);
            *result = label.map_or(NOT_COUNTED, |label| self.visit.row(row(token), label));
        };
        if is_one_task(results.len(), vocab) {
            results.iter_mut().enumerate().for_each(whole);
            return Ok(());
        }
        if states.is_empty() {
            let results = results.par_iter_mut().enumerate().with_min_len(rows_per_task(vocab));
            results.for_each(whole);
            return Ok(());
        }
        let Visit { simd, inverse_temperature, moments, .. } = self.visit;
        let blocks = vocab.div_ceil(BLOCK);
        states.par_chunks_mut(STATE).enumerate().for_each(|(index, state)| {
            let (token, start) = (index / blocks, index % blocks * BLOCK);
            if self.tokens.counted_label(token).is_some() {
                let part = &row(token)[start..vocab.min(start + BLOCK)];
                let mut block = [BlockState::EMPTY];
                simd.block_states(part, inverse_temperature, moments, &mut block);
                let [BlockState { maximum, excess, weighted, squares }] = block;
                state.copy_from_slice(&[f64::from(maximum), excess, weighted, squares]);
            }
        });
        let states = states.par_chunks(blocks * STATE);
        results.par_iter_mut().zip(states).enumerate().for_each(|(token, (result, states))| {
            *result = self.tokens.counted_label(token).map_or(NOT_COUNTED, |label| {
                let mut blocks = RowBlocks::new(inverse_temperature);
                for &[maximum, excess, weighted, squares] in states.as_chunks::<STATE>().0 {
                    let maximum = maximum as f32;
                    blocks.push(BlockState { maximum, excess, weighted, squares });
                }
                let state = simd.merged(row(token), blocks, moments);
                self.visit.results(row(token), label, &state)
            });
        });
        Ok(())
    }
}
