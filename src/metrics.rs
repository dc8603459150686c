//! What trainers log about pairs, under TRL's definitions.

use crate::batch::Pairs;

/// Means over the pairs of a batch; pair weights do not enter.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairMetrics {
    /// `rewards/chosen`: the objective's implicit reward, `beta * log-ratio` where it has a
    /// reference.
    pub rewards_chosen: f64,
    /// `rewards/rejected`.
    pub rewards_rejected: f64,
    /// `rewards/accuracies`: the share of pairs whose chosen reward is strictly higher, so 0 where
    /// policy and reference are equal.
    pub rewards_accuracy: f64,
    /// `rewards/margins`: chosen minus rejected reward.
    pub rewards_margin: f64,
    /// `logps/chosen`: the sum of weight times log-prob, never divided by length.
    pub log_probs_chosen: f64,
    /// `logps/rejected`.
    pub log_probs_rejected: f64,
    /// Counted tokens of the chosen sequences, in the mean.
    pub tokens_chosen: f64,
    /// Counted tokens of the rejected sequences, in the mean.
    pub tokens_rejected: f64,
}

impl PairMetrics {
    /// `totals` are the sums and the counted tokens of the sequences.
    pub(crate) fn new(pairs: &Pairs<'_>, rewards: &[[f64; 2]], totals: [&[f64]; 2]) -> Self {
        let mean = |value: &dyn Fn(usize) -> f64| {
            (0..pairs.len()).map(value).sum::<f64>() / pairs.len() as f64
        };
        let [sums, tokens] = totals;
        let chosen = |pair: usize| pairs.indices()[pair].0;
        let rejected = |pair: usize| pairs.indices()[pair].1;
        Self {
            rewards_chosen: mean(&|pair| rewards[pair][0]),
            rewards_rejected: mean(&|pair| rewards[pair][1]),
            rewards_accuracy: mean(&|pair| {
                f64::from(u8::from(rewards[pair][0] > rewards[pair][1]))
            }),
            rewards_margin: mean(&|pair| rewards[pair][0] - rewards[pair][1]),
            log_probs_chosen: mean(&|pair| sums[chosen(pair)]),
            log_probs_rejected: mean(&|pair| sums[rejected(pair)]),
            tokens_chosen: mean(&|pair| tokens[chosen(pair)]),
            tokens_rejected: mean(&|pair| tokens[rejected(pair)]),
        }
    }
}
