crate::objective! {
    /// The clip of log-probs in place of ratios, P3O's by token (V3; Wu et al., 2023):
    /// `max(-A * l, -A * clip(l, old - epsilon, old + epsilon))`, `l` the log-prob of a token, `A` the
    /// advantage.
    ///
    /// [`P3oAdvantages`](crate::statistics::P3oAdvantages) makes the advantages. At the clip's edge the
    /// gradient is the full one, as torch's clamp has it. Source: the authors' code.
    pub struct LogProbClip {
        required {
            /// How far the log-prob may fall or rise; 0.2.
            epsilon: f64 in NOT_NEGATIVE,
        }
        optional {}
    }
    uses(old, advantage)
    examples [Self::new(0.2)]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        let low = token.old - self.epsilon;
        let high = token.old + self.epsilon;
        let clipped = clip(token.policy, low, high);
        loss = max(-product(token.advantage, token.policy), -product(token.advantage, clipped));
        let kept = select(token.advantage > 0.0, high - token.policy, token.policy - low);
        if (kept >= 0.0) {
            grad.policy = -token.advantage;
        }
    }
    fn clipped(self, token) -> (low, high, dual) {
        let log_ratio = token.policy - token.old;
        low = log_ratio < -self.epsilon && token.advantage < 0.0;
        high = log_ratio > self.epsilon && token.advantage > 0.0;
    }
}
