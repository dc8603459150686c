crate::objective! {
    /// What MM-RLHF's reward model has for pairs of equal rank (Zhang et al., 2025, released code):
    /// `(r_w - r_l)^2`. A term over a selection of pairs, beside
    /// [`BradleyTerry`](super::BradleyTerry) over the others.
    ///
    /// Rewards: the rewards.
    pub struct RewardTie {
        required {}
        optional {}
    }
    uses()
    examples [Self::new()]
    fn evaluate(self, pair: RewardPair) -> (loss, grad, reward) {
        reward.chosen = pair.chosen;
        reward.rejected = pair.rejected;
        let difference = pair.chosen - pair.rejected;
        loss = difference * difference;
        grad.chosen = 2.0 * difference;
        grad.rejected = -2.0 * difference;
    }
}
