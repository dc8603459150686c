//! How good a reward model's or a policy's preferences are.

use super::{NUMBER, at_least};
use crate::batch::{check_pairs, same_length, with_capacity};
use crate::error::Result;
use crate::objectives::PROBABILITY;

/// The share of pairs whose margin is strictly above 0: a tie counts as wrong, as in TRL's
/// `rewards/accuracies`.
///
/// `margins` are `[pairs]`: reward of the chosen minus that of the rejected response, of a reward model or
/// implicit ones (DPORM; Lin et al., 2024, compares the two).
///
/// ```
/// use prefuse::statistics::accuracy;
///
/// assert_eq!(accuracy(&[0.3, 0.0, -0.1, 2.0])?, 0.5);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// No pairs, or a margin that is NaN.
pub fn accuracy(margins: &[f64]) -> Result<f64> {
    at_least("pairs", 1, margins.len())?;
    check_pairs("margin", margins, NUMBER)?;
    let right = margins.iter().filter(|&&margin| margin > 0.0).count();
    Ok(right as f64 / margins.len() as f64)
}

/// The expected calibration error over uniform bins: the mean, weighted by the number of predictions in a
/// bin, of the distance between their mean probability and their mean outcome.
///
/// `probabilities` and `outcomes` are `[pairs]`: the probability that the first response is preferred,
/// such as `sigmoid(margin)`, and 1 where it is, 0 where it is not (or a share of annotators). Bin `i` of
/// `bins` holds the probabilities above `i / bins` up to `(i + 1) / bins`, the first bin 0 too. Source: Guo
/// et al., 2017; MORE's released code, which has 5 bins.
///
/// ```
/// use prefuse::statistics::expected_calibration_error;
///
/// let error = expected_calibration_error(&[0.9, 0.95, 0.05], &[1.0, 0.0, 0.0], 5)?;
/// assert!((error - 0.3).abs() < 1e-15);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// No predictions or bins, lengths that differ, a number outside 0 to 1, or more bins than fit in memory.
pub fn expected_calibration_error(
    probabilities: &[f64],
    outcomes: &[f64],
    bins: usize,
) -> Result<f64> {
    at_least("predictions", 1, probabilities.len())?;
    at_least("bins", 1, bins)?;
    same_length("outcomes", probabilities.len(), outcomes.len())?;
    check_pairs("probability", probabilities, PROBABILITY)?;
    check_pairs("outcome", outcomes, PROBABILITY)?;
    let mut differences = with_capacity("bins", bins)?;
    differences.resize(bins, 0.0);
    let edge = |bin: usize| bin as f64 / bins as f64;
    for (&probability, outcome) in probabilities.iter().zip(outcomes) {
        // The product may round to the far side of an edge, by one bin.
        let mut bin = ((probability * bins as f64) as usize).min(bins - 1);
        if bin > 0 && probability <= edge(bin) {
            bin -= 1;
        }
        differences[bin] += probability - outcome;
    }
    Ok(differences.into_iter().map(f64::abs).sum::<f64>() / probabilities.len() as f64)
}
