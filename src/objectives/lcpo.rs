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
    /// The soft label of a pair is its annotator's reliability eta and has to be given: eta 1 is the
    /// logistic loss of `h`, which is DPO itself, but not IPO. `statistics::Reliability` keeps eta by its
    /// running mean. Without a reference: [`LcpoSimPo`](super::LcpoSimPo), [`LcpoCpo`](super::LcpoCpo).
    /// Rewards: `beta * log-ratio`, divided by length if the loss divides it, so that
    /// [`log_odds`](Self::log_odds) are theirs.
    pub struct Lcpo {
        required {
            /// The base loss's beta.
            beta: f64 in POSITIVE,
        }
        optional {
            /// The base loss.
            base: LcpoBase = LcpoBase::Dpo, in CHOICE, set by with_base;
            /// Divides each log-ratio by its response's counted tokens (at least 1), as in
            /// [`Ipo`](super::Ipo) and [`Dpo`](super::Dpo); the paper has sums.
            length_normalized: bool = false, in SWITCH, set by with_length_normalized;
        }
    }
    uses(reference, beta, soft_label)
    requires(soft_label)
    examples [
        Self::new(0.1),
        Self::new(2.0).with_base(LcpoBase::Ipo),
        Self::new(2.0).with_base(LcpoBase::Ipo).with_length_normalized(true),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen_length = one_or(self.length_normalized, length(pair.chosen.tokens));
        let rejected_length = one_or(self.length_normalized, length(pair.rejected.tokens));
        let chosen = (pair.chosen.policy - pair.chosen.reference) / chosen_length;
        let rejected = (pair.rejected.policy - pair.rejected.reference) / rejected_length;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        let scale = select(self.base == LcpoBase::Ipo, 2.0 / beta, beta);
        let log_odds = scale * (chosen - rejected);
        let of_label = posterior_log_odds(log_odds, pair.soft_label);
        loss = soft_loss(log_odds, sigmoid(of_label), sigmoid(-of_label));
        let slope = scale * soft_slope(log_odds, sigmoid(of_label), sigmoid(-of_label));
        grad.chosen = slope / chosen_length;
        grad.rejected = -slope / rejected_length;
    }
}

impl Lcpo {
    /// The log-odds `h` of a pair, for `statistics::posteriors`, from its margin: the chosen less the
    /// rejected reward, as they are logged. Of a pair with a factor of beta: of the objective with `beta`
    /// times that.
    pub fn log_odds(&self, margin: f64) -> f64 {
        match self.base {
            LcpoBase::Dpo => margin,
            LcpoBase::Ipo => 2.0 / (self.beta * self.beta) * margin,
        }
    }
}
