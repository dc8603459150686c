crate::objective! {
    /// Group Sequence Policy Optimization (GSPO; Zheng et al., 2025, eq. 5 to 7): PPO's clip on the
    /// geometric mean of a sequence's ratios, `ratio = exp(mean over tokens of log-prob - old
    /// log-prob)`, the same for each of its tokens.
    ///
    /// With [`SequenceMean`](super::Reduction::SequenceMean) it is the paper's mean over sequences.
    /// At the clip's edges the gradient is that of the inside, as torch's clamp has it.
    pub struct Gspo {
        required {
            /// How far the ratio may fall; 3e-4 in the paper.
            epsilon_low: f64 in NOT_NEGATIVE,
            /// How far it may rise; 4e-4 in the paper.
            epsilon_high: f64 in NOT_NEGATIVE,
        }
        optional {}
    }
    uses(old, advantage, sequence)
    examples [Self::new(3e-4, 4e-4), Self::new(0.2, 0.2)]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        let ratio = exp(token.sequence_log_ratio / token.tokens);
        let free = -product(ratio, token.advantage);
        let clipped =
            -clip(ratio, 1.0 - self.epsilon_low, 1.0 + self.epsilon_high) * token.advantage;
        let inside = ratio >= 1.0 - self.epsilon_low && ratio <= 1.0 + self.epsilon_high;
        loss = max(free, clipped);
        if (free > clipped || inside) {
            grad.sequence = free / token.tokens;
        }
    }
    fn clipped(self, token) -> (low, high, dual) {
        let ratio = exp(token.sequence_log_ratio / token.tokens);
        low = ratio < 1.0 - self.epsilon_low && token.advantage < 0.0;
        high = ratio > 1.0 + self.epsilon_high && token.advantage > 0.0;
    }
}
