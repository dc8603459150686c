//! Which pairs to train on: CRM's clean ones, MPO's easy ones.

use super::{NUMBER, ascending, check_option};
use crate::batch::check_pairs;
use crate::error::Result;
use crate::objectives::{NOT_NEGATIVE, PROBABILITY};

/// The pairs of the largest margins, a `share` of all (rounded to the nearest count, halves up), as
/// indices in ascending order. Of equal margins the earlier pairs are kept first.
///
/// In CRM each of two reward models selects for its peer the pairs that it finds clean: those of the
/// largest margin, which are those of the lowest loss; the share is 1 less an expected rate of wrong
/// labels. Source: CRM (2025), reconstructed from reviews: that the share is exactly this is an inference.
///
/// ```
/// use prefuse::Term;
/// use prefuse::objectives::BradleyTerry;
/// use prefuse::statistics::keep_largest;
///
/// let kept = keep_largest(&[0.3, -1.0, 2.0, 0.1], 0.75)?; // margins of the peer
/// assert_eq!(kept, [0, 2, 3]);
/// let term = Term::reward_pairs(BradleyTerry::new()).with_pairs(kept);
/// # let _ = term;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// There may be none, and a mean over no pairs is an error: leave the term out of that step's loss, or give it
/// a divisor.
///
/// # Errors
/// A margin that is NaN, or a share outside 0 to 1.
pub fn keep_largest(margins: &[f64], share: f64) -> Result<Vec<usize>> {
    check_option("share", share, PROBABILITY)?;
    check_pairs("margin", margins, NUMBER)?;
    // Ascending order of the negated margins keeps equal ones by position.
    let mut order = ascending(&margins.iter().map(|margin| -margin).collect::<Vec<_>>());
    order.truncate((share * margins.len() as f64).round() as usize);
    order.sort_unstable();
    Ok(order)
}

/// MPO's easy pairs, as indices in ascending order: those whose rewards are farther apart than the
/// threshold, in either direction. They train DPO; prompts of the others train a policy gradient.
///
/// `reward_gaps` are `[pairs]`: a reward model's reward of the chosen minus that of the rejected response.
/// Source: MPO (Gou and Nguyen, 2024), from its abstract and a description; the threshold's value is not
/// known.
///
/// ```
/// use prefuse::Term;
/// use prefuse::objectives::Dpo;
/// use prefuse::statistics::easy_pairs;
///
/// let easy = easy_pairs(&[0.3, -1.5, 2.0], 1.0)?;
/// assert_eq!(easy, [1, 2]);
/// let term = Term::pairs(Dpo::new(0.1)).with_pairs(easy);
/// # let _ = term;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// There may be none, and a mean over no pairs is an error: leave the term out of that step's loss, or give it
/// a divisor.
///
/// # Errors
/// A gap that is NaN, or a threshold outside 0 to 1e30.
pub fn easy_pairs(reward_gaps: &[f64], threshold: f64) -> Result<Vec<usize>> {
    check_option("threshold", threshold, NOT_NEGATIVE)?;
    check_pairs("reward gap", reward_gaps, NUMBER)?;
    let gaps = reward_gaps.iter().enumerate();
    Ok(gaps.filter(|(_, gap)| gap.abs() > threshold).map(|(pair, _)| pair).collect())
}
