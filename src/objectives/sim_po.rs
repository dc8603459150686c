crate::objective! {
    /// Simple Preference Optimization (Meng, Xia and Chen, 2024, eq. 6): `-log sigmoid(u)`,
    /// `u = beta * (average log-prob chosen - average log-prob rejected) - gamma - margin`, without
    /// a reference.
    ///
    /// Averages are sums over counted tokens divided by their number (at least 1, so that an empty
    /// response is finite). Rewards: `beta * average log-prob`.
    pub struct SimPo {
        required {
            /// Scale of the reward; the paper uses 2 to 10.
            beta: f64 in POSITIVE,
            /// Target margin, absolute. The released code gives it as a ratio to beta.
            gamma: f64 in FINITE,
        }
        optional {
            /// Probability that a label is wrong, 0 to 0.5 (TRL and the released code offer it);
            /// it flips each pair's soft label.
            label_smoothing: f64 = 0.0, in UP_TO_HALF, set by with_label_smoothing;
        }
    }
    uses(beta, margin, soft_label)
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen_length = max(pair.chosen.tokens, 1.0);
        let rejected_length = max(pair.rejected.tokens, 1.0);
        reward.chosen = beta * (pair.chosen.policy / chosen_length);
        reward.rejected = beta * (pair.rejected.policy / rejected_length);
        let u = reward.chosen - reward.rejected - self.gamma - pair.margin;
        let label = (1.0 - self.label_smoothing) * pair.soft_label
            + self.label_smoothing * (1.0 - pair.soft_label);
        loss = logistic_loss(u, label);
        let slope = logistic_slope(u, label);
        grad.chosen = beta * slope / chosen_length;
        grad.rejected = -beta * slope / rejected_length;
    }
}
