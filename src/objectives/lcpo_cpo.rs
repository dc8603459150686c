crate::objective! {
    /// [`Lcpo`](super::Lcpo) (Cao et al., 2026, eq. 2, 4 and 5, table 1) on CPO (Xu et al., 2024), whose
    /// NLL is part of the loss: log-odds `h = (beta + 1) * (log-prob chosen - log-prob rejected)` on sums.
    ///
    /// The soft label is the annotator's reliability and has to be given. Rewards: `beta * log-prob`.
    pub struct LcpoCpo {
        required {
            /// CPO's beta.
            beta: f64 in POSITIVE,
        }
        optional {}
    }
    uses(beta, soft_label)
    requires(soft_label)
    examples [Self::new(0.1)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * pair.chosen.policy;
        reward.rejected = beta * pair.rejected.policy;
        let log_odds = (beta + 1.0) * (pair.chosen.policy - pair.rejected.policy);
        let of_label = posterior_log_odds(log_odds, pair.soft_label);
        loss = soft_loss(log_odds, sigmoid(of_label), sigmoid(-of_label));
        grad.chosen =
            (beta + 1.0) * soft_slope(log_odds, sigmoid(of_label), sigmoid(-of_label));
        grad.rejected = -grad.chosen;
    }
}

impl LcpoCpo {
    /// The log-odds `h` of a pair from its margin, as in [`Lcpo::log_odds`](super::Lcpo::log_odds).
    pub fn log_odds(&self, margin: f64) -> f64 {
        (1.0 + 1.0 / self.beta) * margin
    }
}
