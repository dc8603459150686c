//! MM-DPO: a beta for each pair from the gap of its rewards.

use super::{NUMBER, check_option};
use crate::batch::check_pairs;
use crate::error::Result;
use crate::objectives::{NOT_NEGATIVE, POSITIVE};

/// MM-DPO's dynamic reward scaling: `1 + weight * (1 - exp(-k * gap))` for each pair, from 1 to
/// `1 + weight`, a factor of the objective's beta.
///
/// `reward_gaps` are `[pairs]`: a reward model's reward of the chosen minus that of the rejected
/// response. The paper keeps beta at its base or above, so a gap below 0 counts as 0. Its defaults are
/// `weight = k = 0.5`, with a base beta of 0.1. Source: MM-RLHF (Zhang et al., 2025, section 4.2 and
/// appendix F), read in the paper. The released code ends up with one beta for the whole batch from the
/// implicit margins, which the paper itself reports not to work; it is not offered.
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
