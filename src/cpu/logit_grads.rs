//! Stage 4: one visit of each row that gets a gradient; each element is read once and written once.

use half::{bf16, f16};
use rayon::prelude::*;

use super::convert::Lanes;
use super::gradient::RowGradient;
use super::rows::BLOCK;
use super::simd::Simd;
use super::{DTYPES, FEW_ROWS, rows_per_task};
use crate::batch::Shape;
use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::stages::{HostTokens, LogitGrads, MaskedRows, RowStatistics, Target, TokenUpstream};

/// Columns that one task takes where a row is split.
const PART: usize = 4 * BLOCK;

pub(super) fn logit_grads(simd: Simd, stage: LogitGrads<'_>) -> Result<()> {
    let LogitGrads { backend, target, tokens, temperature, statistics, upstream, masked } = stage;
    let [_, vocab] = target.logits().shape().size();
    let tokens = tokens.host()?;
    tokens.check(vocab)?;
    let rows =
        Rows { simd, tokens, inverse_temperature: 1.0 / temperature, statistics, upstream, masked };
    match target.logits().dtype() {
        DType::F32 => rows.run::<f32>(target),
        DType::F16 => rows.run::<f16>(target),
        DType::BF16 => rows.run::<bf16>(target),
        got => Err(Error::LogitsType { backend: backend.name, expected: DTYPES, got }),
    }
}

struct Rows<'a> {
    simd: Simd,
    tokens: HostTokens<'a>,
    inverse_temperature: f64,
    statistics: RowStatistics<'a>,
    upstream: TokenUpstream<'a>,
    masked: MaskedRows,
}

/// What becomes of a row.
pub(super) enum Row {
    Keep,
    Zero,
    Gradient(RowGradient, usize),
}

impl Row {
    /// Of a token that does not count.
    pub fn of_masked(masked: MaskedRows) -> Self {
        match masked {
            MaskedRows::AlreadyZero => Self::Keep,
            MaskedRows::Zero => Self::Zero,
        }
    }

    /// Of one that does.
    pub fn of(row: RowGradient, label: usize) -> Self {
        if row.a == 0.0 && row.c == 0.0 { Self::Zero } else { Self::Gradient(row, label) }
    }
}

impl Rows<'_> {
    fn run<E: Element + Lanes>(&self, target: Target<'_>) -> Result<()> {
        match target {
            Target::InPlace(mut logits) => {
                let shape = logits.shape();
                let data = logits.data_mut().host::<E>()?;
                self.each_part(data, shape, |_, dx, row, label| {
                    self.simd.gradient_in_place(dx, row, label);
                });
            }
            Target::OutOfPlace { logits, mut grads } => {
                let (stride, shape) = (logits.shape().stride, grads.shape());
                let x = logits.data().host::<E>()?;
                let data = grads.data_mut().host::<E>()?;
                self.each_part(data, shape, |[token, start], dx, row, label| {
                    let x = &x[token * stride + start..][..dx.len()];
                    self.simd.gradient(x, dx, row, label);
                });
            }
        }
        Ok(())
    }

    /// Calls `gradient` for each part of each row that has one, with the token and the first column
    /// of the part, and with the label's place in it if it is there; zeroes rows that have none.
    fn each_part<E: Element>(
        &self,
        data: &mut [E],
        shape: Shape,
        gradient: impl Fn([usize; 2], &mut [E], &RowGradient, Option<usize>) + Sync,
    ) {
        rows_mut(data, shape).for_each(|(token, dx)| match self.row(token) {
            Row::Keep => {}
            Row::Zero => dx.fill(E::zeroed()),
            Row::Gradient(row, label) => parts_mut(dx, shape).for_each(|(start, dx)| {
                let label = label.checked_sub(start).filter(|&label| label < dx.len());
                gradient([token, start], dx, &row, label);
            }),
        });
    }

    fn row(&self, token: usize) -> Row {
        let Some(label) = self.tokens.counted_label(token) else {
            return Row::of_masked(self.masked);
        };
        let (by_entropy, entropy) = match self.upstream.entropy {
            Some((grads, entropy)) => (grads.get(token) as f32, entropy.get(token) as f32),
            None => (0.0, 0.0),
        };
        let row = RowGradient {
            maximum: self.statistics.maximum.get(token) as f32,
            log_sum: self.statistics.log_sum.get(token) as f32,
            entropy,
            inverse_temperature: self.inverse_temperature,
            a: -(self.upstream.log_probs.get(token) as f32),
            c: -by_entropy,
        };
        Row::of(row, label)
    }
}

/// The rows without what lies between them, in tasks of a fitting size.
pub(super) fn rows_mut<E: Element>(
    data: &mut [E],
    shape: Shape,
) -> impl IndexedParallelIterator<Item = (usize, &mut [E])> {
    let rows = data.par_chunks_mut(shape.stride).take(shape.tokens).enumerate();
    let rows = rows.with_min_len(rows_per_task(shape.vocab));
    rows.map(move |(token, row)| (token, &mut row[..shape.vocab]))
}

/// A row in parts, each with its first column; the parts of few rows are tasks of their own.
fn parts_mut<E: Element>(
    row: &mut [E],
    shape: Shape,
) -> impl IndexedParallelIterator<Item = (usize, &mut [E])> {
    let width = if shape.tokens < FEW_ROWS { PART } else { shape.vocab };
    row.par_chunks_mut(width).enumerate().map(move |(part, dx)| (part * width, dx))
}
