//! WPO: pairs weighted by how likely the policy is to write them.

use super::tokens::Tokens;
use crate::batch::{Labels, Packing, Pairs, Weights};
use crate::element::Element;
use crate::error::Result;
use crate::objectives::scalar;

/// WPO's weight of each sequence: the exponential of the mean over its counted tokens of
/// `log p(label) - log sum p^2`, `[sequences]`; 1 for a sequence without counted tokens.
///
/// `log_probs` and `log_sum_squares` are `[tokens]`, nats: the policy's log-probs of the labels, and the
/// logarithm of the sum over the vocabulary of the squared probabilities, which is
/// `logsumexp(2 x) - 2 logsumexp(x)` of a row of logits. Token weights only say which tokens count.
/// Source: WPO (Zhou et al., 2024), as TRL 1.16 has it, whose values it reproduces; TRL 0.28 shifts
/// `log_sum_squares` against the labels by one token, which is a slip.
///
/// ```
/// use prefuse::batch::{Labels, Packing, Pairs};
/// use prefuse::statistics::{WpoClamp, wpo_pair_weights, wpo_weights};
///
/// let (labels, packing) = (Labels::new(&[1, 2, 0, -100]), Packing::new(&[0, 2, 4])?);
/// let (log_probs, log_sum_squares) = ([-1.0_f32, -2.0, -0.5, 0.0], [-0.5_f32, -0.5, -0.25, -0.25]);
/// let weights = wpo_weights(&log_probs, &log_sum_squares, &labels, None, &packing)?;
/// assert!((weights[0] - (-1.0_f64).exp()).abs() < 1e-15);
/// let pairs = Pairs::halves(1)?;
/// let of_pairs = wpo_pair_weights(&pairs, &weights, WpoClamp::None)?;
/// let pairs = pairs.with_weight(of_pairs)?;
/// # let _ = pairs;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ, or labels or weights in device memory.
pub fn wpo_weights<T: Element>(
    log_probs: &[T],
    log_sum_squares: &[T],
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    packing: &Packing,
) -> Result<Vec<f64>> {
    let tokens = Tokens::packed(labels, weights, packing)?;
    tokens.check("log-probs", log_probs)?;
    tokens.check("log sums of squares", log_sum_squares)?;
    let weight = |range: std::ops::Range<usize>| {
        let count = tokens.count(range.clone()).max(1) as f64;
        let term = |token: usize| log_probs[token].to_f64() - log_sum_squares[token].to_f64();
        (tokens.counted(range).map(term).sum::<f64>() / count).exp()
    };
    Ok(packing.ranges().map(weight).collect())
}

/// Whether WPO's pair weights are bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WpoClamp {
    /// The product as it is, as in TRL 1.16.
    #[default]
    None,
    /// At most 1, as in TRL 0.28, so that no pair counts more than in DPO.
    AtOne,
}

/// WPO's weight of each pair: the product of its sequences' weights, `[pairs]`, and of the weight that the
/// pair has already, so that [`Pairs::with_weight`] takes it.
///
/// # Errors
/// A pair beyond the `[sequences]` weights.
pub fn wpo_pair_weights(
    pairs: &Pairs<'_>,
    sequence_weights: &[f64],
    clamp: WpoClamp,
) -> Result<Vec<f64>> {
    pairs.check(sequence_weights.len())?;
    let [.., own] = pairs.inputs();
    let weight = |(pair, &(chosen, rejected)): (usize, &(usize, usize))| {
        let product = sequence_weights[chosen] * sequence_weights[rejected];
        let product = if clamp == WpoClamp::AtOne && product > 1.0 { 1.0 } else { product };
        own.map_or(product, |own| scalar::product(own[pair], product))
    };
    Ok(pairs.indices().iter().enumerate().map(weight).collect())
}
