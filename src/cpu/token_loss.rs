//! Stages 1, 3 and 4 in one visit: each row's gradient is written while the row is in the cache. Few
//! rows are split inside the rows, where the stages go one after another.
//!
//! Scratch: for each row its results, and the gradients by its log-prob and entropy.

use half::{bf16, f16};
use rayon::prelude::*;

use super::DTYPES;
use super::convert::Lanes;
use super::gradient::RowGradient;
use super::log_probs::{NOT_COUNTED, RESULTS, Visit, store};
use super::logit_grads::{Row, rows_mut};
use super::simd::Simd;
use crate::batch::Packing;
use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::stages::{
    HostTokens, MaskedRows, Target, TokenLoss, TokenLossOutputs, TokenTerm, TokenUnits,
};

/// Those of stage 1, and the gradients.
const NUMBERS: usize = RESULTS + 2;

pub(super) fn scratch(tokens: usize) -> usize {
    tokens.saturating_mul(NUMBERS)
}

pub(super) fn token_loss(simd: Simd, stage: TokenLoss<'_>) -> Result<()> {
    let TokenLoss { target, outputs, packing, counts, temperature, masked, .. } = stage;
    let TokenLossOutputs { mut rows, mut grads } = outputs;
    let [count, vocab] = target.logits().shape().size();
    let tokens = stage.tokens.host()?;
    tokens.check(vocab)?;
    let mut scratch = stage.scratch;
    let numbers = scratch.host::<f64>()?[..count * NUMBERS].as_chunks_mut::<NUMBERS>().0;
    for (token, numbers) in numbers.iter_mut().enumerate() {
        numbers[RESULTS] = grads.log_probs.get(token);
        numbers[RESULTS + 1] = grads.entropy.as_ref().map_or(0.0, |grads| grads.get(token));
    }
    let inputs = stage.sampled.with(&rows);
    let mut terms = Vec::with_capacity(stage.terms.len());
    for (placed, &scale) in stage.terms.iter().zip(stage.scales) {
        let units = TokenUnits { term: placed.term(), tokens, packing, counts, inputs };
        terms.push(TokenTerm::new(units, scale, placed.sequences()));
    }
    let visit = Visit::new(simd, temperature, &rows);
    let packing = packing.packing();
    let by_entropy = grads.entropy.is_some();
    let visit = TokenVisit { visit, tokens, packing, terms, temperature, by_entropy, masked };
    match target.logits().dtype() {
        DType::F32 => visit.run::<f32>(simd, target, numbers)?,
        DType::F16 => visit.run::<f16>(simd, target, numbers)?,
        DType::BF16 => visit.run::<bf16>(simd, target, numbers)?,
        got => {
            let backend = stage.backend.name;
            return Err(Error::LogitsType { backend, expected: DTYPES, got });
        }
    }
    for (token, numbers) in numbers.iter().enumerate() {
        let [results @ .., by_log_prob, by_entropy] = numbers;
        store(&mut rows, token, results);
        grads.log_probs.set(token, *by_log_prob);
        if let Some(grads) = &mut grads.entropy {
            grads.set(token, *by_entropy);
        }
    }
    Ok(())
}

struct TokenVisit<'a> {
    visit: Visit,
    tokens: HostTokens<'a>,
    packing: &'a Packing,
    terms: Vec<TokenTerm<'a>>,
    temperature: f64,
    by_entropy: bool,
    masked: MaskedRows,
}

impl TokenVisit<'_> {
    fn run<E: Element + Lanes>(
        &self,
        simd: Simd,
        target: Target<'_>,
        numbers: &mut [[f64; NUMBERS]],
    ) -> Result<()> {
        match target {
            Target::InPlace(mut logits) => {
                let shape = logits.shape();
                let rows = rows_mut(logits.data_mut().host::<E>()?, shape);
                rows.zip(numbers).for_each(|((token, dx), numbers)| {
                    match self.row(token, dx, numbers) {
                        Row::Keep => {}
                        Row::Zero => dx.fill(E::zeroed()),
                        Row::Gradient(row, label) => simd.gradient_in_place(dx, &row, Some(label)),
                    }
                });
            }
            Target::OutOfPlace { logits, mut grads } => {
                let (shape, to) = (logits.shape(), grads.shape());
                let x = logits.data().host::<E>()?;
                let rows = rows_mut(grads.data_mut().host::<E>()?, to);
                rows.zip(numbers).for_each(|((token, dx), numbers)| {
                    let x = &x[token * shape.stride..][..shape.vocab];
                    match self.row(token, x, numbers) {
                        Row::Keep => {}
                        Row::Zero => dx.fill(E::zeroed()),
                        Row::Gradient(row, label) => simd.gradient(x, dx, &row, Some(label)),
                    }
                });
            }
        }
        Ok(())
    }

    /// Stages 1 and 3 of a row. What stage 4 takes from them is f32, as it would find it in the buffers.
    fn row<E: Element + Lanes>(&self, token: usize, x: &[E], numbers: &mut [f64; NUMBERS]) -> Row {
        let (results, by) = numbers.split_at_mut(RESULTS);
        let Some(label) = self.tokens.counted_label(token) else {
            results.copy_from_slice(&NOT_COUNTED);
            return Row::of_masked(self.masked);
        };
        results.copy_from_slice(&self.visit.row(x, label));
        let [log_prob, maximum, log_sum, entropy] =
            [results[0], results[1], results[2], results[3]].map(|result| result as f32);
        let sequence = self.packing.sequence_of(token);
        let mut grads = [by[0] as f32, by[1] as f32];
        for term in &self.terms {
            let policy = [log_prob, entropy].map(f64::from);
            term.add_grads([token, sequence], policy, &mut grads);
        }
        if !self.by_entropy {
            grads[1] = 0.0;
        }
        by.copy_from_slice(&grads.map(f64::from));
        let inverse_temperature = 1.0 / self.temperature;
        let [a, c] = grads.map(|grad| -grad);
        Row::of(RowGradient { maximum, log_sum, entropy, inverse_temperature, a, c }, label)
    }
}
