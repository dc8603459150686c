//! ORPO: the odds that trainers log.

use crate::batch::{check_pairs, check_sequences, same_length};
use crate::error::Result;
use crate::objectives::Domain;

const LOG_PROB: Domain = Domain { expected: "a number up to 0", contains: |value| value <= 0.0 };

/// `log(p / (1 - p))` of `[sequences]` average log-probs `log p` (nats): infinite at 0, the limit.
///
/// Source: ORPO (Hong, Lee and Thorne, 2024). `1 - p` is taken without cancellation.
///
/// # Errors
/// An average that is NaN or above 0.
pub fn log_odds(averages: &[f64]) -> Result<Vec<f64>> {
    check_sequences("average log-prob", averages, LOG_PROB)?;
    Ok(averages.iter().map(|&average| of_average(average)).collect())
}

/// ORPO's log odds ratio of each pair, log-odds of the chosen minus those of the rejected response:
/// `[pairs]` from `[pairs]` average log-probs (nats). Its mean is TRL's `log_odds_chosen`, the mean of its
/// `log sigmoid` is TRL's `log_odds_ratio`.
///
/// Finite but where one of the averages is exactly 0, which bf16 averages reach: then infinite with the
/// sign of the limit, and 0 where both are. TRL computes it in f32 (checked to that precision).
///
/// ```
/// use prefuse::statistics::log_odds_ratios;
///
/// let ratios = log_odds_ratios(&[-0.5, 0.0, 0.0], &[-0.5, -1.0, 0.0])?;
/// assert_eq!(ratios, [0.0, f64::INFINITY, 0.0]);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ, or an average that is NaN or above 0.
pub fn log_odds_ratios(chosen: &[f64], rejected: &[f64]) -> Result<Vec<f64>> {
    same_length("rejected averages", chosen.len(), rejected.len())?;
    check_pairs("chosen average", chosen, LOG_PROB)?;
    check_pairs("rejected average", rejected, LOG_PROB)?;
    let ratio = |(&chosen, &rejected): (&f64, &f64)| {
        // Equal infinite odds have no difference of their own.
        if chosen == rejected { 0.0 } else { of_average(chosen) - of_average(rejected) }
    };
    Ok(chosen.iter().zip(rejected).map(ratio).collect())
}

fn of_average(average: f64) -> f64 {
    average - (-average.exp_m1()).ln()
}
