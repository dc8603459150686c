crate::objective! {
    /// The reward model loss of Eurus (Yuan et al., 2024, section 3): `-log sigmoid(r_w - r_l)`, and
    /// `absolute_weight * (-log sigmoid(r_w) - log sigmoid(-r_l))`, which holds the rewards themselves
    /// above and below 0.
    ///
    /// Pairs that are not UltraInteract's have [`BradleyTerry`](super::BradleyTerry) alone: a term over
    /// a selection of pairs. Rewards: the rewards.
    pub struct Eurus {
        required {}
        optional {
            /// Weight of the second part; the paper's 1.
            absolute_weight: f64 = 1.0, in NOT_NEGATIVE, set by with_absolute_weight;
        }
    }
    uses()
    examples [Self::new(), Self::new().with_absolute_weight(0.5)]
    fn evaluate(self, pair: RewardPair) -> (loss, grad, reward) {
        reward.chosen = pair.chosen;
        reward.rejected = pair.rejected;
        let u = pair.chosen - pair.rejected;
        loss = softplus(-u)
            + self.absolute_weight * (softplus(-pair.chosen) + softplus(pair.rejected));
        grad.chosen = -sigmoid(-u) - self.absolute_weight * sigmoid(-pair.chosen);
        grad.rejected = sigmoid(-u) + self.absolute_weight * sigmoid(pair.rejected);
    }
}
