//! MM-DPO: a beta for each pair from the gap of its rewards.

use super::{Moments, NUMBER, at_least, check_option, compare};
use crate::batch::{check_pairs, same_length};
use crate::error::Result;
use crate::objectives::{FINITE, INSIDE_UNIT, NOT_NEGATIVE, POSITIVE};

/// MM-DPO's dynamic reward scaling: `1 + weight * (1 - exp(-k * gap))` for each pair, from 1 to
/// `1 + weight`, a factor of the objective's beta.
///
/// `reward_gaps` are `[pairs]`: a reward model's reward of the chosen minus that of the rejected
/// response. The paper keeps beta at its base or above, so a gap below 0 counts as 0. Its defaults are
/// `weight = k = 0.5`, with a base beta of 0.1. Source: MM-RLHF (Zhang et al., 2025, section 4.2 and
/// appendix F), read in the paper. The released code's floor of 1e-3 under each pair's beta has no work to
/// do beside factors of at least 1; its beta for the whole batch is [`mm_dpo_batch_beta`].
///
/// ```
/// use prefuse::batch::Pairs;
/// use prefuse::statistics::mm_dpo_beta_factors;
///
/// let factors = mm_dpo_beta_factors(&[0.0, 2.0, -1.0], 0.5, 0.5)?;
/// assert!(factors[0] == 1.0 && (factors[1] - 1.31606).abs() < 1e-5 && factors[2] == 1.0);
/// let pairs = Pairs::halves(3)?.with_beta(factors)?;
/// # let _ = pairs;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// A gap that is NaN, `weight` outside 0 to 1e30, or `k` outside 1e-30 to 1e30.
pub fn mm_dpo_beta_factors(reward_gaps: &[f64], weight: f64, k: f64) -> Result<Vec<f64>> {
    check_option("weight", weight, NOT_NEGATIVE)?;
    check_option("k", k, POSITIVE)?;
    check_pairs("reward gap", reward_gaps, NUMBER)?;
    let factor = |gap: &f64| 1.0 - weight * (-k * gap.max(0.0)).exp_m1();
    Ok(reward_gaps.iter().map(factor).collect())
}

/// The beta that MM-DPO's released code has for a whole batch, in the manner of beta-DPO (Wu et al., 2024):
/// `max(1e-3, beta * (1 + weight * (mean of a sample of the margins - mean of all)))`.
///
/// The sample is of 4 in 5 margins, drawn without replacement with weights `exp(-z^2 / 2)`, `z` how many
/// standard deviations a margin is from the mean. `margins` are `[pairs]` of the whole batch over all
/// ranks, log-ratio chosen less log-ratio rejected; `draws` are `[pairs]` uniform random numbers, the same on
/// every rank. The code's script has `beta` 0.1 and `weight` 0.1. It overwrites the betas of
/// [`mm_dpo_beta_factors`]; the paper reports that this form does not work. Source: the authors' code, as
/// read; that its margins are without beta is taken from beta-DPO.
///
/// ```
/// use prefuse::objectives::Dpo;
/// use prefuse::statistics::mm_dpo_batch_beta;
///
/// let beta = mm_dpo_batch_beta(&[0.5, 1.5, 0.25, 9.0, 1.0], &[0.4, 0.7, 0.2, 0.5, 0.6], 0.1, 0.1)?;
/// assert!(beta < 0.1); // 9.0 is not in the sample
/// let dpo = Dpo::new(beta);
/// # let _ = dpo;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Fewer than 2 margins, lengths that differ, a margin that is not finite, a draw that is not inside 0 to 1,
/// `beta` outside 1e-30 to 1e30, or `weight` outside 0 to 1e30.
pub fn mm_dpo_batch_beta(margins: &[f64], draws: &[f64], beta: f64, weight: f64) -> Result<f64> {
    at_least("margins", 2, margins.len())?;
    same_length("draws", margins.len(), draws.len())?;
    check_pairs("margin", margins, FINITE)?;
    check_pairs("draw", draws, INSIDE_UNIT)?;
    check_option("beta", beta, POSITIVE)?;
    check_option("weight", weight, NOT_NEGATIVE)?;
    let all = Moments::from_iter(margins.iter().copied());
    let deviation = all.unbiased_std() + 1e-7;
    // Exponential variables of these rates in order are such a sample (Efraimidis and Spirakis, 2006); in
    // logarithms no weight is too small.
    let key = |(margin, draw): (&f64, &f64)| {
        let z = (margin - all.mean()) / deviation;
        ((-draw.ln()).ln() + 0.5 * z * z, *margin)
    };
    let mut keys: Vec<(f64, f64)> = margins.iter().zip(draws).map(key).collect();
    keys.sort_by(|a, b| compare(a.0, b.0));
    let sample = Moments::from_iter(keys[..margins.len() * 4 / 5].iter().map(|key| key.1));
    Ok((beta * (1.0 + weight * (sample.mean() - all.mean()))).max(1e-3))
}
