//! Stage `mixed_logit_grads`: one visit of each row that gets a gradient. The softmax of a block is made once,
//! from the same differences as in the forward pass, and goes to each part with a factor of its own.

use rayon::join;

use super::blocks::{Ahead, Block, RowMut, TensorMut, blocks, next};
use super::combination::{Part, Tensors, combine};
use super::gradient::Factor;
use super::probabilities::{Probabilities, Times};
use super::rows_per_task;
use super::simd::Simd;
use crate::batch::MOST_PARTS;
use crate::error::Result;
use crate::memory::Slice;
use crate::stages::{HostTokens, MaskedRows, MixedLogitGrads, RowStatistics};

/// One thing for each part; None where no gradient by it is asked for.
type Each<T> = [Option<T>; MOST_PARTS];

pub(super) fn mixed_logit_grads(simd: Simd, stage: MixedLogitGrads<'_>) -> Result<()> {
    let MixedLogitGrads { backend, logits, mut grads, tokens, statistics, upstream, .. } = stage;
    let ([count, vocab], tokens) = (logits.size(), tokens.host()?);
    tokens.check(vocab)?;
    let mut tensors = [const { None }; MOST_PARTS];
    for (tensor, grads) in tensors.iter_mut().zip(&mut grads) {
        *tensor = grads.as_mut().map(|grads| TensorMut::new(backend.name, grads)).transpose()?;
    }
    let rows = Rows {
        simd,
        tokens,
        logits: Tensors::new(backend.name, &logits)?,
        vocab,
        inverse_temperature: 1.0 / stage.temperature,
        statistics,
        upstream,
        masked: stage.masked,
    };
    rows.run(0, count, tensors);
    Ok(())
}

struct Rows<'a> {
    simd: Simd,
    tokens: HostTokens<'a>,
    logits: Tensors<'a>,
    vocab: usize,
    inverse_temperature: f64,
    statistics: RowStatistics<'a>,
    upstream: Slice<'a>,
    masked: MaskedRows,
}

impl Rows<'_> {
    /// Rows from `first` on. Halves, because rayon's own iterators over rows want element types that are known.
    fn run(&self, first: usize, count: usize, grads: Each<TensorMut<'_>>) {
        if count <= rows_per_task(self.vocab) {
            let mut grads = grads;
            for row in 0..count {
                let each = grads.each_mut();
                let each = each.map(|grads| grads.as_mut().map(|grads| grads.row(row, self.vocab)));
                self.token(first + row, each);
            }
            return;
        }
        let half = count / 2;
        let [mut low, mut high] = [const { [const { None }; MOST_PARTS] }; 2];
        for (part, grads) in grads.into_iter().enumerate() {
            (low[part], high[part]) = grads.map(|grads| grads.split(half)).unzip();
        }
        join(|| self.run(first, half, low), || self.run(first + half, count - half, high));
    }

    fn token(&self, token: usize, mut grads: Each<RowMut<'_>>) {
        let Some(label) = self.tokens.counted_label(token) else {
            if self.masked == MaskedRows::Zero {
                fill(&mut grads, 0.0);
            }
            return;
        };
        let upstream = self.upstream.get(token);
        let maximum = self.statistics.maximum.get(token);
        let log_sum = self.statistics.log_sum.get(token);
        if upstream == 0.0 {
            fill(&mut grads, 0.0);
            return;
        }
        let parts = self.logits.parts(token, self.vocab);
        for (grads, part) in grads.iter_mut().zip(&parts) {
            // It does not enter, whatever the others are.
            if part.is_some_and(|part| part.coefficient == 0.0)
                && let Some(mut grads) = grads.take()
            {
                grads.fill(0..self.vocab, 0.0);
            }
        }
        if (upstream + maximum + log_sum).is_nan() {
            // Computed, it could be a NaN of the caller's, which no kernel that narrows may see.
            fill(&mut grads, f32::NAN);
            return;
        }
        self.gradient(&parts, label, [maximum, log_sum, upstream], &mut grads);
    }

    fn gradient(
        &self,
        parts: &Each<Part<'_>>,
        label: usize,
        [row_maximum, log_sum, upstream]: [f64; 3],
        grads: &mut Each<RowMut<'_>>,
    ) {
        let Self { simd, vocab, inverse_temperature, .. } = *self;
        let factors = parts.map(|part| {
            let by_part = -part?.coefficient * upstream;
            Some((by_part, Factor::new(by_part, inverse_temperature)))
        });
        let (mut block, mut other) = (Block::new(), Block::new());
        for columns in blocks(vocab) {
            let next = next(&columns, vocab);
            let both = [columns.clone(), next.clone()];
            let offset = combine(simd, parts, both, [&mut block, &mut other]);
            let maximum = block.maximum(simd);
            let maximum = if maximum.is_finite() { maximum } else { 0.0 };
            let log_prob = |x: f32| {
                let from_maximum = (f64::from(x) + offset) - row_maximum;
                from_maximum * inverse_temperature - log_sum
            };
            let of_label = columns
                .contains(&label)
                .then(|| log_prob(block.chunks().as_flattened()[label - columns.start]).exp_m1());
            let from = (log_prob(maximum), inverse_temperature);
            simd.run(Probabilities::new(block.chunks_mut(), maximum, from));
            for (grads, factor) in grads.iter_mut().zip(factors) {
                let (Some(grads), Some((by_part, factor))) = (grads, factor) else { continue };
                let ahead = Ahead([grads.view().bytes(next.clone()), &[], &[]]);
                let scaled = other.like(&block);
                simd.run(Times { from: block.chunks(), to: scaled, factor, ahead });
                grads.write(simd, columns.clone(), &other, false);
                if let Some(m1) = of_label {
                    let value = by_part * m1 * inverse_temperature;
                    grads.fill(label..label + 1, value as f32);
                }
            }
        }
    }
}

fn fill(grads: &mut Each<RowMut<'_>>, value: f32) {
    for grads in grads.iter_mut().flatten() {
        grads.fill(0..grads.len(), value);
    }
}
