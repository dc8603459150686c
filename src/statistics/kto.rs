//! KTO: the baseline from mismatched pairs of prompt and response.

use super::Moments;
use crate::batch::same_length;
use crate::error::Result;
use crate::objectives::scalar::max;

/// Which sequences count as empty in KTO's baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptySequences {
    /// Those without counted tokens, which are skipped.
    #[default]
    Skip,
    /// As [`Skip`](Self::Skip), and those whose log-ratio is exactly 0 too: the code of HALOs knows
    /// empty sequences by that, so that it also skips those on which policy and reference agree.
    SkipZeros,
    /// None; an empty sequence's log-ratio of 0 is part of the mean, as in TRL.
    Keep,
}

/// Log-ratios of mismatched prompts and responses, without those of empty sequences.
///
/// `policy`, `reference` and `tokens` are `[sequences]`: sums of log-probs (nats) and counted tokens,
/// such as [`Forward::totals`](crate::Forward::totals) has them, of a batch in which each prompt is
/// followed by another prompt's response. Source: HALOs' code (KTO; Ethayarajh et al., 2024).
///
/// ```
/// use prefuse::objectives::Kto;
/// use prefuse::statistics::{EmptySequences, Moments, kto_baseline, kto_log_ratios};
///
/// let (policy, reference) = ([-9.0, 0.0, -6.0], [-10.0, 0.0, -8.0]);
/// let skip = EmptySequences::Skip;
/// let log_ratios = kto_log_ratios(&policy, &reference, &[5.0, 0.0, 4.0], skip)?;
/// let seen: Moments = log_ratios.into_iter().collect(); // `merge` those of other ranks
/// let objective = Kto::new(0.1).with_baseline(kto_baseline(&seen));
/// assert_eq!(kto_baseline(&seen), 1.5);
/// # let _ = objective;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ.
pub fn kto_log_ratios(
    policy: &[f64],
    reference: &[f64],
    tokens: &[f64],
    empty: EmptySequences,
) -> Result<Vec<f64>> {
    same_length("reference sums", policy.len(), reference.len())?;
    same_length("token counts", policy.len(), tokens.len())?;
    let log_ratios = policy.iter().zip(reference).zip(tokens);
    let kept = log_ratios.filter_map(|((policy, reference), &tokens)| {
        let log_ratio = policy - reference;
        let skipped = match empty {
            EmptySequences::Skip => tokens == 0.0,
            EmptySequences::SkipZeros => tokens == 0.0 || log_ratio == 0.0,
            EmptySequences::Keep => false,
        };
        (!skipped).then_some(log_ratio)
    });
    Ok(kept.collect())
}

/// KTO's `z`: the mean log-ratio of mismatched pairs, at least 0; 0 of none.
///
/// It estimates the policy's divergence from the reference, which is not negative (KTO; Ethayarajh et
/// al., 2024; HALOs' code; TRL 1.16, whose values it reproduces). Over several ranks HALOs adds sums and
/// counts, which is [`Moments::merge`]; TRL takes the mean of the ranks' means, the same where their
/// counts are equal.
/// A NaN stays one, and the objective refuses it.
pub fn kto_baseline(log_ratios: &Moments) -> f64 {
    max(log_ratios.mean(), 0.0)
}
