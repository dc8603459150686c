//! LD-DPO: the part in which one response is longer than the other counts less.

use super::check_option;
use super::tokens::Tokens;
use crate::batch::{Labels, Packing, Pairs, Weights};
use crate::error::{Error, Result};
use crate::objectives::PROBABILITY;

/// LD-DPO's `[tokens]` weights: 1 for the first `m` counted tokens of a response and `alpha` for the
/// rest, `m` the smaller count of its pair.
///
/// They multiply the weights that are given; tokens that do not count get 0, and sequences in no pair
/// keep theirs. With `alpha` 0 the rest no longer counts as tokens either, which objectives that divide
/// by length see. Policy and reference are both summed under a batch's weights, as in TRL since 0.29.
/// LLaMA-Factory and TRL up to 0.28 weigh the policy alone, which leaves a constant of the reference's tail in
/// the loss: for that, give the reference's whole sums as
/// [`per_sequence_weighted`](crate::batch::ReferenceLogProbs::per_sequence_weighted). Source: LD-DPO (Liu et al., 2024), as TRL 1.16 has it, whose values it reproduces;
/// TRL 0.28 counts positions from the start of the prompt, which is a slip.
///
/// ```
/// use prefuse::batch::{Batch, Labels, Packing, Pairs};
/// use prefuse::statistics::ld_dpo_weights;
///
/// let (labels, packing) = (Labels::new(&[-100, 3, 1, 2, 5, 4]), Packing::new(&[0, 4, 6])?);
/// let pairs = Pairs::halves(1)?;
/// let weights = ld_dpo_weights(0.25, &labels, None, &packing, &pairs)?;
/// assert_eq!(weights.host()?, [0.0, 1.0, 1.0, 0.25, 1.0, 1.0]);
/// let batch = Batch::new(labels, packing)?.with_weights(weights)?.with_pairs(pairs)?;
/// # let _ = batch;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// `alpha` outside 0 to 1, lengths that differ, labels or weights in device memory, a pair beyond the
/// pack, or a sequence whose pairs have different `m`.
pub fn ld_dpo_weights(
    alpha: f64,
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    packing: &Packing,
    pairs: &Pairs<'_>,
) -> Result<Weights<'static>> {
    check_option("alpha", alpha, PROBABILITY)?;
    let tokens = Tokens::packed(labels, weights, packing)?;
    pairs.check(packing.sequences())?;
    let counts: Vec<usize> = packing.ranges().map(|range| tokens.count(range)).collect();
    let mut common = vec![None; counts.len()];
    for &(chosen, rejected) in pairs.indices() {
        let second = counts[chosen].min(counts[rejected]);
        for sequence in [chosen, rejected] {
            match common[sequence].replace(second) {
                Some(first) if first != second => {
                    let what = "common length";
                    return Err(Error::Conflict { what, sequence, first, second });
                }
                _ => {}
            }
        }
    }
    let mut factors = vec![1.0; tokens.len()];
    for (range, common) in packing.ranges().zip(common) {
        for token in tokens.counted(range).skip(common.unwrap_or(usize::MAX)) {
            factors[token] = alpha;
        }
    }
    tokens.scaled(|token| factors[token])
}
