//! AlignXplore: a reward for an inferred preference, from label probabilities.

use super::check_option;
use super::tokens::Tokens;
use crate::batch::{Labels, Packing, Pairs, Weights, check_sequences, same_length};
use crate::element::Element;
use crate::error::Result;
use crate::objectives::{Domain, NOT_NEGATIVE};

/// By what factor an inferred preference has to raise the ratio of chosen to rejected, in AlignXplore's
/// released code.
pub const ALIGN_XPLORE_THRESHOLD: f64 = 1.03;

const SUM: Domain = Domain {
    expected: "a finite number from 0",
    contains: |value| value >= 0.0 && value.is_finite(),
};

/// `[sequences]` sums of the probabilities of the labels over the counted tokens; 0 where none count.
///
/// `log_probs` are `[tokens]`, nats. Token weights only say which tokens count. Source: AlignXplore (Li
/// et al., 2025), the released code.
///
/// # Errors
/// Lengths that differ, or labels or weights in device memory.
pub fn probability_sums<T: Element>(
    log_probs: &[T],
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    packing: &Packing,
) -> Result<Vec<f64>> {
    let tokens = Tokens::packed(labels, weights, packing)?;
    tokens.check("log-probs", log_probs)?;
    let probability = |token: usize| log_probs[token].to_f64().exp();
    Ok(packing.ranges().map(|range| tokens.counted(range).map(probability).sum()).collect())
}

/// AlignXplore's reward of the preference that was inferred for each pair's prompt, `[pairs]`: 1 where
/// `(S_w / S_l) / (S0_w / S0_l)` is above the threshold ([`ALIGN_XPLORE_THRESHOLD`]), else 0.
///
/// `with_preference` (`S`) and `without` (`S0`) are `[sequences]` [`probability_sums`] with and without
/// the preference in the prompt. The quotient is compared without dividing: where a side of it is empty
/// on both ends the reward is 0. That an inference which did not end gets 0 is the caller's part. Source:
/// AlignXplore (Li et al., 2025), the released code; the paper's definition was not compared.
///
/// ```
/// use prefuse::batch::{Labels, Packing, Pairs};
/// use prefuse::statistics::{ALIGN_XPLORE_THRESHOLD, align_xplore_rewards, probability_sums};
///
/// let (labels, packing) = (Labels::new(&[1, 0, 2]), Packing::new(&[0, 2, 3])?);
/// let sums = |log_probs: &[f32; 3]| probability_sums(log_probs, &labels, None, &packing);
/// let (with, without) = (sums(&[-0.5, -0.7, -2.0])?, sums(&[-0.9, -0.9, -1.5])?);
/// let pairs = Pairs::halves(1)?;
/// let rewards = align_xplore_rewards(&pairs, &with, &without, ALIGN_XPLORE_THRESHOLD)?;
/// assert_eq!(rewards, [1.0]);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ, a pair beyond the sequences, a sum that is not finite and at least 0, or a
/// threshold outside 0 to 1e30.
pub fn align_xplore_rewards(
    pairs: &Pairs<'_>,
    with_preference: &[f64],
    without: &[f64],
    threshold: f64,
) -> Result<Vec<f64>> {
    same_length("sums without the preference", with_preference.len(), without.len())?;
    pairs.check(with_preference.len())?;
    check_option("threshold", threshold, NOT_NEGATIVE)?;
    check_sequences("sum with the preference", with_preference, SUM)?;
    check_sequences("sum without the preference", without, SUM)?;
    let reward = |&(chosen, rejected): &(usize, usize)| {
        let raised = with_preference[chosen] * without[rejected];
        f64::from(u8::from(raised > threshold * (with_preference[rejected] * without[chosen])))
    };
    Ok(pairs.indices().iter().map(reward).collect())
}
