crate::objective! {
    /// TRL's clipped form of REINFORCE leave-one-out (RLOO; Ahmadian et al., 2024): PPO's clip on the ratio
    /// of whole sequences, `ratio = exp(log-prob - old log-prob)` of the sums, the same for each token. The
    /// paper's own form is [`Reinforce`](super::Reinforce) with leave-one-out advantages.
    ///
    /// Those are `statistics::GroupAdvantages` with `Baseline::LeaveOneOut`. With
    /// [`SequenceMean`](super::Reduction::SequenceMean) it is the mean over sequences. At the clip's edges
    /// the gradient is that of the inside, as torch's clamp has it.
    pub struct Rloo {
        required {
            /// How far the ratio may fall or rise; 0.2.
            epsilon: f64 in NOT_NEGATIVE,
        }
        optional {}
    }
    uses(old, advantage, sequence)
    examples [Self::new(0.2)]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        let ratio = exp(token.sequence_log_ratio);
        let free = -product(ratio, token.advantage);
        let clipped = -clip(ratio, 1.0 - self.epsilon, 1.0 + self.epsilon) * token.advantage;
        let inside = ratio >= 1.0 - self.epsilon && ratio <= 1.0 + self.epsilon;
        loss = max(free, clipped);
        if (free > clipped || inside) {
            grad.sequence = free;
        }
    }
    fn clipped(self, token) -> (low, high, dual) {
        let ratio = exp(token.sequence_log_ratio);
        low = ratio < 1.0 - self.epsilon && token.advantage < 0.0;
        high = ratio > 1.0 + self.epsilon && token.advantage > 0.0;
    }
}
