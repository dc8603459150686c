crate::objective! {
    /// [`Lcpo`](super::Lcpo) on SimPO: log-odds `h = log sigmoid(m - gamma) - log sigmoid(-m - gamma)`,
    /// `m = beta * (average log-prob chosen - average log-prob rejected)`.
    ///
    /// Rewards: `beta * average log-prob`.
    pub struct LcpoSimPo {
        required {
            /// SimPO's beta.
            beta: f64 in POSITIVE,
            /// SimPO's gamma, absolute.
            gamma: f64 in FINITE,
        }
        optional {}
    }
    uses(beta, soft_label)
    examples [Self::new(2.0, 0.5)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * (pair.chosen.policy / length(pair.chosen.tokens));
        reward.rejected = beta * (pair.rejected.policy / length(pair.rejected.tokens));
        let margin = reward.chosen - reward.rejected;
        let log_odds = softplus(margin + self.gamma) - softplus(self.gamma - margin);
        let label = posterior(log_odds, pair.soft_label);
        loss = logistic_loss(log_odds, label);
        let slope = beta * logistic_slope(log_odds, label)
            * (sigmoid(self.gamma - margin) + sigmoid(self.gamma + margin));
        grad.chosen = slope / length(pair.chosen.tokens);
        grad.rejected = -slope / length(pair.rejected.tokens);
    }
}
