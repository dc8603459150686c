crate::objective! {
    /// Direct Preference Optimization (Rafailov et al., 2023, eq. 7): `-log sigmoid(u)`,
    /// `u = beta * (log-ratio chosen - log-ratio rejected) - margin`.
    ///
    /// With label smoothing (cDPO; Mitchell, 2023, eq. 3) or a soft label `w` for each pair:
    /// `-w log sigmoid(u) - (1 - w) log sigmoid(-u)`. Rewards: `beta * log-ratio`.
    pub struct Dpo {
        required {
            /// How strongly the policy is held to the reference; the paper and TRL use 0.1.
            beta: f64 in POSITIVE,
        }
        optional {
            /// Probability that a label is wrong, 0 to 0.5; it flips each pair's soft label.
            label_smoothing: f64 = 0.0, in UP_TO_HALF, set by with_label_smoothing;
        }
    }
    uses(reference, beta, margin, soft_label)
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * (pair.chosen.policy - pair.chosen.reference);
        reward.rejected = beta * (pair.rejected.policy - pair.rejected.reference);
        let u = reward.chosen - reward.rejected - pair.margin;
        let label = (1.0 - self.label_smoothing) * pair.soft_label
            + self.label_smoothing * (1.0 - pair.soft_label);
        loss = logistic_loss(u, label);
        grad.chosen = beta * logistic_slope(u, label);
        grad.rejected = -grad.chosen;
    }
}
