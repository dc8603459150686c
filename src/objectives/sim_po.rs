crate::objective! {
    /// Simple Preference Optimization (Meng, Xia and Chen, 2024, eq. 6): `-log sigmoid(u)`,
    /// `u = beta * (average log-prob chosen - average log-prob rejected) - gamma - margin`, without
    /// a reference.
    ///
    /// With an [`Nll`](super::Nll) term it is CPO-SimPO, over a third response TPO-L. Averages are
    /// sums over counted tokens divided by their number (at least 1, so that an empty response is
    /// finite). Rewards: `beta * average log-prob`.
    pub struct SimPo {
        required {
            /// Scale of the reward; the paper uses 2 to 10.
            beta: f64 in POSITIVE,
            /// Target margin, absolute; the released code and HALOs give it as a ratio to beta, for them
            /// it is `ratio * beta`.
            gamma: f64 in NOT_NEGATIVE,
        }
        optional {
            /// Probability that a label is wrong, 0 to 0.5 (TRL and the released code offer it);
            /// it flips each pair's soft label.
            label_smoothing: f64 = 0.0, in UP_TO_HALF, set by with_label_smoothing;
        }
    }
    uses(beta, margin, soft_label)
    examples [Self::new(2.0, 1.0), Self::new(2.0, 1.0).with_label_smoothing(0.1)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen_length = length(pair.chosen.tokens);
        let rejected_length = length(pair.rejected.tokens);
        reward.chosen = beta * (pair.chosen.policy / chosen_length);
        reward.rejected = beta * (pair.rejected.policy / rejected_length);
        let u = reward.chosen - reward.rejected - self.gamma - pair.margin;
        let label = smoothed(pair.soft_label, self.label_smoothing);
        loss = logistic_loss(u, label);
        let slope = beta * logistic_slope(u, label);
        grad.chosen = slope / chosen_length;
        grad.rejected = -slope / rejected_length;
    }
}
