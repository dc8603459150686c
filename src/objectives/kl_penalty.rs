use super::KlEstimator;

crate::choice! {
    /// What corrects an estimate for samples of the old policy.
    pub enum Importance {
        /// Nothing.
        None,
        /// The token's ratio.
        Token,
        /// The geometric mean of its sequence's ratios.
        Sequence,
        /// The token's ratio as a constant for the gradient.
        FixedToken,
    }
}

crate::objective! {
    /// The divergence from the reference that GRPO adds to its loss (Shao et al., 2024, eq. 4),
    /// estimated at each sampled token; the term's weight is its beta.
    ///
    /// TRL 1.16 multiplies the estimate by the ratio to the old policy, which has a gradient too; earlier
    /// NeMo-RL by the same ratio without its gradient. At a limit the gradient is that of the inside, as
    /// torch's clamp has it.
    pub struct KlPenalty {
        required {}
        optional {
            /// The estimator.
            estimator: KlEstimator = KlEstimator::K3, in CHOICE, set by with_estimator;
            /// What it is multiplied by.
            importance: Importance = Importance::None, in CHOICE, set by with_importance;
            /// The difference of log-probs is held to this magnitude (verl and NeMo-RL use 20).
            input_limit: f64 = 700.0, in POSITIVE, set by with_input_limit;
            /// The estimate is held to this magnitude (verl, NeMo-RL and OpenRLHF use 10).
            output_limit: f64 = 1e30, in POSITIVE, set by with_output_limit;
        }
    }
    uses(reference, old, sequence if self.importance == Importance::Sequence)
    examples [
        Self::new(),
        Self::new().with_estimator(KlEstimator::K1).with_importance(Importance::Sequence),
        Self::new().with_estimator(KlEstimator::K2).with_importance(Importance::Token),
        Self::new().with_input_limit(20.0).with_output_limit(10.0),
        Self::new().with_importance(Importance::FixedToken),
    ]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        let exact = token.policy - token.reference;
        let difference = clip(exact, -self.input_limit, self.input_limit);
        let decay = kl_decay(self.estimator, difference);
        let estimate = kl_estimate(self.estimator, difference, decay);
        let held = abs(exact) > self.input_limit || abs(estimate) > self.output_limit;
        let kl = clip(estimate, -self.output_limit, self.output_limit);
        let slope = select(held, 0.0, kl_slope(self.estimator, difference, decay));
        if (self.importance == Importance::None) {
            loss = kl;
            grad.policy = slope;
        } else {
            if (self.importance != Importance::Sequence) {
                let ratio = exp(token.policy - token.old);
                let fixed = self.importance == Importance::FixedToken;
                loss = product(kl, ratio);
                grad.policy = product(ratio, slope + select(fixed, 0.0, kl));
            } else {
                let ratio = exp(token.sequence_log_ratio / token.tokens);
                loss = product(kl, ratio);
                grad.policy = product(ratio, slope);
                grad.sequence = loss / token.tokens;
            }
        }
    }
}
