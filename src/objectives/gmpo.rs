crate::objective! {
    /// Geometric-Mean Policy Optimization (GMPO; Zhao et al., 2025): `-ratio * A`, `ratio` the
    /// geometric mean of a sequence's ratios, each of whose logarithms is clipped, above for a positive
    /// advantage and below for a negative one.
    ///
    /// At the clip's edge a log-ratio has the gradient of the inside, as torch's clamp has it.
    pub struct Gmpo {
        required {
            /// Where the log-ratios are clipped; 0.4 in the paper.
            epsilon: f64 in POSITIVE,
        }
        optional {}
    }
    uses(old, advantage, sequence)
    clips log_ratio at epsilon
    examples [Self::new(0.4)]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        loss = -product(exp(token.sequence_log_ratio / token.tokens), token.advantage);
        grad.sequence = loss / token.tokens;
    }
    fn clipped(self, token) -> (low, high, dual) {
        let log_ratio = token.policy - token.old;
        low = log_ratio < -self.epsilon && token.advantage < 0.0;
        high = log_ratio > self.epsilon && token.advantage > 0.0;
    }
}
