//! SPPO: win probabilities of the responses to a prompt.

use super::at_least;
use crate::batch::check_sequences;
use crate::error::Result;
use crate::objectives::FINITE;
use crate::objectives::scalar::sigmoid;

/// How often each response wins against those to the same prompt: the mean over `j` of
/// `sigmoid(s_i - s_j)`, which is 1/2 at `j = i`.
///
/// `scores` are `[responses]` of a pair ranker such as PairRM, as logits. A response alone has 1/2; none
/// have none. Takes time in the square of the number of responses. Source: SPPO (Wu et al., 2024), the
/// released code, which takes `j = i` in and has 5 responses.
///
/// ```
/// use prefuse::batch::{Batch, Labels, Packing, Pairs};
/// use prefuse::objectives::Sppo;
/// use prefuse::statistics::{best_and_worst, win_rates};
///
/// let scores = [0.3, 2.0, -1.0];
/// let pair = best_and_worst(&scores)?;
/// assert_eq!(pair, (1, 2));
/// let batch = Batch::new(Labels::new(&[1, 0, 2]), Packing::new(&[0, 1, 2, 3])?)?
///     .with_pairs(Pairs::new(vec![pair])?)?
///     .with_scores(win_rates(&scores)?)?; // for `Sppo`
/// # let _ = (batch, Sppo::new(0.001));
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// A score that is not finite.
pub fn win_rates(scores: &[f64]) -> Result<Vec<f64>> {
    check_sequences("score", scores, FINITE)?;
    let rate = |a: &f64| scores.iter().map(|b| sigmoid(a - b)).sum::<f64>() / scores.len() as f64;
    Ok(scores.iter().map(rate).collect())
}

/// The responses of the highest and of the lowest score, of equal ones the first: chosen and rejected.
/// They are the same where all scores are equal, and [`Pairs::new`](crate::batch::Pairs::new) refuses
/// that. Source: SPPO (Wu et al., 2024), the released code.
///
/// # Errors
/// No responses, or a score that is not finite.
pub fn best_and_worst(scores: &[f64]) -> Result<(usize, usize)> {
    at_least("responses", 1, scores.len())?;
    check_sequences("score", scores, FINITE)?;
    let (mut best, mut worst) = (0, 0);
    for (response, &score) in scores.iter().enumerate() {
        if score > scores[best] {
            best = response;
        }
        if score < scores[worst] {
            worst = response;
        }
    }
    Ok((best, worst))
}
