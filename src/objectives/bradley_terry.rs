crate::objective! {
    /// The Bradley-Terry loss of a reward model (Ouyang et al., 2022), with margins (Llama 2;
    /// Touvron et al., 2023) and centering (Eisenstein et al., 2023):
    /// `-log sigmoid(u) + centering * (r_w + r_l)^2`, `u = r_w - r_l - margin`.
    ///
    /// The scaled form of HelpSteer2-Preference (Wang et al., 2024) is that with the weights of the
    /// pairs, CRM's keep-masks are a selection of pairs. Rewards: the rewards.
    pub struct BradleyTerry {
        required {}
        optional {
            /// Holds the rewards of a pair around 0; TRL recommends 0.01.
            centering: f64 = 0.0, in NOT_NEGATIVE, set by with_centering;
        }
    }
    uses(margin, soft_label)
    examples [Self::new(), Self::new().with_centering(0.01)]
    fn evaluate(self, pair: RewardPair) -> (loss, grad, reward) {
        reward.chosen = pair.chosen;
        reward.rejected = pair.rejected;
        let u = pair.chosen - pair.rejected - pair.margin;
        let sum = pair.chosen + pair.rejected;
        loss = logistic_loss(u, pair.soft_label) + self.centering * sum * sum;
        let slope = logistic_slope(u, pair.soft_label);
        grad.chosen = 2.0 * self.centering * sum + slope;
        grad.rejected = 2.0 * self.centering * sum - slope;
    }
}
