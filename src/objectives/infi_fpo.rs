crate::objective! {
    /// InfiFPO (Gu et al., 2025, eq. 13): DPO on averages, against several source models fused into
    /// one reference, `u = beta * ((average log-prob - score) chosen - (average log-prob - score)
    /// rejected) - margin`, `-log sigmoid(u)`.
    ///
    /// The score of a sequence is its fused average log-prob, by each source's own count of tokens
    /// (`statistics::fuse_references`). Rewards: `beta * (average log-prob - score)`.
    pub struct InfiFpo {
        required {
            /// How strongly the policy is held to the sources; the paper uses 2.5.
            beta: f64 in POSITIVE,
        }
        optional {}
    }
    uses(beta, margin, soft_label, score)
    score in AVERAGE
    examples [Self::new(2.5)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen_length = length(pair.chosen.tokens);
        let rejected_length = length(pair.rejected.tokens);
        reward.chosen = beta * (pair.chosen.policy / chosen_length - pair.chosen.score);
        reward.rejected = beta * (pair.rejected.policy / rejected_length - pair.rejected.score);
        let u = reward.chosen - reward.rejected - pair.margin;
        loss = logistic_loss(u, pair.soft_label);
        let slope = beta * logistic_slope(u, pair.soft_label);
        grad.chosen = slope / chosen_length;
        grad.rejected = -slope / rejected_length;
    }
}
