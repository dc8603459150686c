//! Sequences that the policy has moved away from, and that it should not be taught to avoid further.

use super::tokens::Tokens;
use super::{NUMBER, check_option};
use crate::batch::{Advantages, Labels, Packing, Weights, check_sequences};
use crate::element::Element;
use crate::error::Result;
use crate::objectives::NOT_NEGATIVE;

/// Advantages that are 0 where they are negative and the sequence is off-policy: `[tokens]`, for
/// objectives on tokens, whose loss and gradient there are then 0.
///
/// A sequence is off-policy if the mean over its counted tokens of `old - policy`, which estimates the
/// divergence of the policy from the one that sampled it, is above the threshold; one without counted
/// tokens has a mean of 0. `policy` and `old` are `[tokens]` log-probs (nats) of the labels. The tokens
/// of such a sequence count all the same in what divides the term's losses, and in terms without
/// advantages, such as a KL penalty. Source: DeepSeek-V3.2 (2025, eq. 9), as TRL 1.16 has it
/// (`off_policy_mask_threshold`), whose values it reproduces; there an old log-prob that is NaN counts
/// as equal.
///
/// ```
/// use prefuse::batch::{Advantages, Batch, Labels, Packing, ReferenceLogProbs};
/// use prefuse::objectives::PpoClip;
/// use prefuse::statistics::mask_off_policy;
/// use prefuse::{Loss, Sequences, Term};
///
/// let (labels, packing) = (Labels::new(&[1, 0, 2, 2]), Packing::new(&[0, 2, 4])?);
/// let (policy, old) = ([-1.0_f32, -4.0, -2.0, -2.0], [-0.5_f32, -1.5, -2.0, -1.75]);
/// let advantages = Advantages::per_sequence(&[-1.0, -0.5])?;
/// // The means of old less policy are 1.5 and 0.125.
/// let advantages =
///     mask_off_policy(&advantages, &policy, &old, 0.5, &labels, None, &packing)?; // 0, 0, -0.5, -0.5
/// let batch = Batch::new(labels, packing)?
///     .with_old(ReferenceLogProbs::per_token(&old))?
///     .with_advantages(advantages)?;
/// let loss = Loss::new(batch, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All)])?;
/// # let _ = loss;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ, a threshold outside 0 to 1e30, a mean that is NaN, or advantages, labels or
/// weights in device memory.
pub fn mask_off_policy<T: Element>(
    advantages: &Advantages<'_>,
    policy: &[T],
    old: &[T],
    threshold: f64,
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    packing: &Packing,
) -> Result<Advantages<'static>> {
    check_option("threshold", threshold, NOT_NEGATIVE)?;
    let tokens = Tokens::packed(labels, weights, packing)?;
    tokens.check("policy log-probs", policy)?;
    tokens.check("old log-probs", old)?;
    let mut advantages = advantages.by_token(packing)?;
    let mean = |range: std::ops::Range<usize>| {
        let count = tokens.count(range.clone()).max(1) as f64;
        let term = |token: usize| old[token].to_f64() - policy[token].to_f64();
        tokens.counted(range).map(term).sum::<f64>() / count
    };
    let means: Vec<f64> = packing.ranges().map(mean).collect();
    check_sequences("mean log-ratio", &means, NUMBER)?;
    for (range, _) in packing.ranges().zip(means).filter(|&(_, mean)| mean > threshold) {
        let negative = advantages[range].iter_mut().filter(|advantage| **advantage < 0.0);
        negative.for_each(|advantage| *advantage = 0.0);
    }
    Ok(Advantages::per_token(&advantages))
}
