//! iREPO: the target of a pair, as log-odds.

use crate::batch::{check_pairs, same_length};
use crate::error::Result;
use crate::objectives::{Domain, INSIDE_UNIT};

const STRENGTH: Domain = Domain {
    expected: "a finite number above 0",
    contains: |value| value > 0.0 && value.is_finite(),
};

/// `log(p / (1 - p))` of `[pairs]` probabilities that the chosen response is preferred, such as the share
/// of annotators who do: iREPO's targets. A share of 0 or 1 has no finite target: clamp it, or fit
/// strengths ([`strength_log_odds`]).
///
/// Source: iREPO (Le et al., 2024), reconstructed from its abstract and reviews.
///
/// ```
/// use prefuse::batch::Pairs;
/// use prefuse::statistics::preference_log_odds;
///
/// let targets = preference_log_odds(&[0.5, 0.8])?;
/// assert!(targets[0] == 0.0 && (targets[1] - 4.0_f64.ln()).abs() < 1e-15);
/// let pairs = Pairs::halves(2)?.with_margin(targets)?; // for `Irepo`
/// # let _ = pairs;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// A probability that is not inside 0 to 1.
pub fn preference_log_odds(probabilities: &[f64]) -> Result<Vec<f64>> {
    check_pairs("probability", probabilities, INSIDE_UNIT)?;
    Ok(probabilities.iter().map(|&p| p.ln() - (-p).ln_1p()).collect())
}

/// `log(chosen) - log(rejected)` of `[pairs]` strengths of a Bradley-Terry (Zermelo) model: the same
/// targets, since its preference is `chosen / (chosen + rejected)`. Source: as [`preference_log_odds`].
///
/// # Errors
/// Lengths that differ, or a strength that is not finite and above 0.
pub fn strength_log_odds(chosen: &[f64], rejected: &[f64]) -> Result<Vec<f64>> {
    same_length("rejected strengths", chosen.len(), rejected.len())?;
    check_pairs("chosen strength", chosen, STRENGTH)?;
    check_pairs("rejected strength", rejected, STRENGTH)?;
    Ok(chosen.iter().zip(rejected).map(|(a, b)| a.ln() - b.ln()).collect())
}
