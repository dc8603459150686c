crate::objective! {
    /// What MM-RLHF's reward model has for pairs of equal rank (Zhang et al., 2025, released code):
    /// `(r_w - r_l)^2 + centering * (r_w + r_l)^2`. A term over a selection of pairs, beside
    /// [`BradleyTerry`](super::BradleyTerry) over the others.
    ///
    /// Rewards: the rewards.
    pub struct RewardTie {
        required {}
        optional {
            /// Holds the rewards of a pair around 0. The released code has 0.01 in a mean over all pairs, ties or
            /// not: in the mean of either term it is that times the term's share of the pairs.
            centering: f64 = 0.0, in NOT_NEGATIVE, set by with_centering;
        }
    }
    uses()
    examples [Self::new(), Self::new().with_centering(0.01)]
    fn evaluate(self, pair: RewardPair) -> (loss, grad, reward) {
        reward.chosen = pair.chosen;
        reward.rejected = pair.rejected;
        let difference = pair.chosen - pair.rejected;
        let sum = pair.chosen + pair.rejected;
        loss = difference * difference + self.centering * sum * sum;
        grad.chosen = 2.0 * self.centering * sum + 2.0 * difference;
        grad.rejected = 2.0 * self.centering * sum - 2.0 * difference;
    }
}
