crate::objective! {
    /// The clipped surrogate of PPO (Schulman et al., 2017, eq. 7) on tokens:
    /// `-min(ratio * A, clip(ratio, 1 - epsilon_low, 1 + epsilon_high) * A)`, `ratio = exp(log-prob -
    /// old log-prob)`, `A` the advantage.
    ///
    /// The reduction tells the variants apart: [`SequenceMean`](super::Reduction::SequenceMean) is
    /// GRPO's (Shao et al., 2024), `TokenMean` BNPO's, `Divisor` of the tokens of the whole window
    /// DAPO's (Yu et al., 2025, whose `epsilon_high` is 0.28), of sequences times the largest length
    /// Dr. GRPO's (Liu et al., 2025), of sequences LUSPO's. At the clip's edges, and at the cap, the
    /// gradient is that of the inside, as torch's clamp has it.
    pub struct PpoClip {
        required {
            /// How far the ratio may fall; 0.2.
            epsilon_low: f64 in NOT_NEGATIVE,
            /// How far it may rise; 0.2, in DAPO 0.28.
            epsilon_high: f64 in NOT_NEGATIVE,
        }
        optional {
            /// The ratio beside the clip is no more than this (TRL's `delta`).
            ratio_cap: f64 = 1e30, in POSITIVE, set by with_ratio_cap;
            /// The loss of a negative advantage is no more than `-dual_clip * A` (Ye et al., 2020;
            /// verl uses 3).
            dual_clip: f64 = 1e30, in POSITIVE, set by with_dual_clip;
            /// The log-ratio is held to this magnitude (verl uses 20); f64 ends at 709.
            log_ratio_limit: f64 = 700.0, in POSITIVE, set by with_log_ratio_limit;
        }
    }
    uses(old, advantage)
    examples [
        Self::new(0.2, 0.28),
        Self::new(0.2, 0.2).with_ratio_cap(2.0).with_dual_clip(3.0).with_log_ratio_limit(20.0),
    ]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        let log_ratio = token.policy - token.old;
        let ratio = exp(clip(log_ratio, -self.log_ratio_limit, self.log_ratio_limit));
        let free = -min(ratio, self.ratio_cap) * token.advantage;
        let clipped =
            -clip(ratio, 1.0 - self.epsilon_low, 1.0 + self.epsilon_high) * token.advantage;
        let inside = ratio >= 1.0 - self.epsilon_low && ratio <= 1.0 + self.epsilon_high;
        loss = max(free, clipped);
        // Each branch has its own bound: a cap below the clip's edge stops the first alone.
        let moves = (free >= clipped && ratio <= self.ratio_cap) || (clipped >= free && inside);
        if (moves && abs(log_ratio) <= self.log_ratio_limit) {
            grad.policy = -ratio * token.advantage;
        }
        if (token.advantage < 0.0 && loss > -self.dual_clip * token.advantage) {
            loss = -self.dual_clip * token.advantage;
            grad.policy = 0.0;
        }
    }
    fn clipped(self, token) -> (low, high, dual) {
        let log_ratio = token.policy - token.old;
        let ratio = exp(clip(log_ratio, -self.log_ratio_limit, self.log_ratio_limit));
        let free = min(ratio, self.ratio_cap);
        let clipped = clip(ratio, 1.0 - self.epsilon_low, 1.0 + self.epsilon_high);
        low = free < 1.0 - self.epsilon_low && token.advantage < 0.0;
        high = free > 1.0 + self.epsilon_high && token.advantage > 0.0;
        dual = max(free, clipped) > self.dual_clip && token.advantage < 0.0;
    }
}
