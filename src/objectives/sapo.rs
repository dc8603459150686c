crate::objective! {
    /// Soft Adaptive Policy Optimization (SAPO; 2025): a sigmoid gate in place of the clip,
    /// `-4 / tau * sigmoid(tau * (ratio - 1)) * A`, tau by the sign of the advantage.
    pub struct Sapo {
        required {}
        optional {
            /// How sharply the gate closes for positive advantages.
            tau_positive: f64 = 1.0, in POSITIVE, set by with_tau_positive;
            /// For the others.
            tau_negative: f64 = 1.05, in POSITIVE, set by with_tau_negative;
        }
    }
    uses(old, advantage)
    examples [Self::new(), Self::new().with_tau_positive(2.0).with_tau_negative(0.5)]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        let ratio = exp(token.policy - token.old);
        let positive = token.advantage > 0.0;
        let tau = select(positive, self.tau_positive, self.tau_negative);
        let gate = tau * (ratio - 1.0);
        loss = -4.0 / tau * sigmoid(gate) * token.advantage;
        grad.policy =
            -4.0 * token.advantage * product(sigmoid(gate) * sigmoid(-gate), ratio);
    }
}
