//! CREAM: how far two models agree on the order of the responses to a prompt.

use super::{NUMBER, ascending, at_least};
use crate::batch::{check_sequences, same_length};
use crate::error::Result;

/// Kendall's tau of the orders of the same responses under two models' scores, from -1 (reversed) to 1
/// (equal): agreeing minus disagreeing pairs of responses, over all pairs of responses.
///
/// `a` and `b` are `[responses]` of one prompt, on any scale: only their order matters. Ranks are
/// ordinal: of equal scores the earlier response has the lower rank, in both lists. Takes time in the
/// square of the number of responses. Source: CREAM (Wang et al., 2025), the released code.
///
/// # Errors
/// Fewer than two responses (one has no order), lengths that differ, or a score that is NaN.
pub fn kendall_tau(a: &[f64], b: &[f64]) -> Result<f64> {
    same_length("scores", a.len(), b.len())?;
    at_least("responses", 2, a.len())?;
    check_sequences("first score", a, NUMBER)?;
    check_sequences("second score", b, NUMBER)?;
    let mut ranks = vec![0_usize; b.len()];
    for (rank, response) in ascending(b).into_iter().enumerate() {
        ranks[response] = rank;
    }
    let order: Vec<usize> = ascending(a).into_iter().map(|response| ranks[response]).collect();
    let later = order.iter().enumerate();
    let disagreeing: usize = later
        .map(|(position, rank)| order[position + 1..].iter().filter(|&other| other < rank).count())
        .sum();
    let all = order.len() as f64 * (order.len() - 1) as f64 / 2.0;
    Ok(1.0 - 2.0 * (disagreeing as f64 / all))
}

/// CREAM's consistency rate of one prompt, `(tau + 1) / 2`, from 0 to 1: the soft label of its pair.
///
/// The scores are a model's rewards and its previous iteration's: log-ratios, or average log-probs in
/// the first iteration. The paper takes the mean rate of the data set for every pair; the rate of each
/// prompt for its own pair is the code's `consistency_dyn`. Source: CREAM (Wang et al., 2025), the
/// released code.
///
/// ```
/// use prefuse::batch::Pairs;
/// use prefuse::statistics::consistency;
///
/// let rate = consistency(&[0.1, 0.9, 0.4, 0.2], &[-3.0, -1.0, -2.0, -4.0])?;
/// assert!((rate - 5.0 / 6.0).abs() < 1e-15);
/// let pairs = Pairs::new(vec![(1, 0)])?.with_soft_label(vec![rate])?; // best and worst
/// # let _ = pairs;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// As [`kendall_tau`].
pub fn consistency(a: &[f64], b: &[f64]) -> Result<f64> {
    Ok((kendall_tau(a, b)? + 1.0) / 2.0)
}
