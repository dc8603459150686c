//! Nash-MD: the policy gradient as a weighted sum of log-probs.

use super::check_option;
use super::tokens::Tokens;
use crate::batch::{Labels, Packing, Weights, check_sequences, same_length};
use crate::element::Element;
use crate::error::Result;
use crate::objectives::{FINITE, PROBABILITY};

/// Nash-MD's `[tokens]` weights, `-(P - 1/2) + beta * (log p - log r)`: the loss of a sequence is the sum
/// of weight times log-prob with the weights as constants, and its gradient is Nash-MD's.
///
/// `policy` and `reference` are `[tokens]` log-probs (nats) of the labels of the policy's own responses;
/// `win_probabilities` are `[sequences]`, a judge's `P` that the response beats the one of the mixture
/// of policy and reference. They multiply the weights that are given; tokens that do not count get 0. The
/// loss is a term of [`Nll`](crate::objectives::Nll), which is minus the sum, with the weight -1.
/// Source: Nash-MD (Munos et al., 2024) as TRL 1.9 has it, whose values it reproduces.
///
/// ```
/// use prefuse::batch::{Batch, Labels, Packing};
/// use prefuse::objectives::Nll;
/// use prefuse::statistics::nash_md_weights;
/// use prefuse::{Loss, Sequences, Term};
///
/// let (labels, packing) = (Labels::new(&[1, 0, 2]), Packing::new(&[0, 2, 3])?);
/// let (policy, reference) = ([-0.5_f32, -3.0, -1.0], [-1.0_f32, -1.0, -3.0]);
/// let weights =
///     nash_md_weights(&policy, &reference, &[0.75, 0.5], 0.5, &labels, None, &packing)?;
/// assert_eq!(weights.host()?, [0.0, -1.25, 1.0]);
/// let batch = Batch::new(labels, packing)?.with_weights(weights)?;
/// let loss = Loss::new(batch, [Term::sequences(Nll::new(), Sequences::All).with_weight(-1.0)])?;
/// # let _ = loss;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ, labels or weights in device memory, a win probability outside 0 to 1, a beta
/// that is not finite, or a weight that is no finite f32.
pub fn nash_md_weights<T: Element>(
    policy: &[T],
    reference: &[T],
    win_probabilities: &[f64],
    beta: f64,
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    packing: &Packing,
) -> Result<Weights<'static>> {
    check_option("beta", beta, FINITE)?;
    let tokens = Tokens::packed(labels, weights, packing)?;
    tokens.check("policy log-probs", policy)?;
    tokens.check("reference log-probs", reference)?;
    same_length("win probabilities", packing.sequences(), win_probabilities.len())?;
    check_sequences("win probability", win_probabilities, PROBABILITY)?;
    let mut scores = vec![0.0; tokens.len()];
    for (range, probability) in packing.ranges().zip(win_probabilities) {
        scores[range].fill(probability - 0.5);
    }
    tokens.scaled(|token| {
        let log_ratio = policy[token].to_f64() - reference[token].to_f64();
        // `+ 0.0` turns -0 into 0, so that an even match reads as such.
        beta * log_ratio - scores[token] + 0.0
    })
}
