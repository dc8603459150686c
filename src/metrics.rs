//! What trainers log, under TRL's definitions, but for `logps/*`: here they are sums for every objective,
//! where TRL has averages for SimPO, ORPO and CPO's IPO. Their rewards are of averages here too.

use crate::resolved::Resolved;

/// Means over the pairs of a term; pair weights do not enter.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairMetrics {
    /// `rewards/chosen`: the objective's implicit reward, `beta * log-ratio` where it has a
    /// reference. For a reward model the reward itself.
    pub rewards_chosen: f64,
    /// `rewards/rejected`.
    pub rewards_rejected: f64,
    /// `rewards/accuracies`: the share of pairs whose chosen reward is strictly higher, so 0 where
    /// policy and reference are equal.
    pub rewards_accuracy: f64,
    /// `rewards/margins`: chosen minus rejected reward.
    pub rewards_margin: f64,
    /// `min_reward` of a reward model: the lowest of all rewards.
    pub rewards_min: f64,
    /// `max_reward`: the highest of all rewards.
    pub rewards_max: f64,
    /// `logps/chosen`: the sum of weight times log-prob, never divided by length.
    pub log_probs_chosen: f64,
    /// `logps/rejected`.
    pub log_probs_rejected: f64,
    /// Counted tokens of the chosen sequences, in the mean.
    pub tokens_chosen: f64,
    /// Counted tokens of the rejected sequences, in the mean.
    pub tokens_rejected: f64,
}

/// Means over the sequences of a term, apart for desirable and undesirable ones, as KTO's and BCO's
/// trainers log them; weights do not enter, and a mean over none is NaN.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceMetrics {
    /// `count/chosen`: sequences whose soft label is above 1/2; all where there are no labels.
    pub desirable: usize,
    /// `count/rejected`: the others.
    pub undesirable: usize,
    /// `rewards/chosen`: the objective's implicit reward.
    pub rewards_desirable: f64,
    /// `rewards/rejected`.
    pub rewards_undesirable: f64,
    /// `rewards/margins`: the difference of these two means.
    pub rewards_margin: f64,
    /// `logps/chosen`: the sum of weight times log-prob, never divided by length.
    pub log_probs_desirable: f64,
    /// `logps/rejected`.
    pub log_probs_undesirable: f64,
    /// Counted tokens of all these sequences.
    pub tokens: f64,
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), x| (sum + x, count + 1));
    sum / count as f64
}

impl PairMetrics {
    /// `totals` are the sums and the counted tokens of the sequences.
    pub(crate) fn new(term: &Resolved, rewards: &[[f64; 2]], [sums, tokens]: [&[f64]; 2]) -> Self {
        let member = |values: &[f64], response: usize| {
            mean((0..term.units()).map(|unit| term.member(unit, response)).map(|s| values[s]))
        };
        let of = |value: &dyn Fn(&[f64; 2]) -> f64| mean(rewards.iter().map(value));
        let all = || rewards.iter().flatten().copied();
        // NaN is not passed over.
        let extreme = |better: fn(f64, f64) -> bool| {
            all().reduce(|a, b| if a.is_nan() || better(a, b) { a } else { b }).unwrap_or(f64::NAN)
        };
        Self {
            rewards_chosen: of(&|rewards| rewards[0]),
            rewards_rejected: of(&|rewards| rewards[1]),
            rewards_accuracy: of(&|rewards| f64::from(u8::from(rewards[0] > rewards[1]))),
            rewards_margin: of(&|rewards| rewards[0] - rewards[1]),
            rewards_min: extreme(|a, b| a < b),
            rewards_max: extreme(|a, b| a > b),
            log_probs_chosen: member(sums, 0),
            log_probs_rejected: member(sums, 1),
            tokens_chosen: member(tokens, 0),
            tokens_rejected: member(tokens, 1),
        }
    }
}

impl SequenceMetrics {
    /// `totals` are the sums and the counted tokens of the sequences.
    pub(crate) fn new(term: &Resolved, rewards: &[[f64; 2]], [sums, tokens]: [&[f64]; 2]) -> Self {
        let labels = term.soft_labels();
        let units = |desirable: bool| {
            let label = move |unit: usize| labels.is_none_or(|labels| labels[unit] > 0.5);
            (0..term.units()).filter(move |&unit| label(unit) == desirable)
        };
        let sequence = |unit| term.member(unit, 0);
        let reward = |desirable| mean(units(desirable).map(|unit| rewards[unit][0]));
        let log_probs = |desirable| mean(units(desirable).map(|unit| sums[sequence(unit)]));
        Self {
            desirable: units(true).count(),
            undesirable: units(false).count(),
            rewards_desirable: reward(true),
            rewards_undesirable: reward(false),
            rewards_margin: reward(true) - reward(false),
            log_probs_desirable: log_probs(true),
            log_probs_undesirable: log_probs(false),
            tokens: (0..term.units()).map(|unit| tokens[sequence(unit)]).sum(),
        }
    }
}
