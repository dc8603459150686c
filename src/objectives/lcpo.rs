crate::choice! {
    /// The pair loss that [`Lcpo`] makes robust.
    pub enum LcpoBase {
        /// DPO: log-odds `beta * (log-ratio chosen - log-ratio rejected)`.
        Dpo,
        /// IPO: log-odds `2 / beta * (log-ratio chosen - log-ratio rejected)`.
        Ipo,
    }
}

crate::objective! {
    /// Latent Collective Preference Optimization, later RE-PO (Cao et al., 2026, eq. 2, 4 and 5, table
    /// 1): `-w log sigmoid(h) - (1 - w) log sigmoid(-h)`, `h` the base loss's log-odds, with the
    /// posterior `w = sigmoid(h + logit(soft_label))` that the label is right, a constant for the
    /// gradient.
    ///
    /// The soft label of a pair is its annotator's reliability eta; without one the loss is the
    /// base's. `statistics::Reliability` keeps eta by its running mean. Without a reference:
    /// [`LcpoSimPo`](super::LcpoSimPo), [`LcpoCpo`](super::LcpoCpo). Rewards: `beta * log-ratio`.
    pub struct Lcpo {
        required {
            /// The base loss's beta.
            beta: f64 in POSITIVE,
        }
        optional {
            /// The base loss.
            base: LcpoBase = LcpoBase::Dpo, in CHOICE, set by with_base;
        }
    }
    uses(reference, beta, soft_label)
    examples [Self::new(0.1), Self::new(2.0).with_base(LcpoBase::Ipo)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        grad.chosen = beta;
        if (self.base == LcpoBase::Ipo) {
            grad.chosen = 2.0 / beta;
        }
        let log_odds = grad.chosen * (chosen - rejected);
        let label = posterior(log_odds, pair.soft_label);
        loss = logistic_loss(log_odds, label);
        grad.chosen = grad.chosen * logistic_slope(log_odds, label);
        grad.rejected = -grad.chosen;
    }
}
