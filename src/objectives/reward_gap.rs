crate::objective! {
    /// The reward loss of inverse reinforcement learning in DR-IRL (2025), known from
    /// reading notes: `-(r_w - r_l) / beta`, the chosen response a demonstration and the rejected one
    /// the policy's own. Linear and unbounded below.
    ///
    /// Rewards: the rewards.
    pub struct RewardGap {
        required {
            /// What divides the gap.
            beta: f64 in POSITIVE,
        }
        optional {}
    }
    uses()
    examples [Self::new(0.5)]
    fn evaluate(self, pair: RewardPair) -> (loss, grad, reward) {
        reward.chosen = pair.chosen;
        reward.rejected = pair.rejected;
        loss = (pair.rejected - pair.chosen) / self.beta;
        grad.chosen = -1.0 / self.beta;
        grad.rejected = 1.0 / self.beta;
    }
}
