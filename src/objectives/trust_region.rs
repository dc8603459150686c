crate::objective! {
    /// The trust region of TRPA (Su et al., 2025): `k3 = exp(-d) + d - 1` at each sampled token,
    /// `d = log-prob - old log-prob`, held to `limit`; the term's weight is 0.001 in the released code.
    ///
    /// At the limit the gradient is that of the inside, as torch's clamp has it.
    pub struct TrustRegion {
        required {}
        optional {
            /// The estimate is held to this magnitude.
            limit: f64 = 10.0, in POSITIVE, set by with_limit;
        }
    }
    uses(old)
    examples [Self::new(), Self::new().with_limit(0.5)]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        // An impossible token is as far as one of e^-700.
        let difference = clip(token.policy - token.old, -700.0, 700.0);
        let decay = kl_decay(KlEstimator::K3, difference);
        let estimate = kl_estimate(KlEstimator::K3, difference, decay);
        loss = min(estimate, self.limit);
        let slope = kl_slope(KlEstimator::K3, difference, decay);
        grad.policy = select(estimate > self.limit, 0.0, slope);
    }
}
