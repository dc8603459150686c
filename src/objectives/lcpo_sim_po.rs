use super::scalar;

crate::objective! {
    /// [`Lcpo`](super::Lcpo) (Cao et al., 2026, eq. 2, 4 and 5, table 1) on SimPO (Meng, Xia and Chen,
    /// 2024): log-odds `h = log sigmoid(m - gamma) - log sigmoid(-m - gamma)`,
    /// `m = beta * (average log-prob chosen - average log-prob rejected)`.
    ///
    /// The soft label is the annotator's reliability and has to be given. Rewards: `beta * average
    /// log-prob`.
    pub struct LcpoSimPo {
        required {
            /// SimPO's beta.
            beta: f64 in POSITIVE,
            /// SimPO's gamma, absolute.
            gamma: f64 in NOT_NEGATIVE,
        }
        optional {}
    }
    uses(beta, soft_label)
    requires(soft_label)
    examples [Self::new(2.0, 0.5)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * (pair.chosen.policy / length(pair.chosen.tokens));
        reward.rejected = beta * (pair.rejected.policy / length(pair.rejected.tokens));
        let margin = reward.chosen - reward.rejected;
        let log_odds = softplus(margin + self.gamma) - softplus(self.gamma - margin);
        let of_label = posterior_log_odds(log_odds, pair.soft_label);
        loss = soft_loss(log_odds, sigmoid(of_label), sigmoid(-of_label));
        let slope = beta * soft_slope(log_odds, sigmoid(of_label), sigmoid(-of_label))
            * (sigmoid(self.gamma - margin) + sigmoid(self.gamma + margin));
        grad.chosen = slope / length(pair.chosen.tokens);
        grad.rejected = -slope / length(pair.rejected.tokens);
    }
}

impl LcpoSimPo {
    /// The log-odds `h` of a pair from its margin, as in [`Lcpo::log_odds`](super::Lcpo::log_odds), whose
    /// factor of beta changes nothing here.
    pub fn log_odds(&self, margin: f64) -> f64 {
        scalar::softplus(margin + self.gamma) - scalar::softplus(self.gamma - margin)
    }
}
