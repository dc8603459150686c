//! Advantages of sampled responses: their rewards against those of the same prompt.

use std::collections::BTreeMap;

use super::{Moments, check_option};
use crate::batch::{check_sequences, same_length};
use crate::error::{Error, Result};
use crate::objectives::{FINITE, NOT_NEGATIVE};

/// What a reward is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Baseline {
    /// The mean reward of its prompt.
    #[default]
    Mean,
    /// The mean reward of the other responses to its prompt.
    LeaveOneOut,
}

/// What the difference is divided by. Each epsilon, 0 to 1e30, is added to the standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Nothing.
    One,
    /// The standard deviation of the prompt's rewards, unbiased as torch's.
    Group {
        /// 1e-4 in TRL, 1e-6 in verl.
        epsilon: f64,
    },
    /// The same of a population: divided by the count in place of the count less 1.
    GroupPopulation {
        /// 1e-2 in HALOs.
        epsilon: f64,
    },
    /// The unbiased standard deviation of all rewards.
    Batch {
        /// 1e-4 in TRL.
        epsilon: f64,
    },
}

/// What becomes of a response that is alone: there is nothing to compare it with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Singleton {
    /// Its advantage is 0, as in TRL.
    #[default]
    Zero,
    /// Its prompt has the mean 0 and the standard deviation 1, so that it keeps its reward, as in verl.
    Reward,
}

/// Advantages of the GRPO family: the difference of a reward from the baseline, over the spread.
///
/// | | baseline | spread | singleton |
/// |---|---|---|---|
/// | GRPO (Shao et al., 2024) as in TRL 1.16 | `Mean` | `Group`, 1e-4 | `Zero` |
/// | TRL's `scale_rewards="batch"` | `Mean` | `Batch`, 1e-4 | `Zero` |
/// | GRPO as in verl 0.9 | `Mean` | `Group`, 1e-6 | `Reward` |
/// | GRPO as in HALOs | `Mean` | `GroupPopulation`, 1e-2 | |
/// | Dr. GRPO (Liu et al., 2025) | `Mean` | `One` | |
/// | RLOO (Ahmadian et al., 2024) | `LeaveOneOut` | `One` | `Zero` in TRL, `Reward` in verl |
///
/// TRL's `normalize_advantages` of RLOO is the first row once more: of the advantages, with one prompt for
/// all of them.
///
/// Where all rewards of a prompt are equal the advantages are 0, whatever they are divided by.
///
/// ```
/// use prefuse::batch::Advantages;
/// use prefuse::statistics::{Baseline, GroupAdvantages, Spread};
///
/// let (rewards, prompts) = ([1.0, 0.0, 0.5, 2.0, 0.0], [0, 0, 0, 1, 1]);
/// let rloo = GroupAdvantages {
///     baseline: Baseline::LeaveOneOut,
///     spread: Spread::One,
///     ..GroupAdvantages::default()
/// };
/// let advantages = rloo.of(&rewards, &prompts)?;
/// assert_eq!(advantages, [0.75, -0.75, 0.0, 2.0, -2.0]);
/// let advantages = Advantages::per_sequence(advantages)?;
/// # let _ = advantages;
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupAdvantages {
    /// What a reward is compared with.
    pub baseline: Baseline,
    /// What the difference is divided by.
    pub spread: Spread,
    /// What becomes of a response that is alone.
    pub singleton: Singleton,
}

impl Default for GroupAdvantages {
    /// TRL's GRPO.
    fn default() -> Self {
        let (baseline, singleton) = (Baseline::Mean, Singleton::Zero);
        Self { baseline, spread: Spread::Group { epsilon: 1e-4 }, singleton }
    }
}

impl GroupAdvantages {
    /// `[sequences]` advantages of `[sequences]` rewards.
    ///
    /// `prompts` are `[sequences]`, who answers the same prompt: any numbers, in any order, of which equal
    /// ones are a group. Means and deviations are taken in the order of the sequences.
    ///
    /// # Errors
    /// Lengths that differ, a reward that is not finite or too large to be compared, or an epsilon outside
    /// its range.
    pub fn of(self, rewards: &[f64], prompts: &[usize]) -> Result<Vec<f64>> {
        same_length("prompts", rewards.len(), prompts.len())?;
        check_sequences("reward", rewards, FINITE)?;
        let epsilon = match self.spread {
            Spread::One => 0.0,
            Spread::Group { epsilon }
            | Spread::GroupPopulation { epsilon }
            | Spread::Batch { epsilon } => epsilon,
        };
        check_option("epsilon", epsilon, NOT_NEGATIVE)?;
        let mut groups = BTreeMap::<usize, Moments>::new();
        for (&prompt, &reward) in prompts.iter().zip(rewards) {
            groups.entry(prompt).or_default().add(reward);
        }
        let batch: Moments = rewards.iter().copied().collect();
        let advantage = |(&prompt, &reward): (&usize, &f64)| {
            let group = groups[&prompt];
            let alone = self.singleton == Singleton::Reward && group.count() == 1;
            let difference = match self.baseline {
                _ if alone => reward,
                Baseline::Mean => reward - group.mean(),
                // A response that is alone is its own mean.
                Baseline::LeaveOneOut => {
                    let count = group.count() as f64;
                    (reward - group.mean()) * (count / (count - 1.0).max(1.0))
                }
            };
            let std = match self.spread {
                Spread::One => 1.0,
                Spread::Batch { .. } if batch.count() > 1 => batch.unbiased_std(),
                _ if alone => 1.0,
                Spread::GroupPopulation { .. } => group.std(),
                Spread::Group { .. } | Spread::Batch { .. } => group.unbiased_std(),
            };
            // Of one number torch's deviation is NaN.
            if difference == 0.0 { 0.0 } else { difference / (std + epsilon) }
        };
        let advantages: Vec<f64> = prompts.iter().zip(rewards).map(advantage).collect();
        check_sequences("advantage", &advantages, FINITE)?;
        Ok(advantages)
    }
}

/// Advantages times a factor of their prompt, `[sequences]`; the groups' normalisation comes before.
///
/// `prompts` are `[sequences]` indices of `factors`. GRPO-S has factors above 0 that say how hard a prompt
/// is. Source: DR-IRL (2025), by third parties' notes.
///
/// ```
/// use prefuse::statistics::prompt_scaled;
///
/// assert_eq!(prompt_scaled(&[1.0, -1.0, 0.5], &[0, 0, 1], &[0.5, 2.0])?, [0.5, -0.5, 1.0]);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ, a prompt beyond the factors, or a factor that is not finite.
pub fn prompt_scaled(advantages: &[f64], prompts: &[usize], factors: &[f64]) -> Result<Vec<f64>> {
    same_length("prompts", advantages.len(), prompts.len())?;
    if let Some(prompt) = factors.iter().position(|factor| !factor.is_finite()) {
        let (what, expected) = ("factor of a prompt", FINITE.expected);
        return Err(Error::Scalar { what, expected, got: factors[prompt] });
    }
    if let Some(sequence) = prompts.iter().position(|&prompt| prompt >= factors.len()) {
        let (what, unit, got) = ("prompt", "sequence", prompts[sequence]);
        let (position, count) = (sequence, factors.len());
        return Err(Error::Index { what, unit, position, count, got });
    }
    let scaled =
        advantages.iter().zip(prompts).map(|(advantage, &prompt)| advantage * factors[prompt]);
    Ok(scaled.collect())
}

/// Advantages, 0 for the responses that are `neutral`, `[sequences]` each: they count in the means and
/// deviations of their groups, and have no gradient.
///
/// In ReSpace those are the valid samples that fail a check. Source: ReSpace (2025), the released code.
///
/// ```
/// use prefuse::statistics::{GroupAdvantages, without_neutral};
///
/// let rewards = [1.0, 0.2, 0.0, 0.2];
/// let advantages = GroupAdvantages::default().of(&rewards, &[0; 4])?;
/// let advantages = without_neutral(&advantages, &rewards.map(|reward| reward == 0.2))?;
/// assert!(advantages[0] > 0.0 && advantages[2] < 0.0);
/// assert_eq!([advantages[1], advantages[3]], [0.0; 2]);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ.
pub fn without_neutral(advantages: &[f64], neutral: &[bool]) -> Result<Vec<f64>> {
    same_length("neutral responses", advantages.len(), neutral.len())?;
    let kept = advantages.iter().zip(neutral);
    Ok(kept.map(|(&advantage, &neutral)| if neutral { 0.0 } else { advantage }).collect())
}
