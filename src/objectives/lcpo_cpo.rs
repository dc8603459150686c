crate::objective! {
    /// [`Lcpo`](super::Lcpo) on CPO, whose NLL is part of the loss: log-odds
    /// `h = (beta + 1) * (log-prob chosen - log-prob rejected)` on sums.
    ///
    /// Rewards: `beta * log-prob`.
    pub struct LcpoCpo {
        required {
            /// CPO's beta.
            beta: f64 in POSITIVE,
        }
        optional {}
    }
    uses(beta, soft_label)
    examples [Self::new(0.1)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * pair.chosen.policy;
        reward.rejected = beta * pair.rejected.policy;
        let log_odds = (beta + 1.0) * (pair.chosen.policy - pair.rejected.policy);
        let label = posterior(log_odds, pair.soft_label);
        loss = logistic_loss(log_odds, label);
        grad.chosen = (beta + 1.0) * logistic_slope(log_odds, label);
        grad.rejected = -grad.chosen;
    }
}
