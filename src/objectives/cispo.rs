crate::objective! {
    /// Clipped importance sampling (CISPO; MiniMax-M1, 2025): REINFORCE whose clipped ratio is a
    /// constant, `-clip(ratio, floor, cap) * A * log-prob`.
    pub struct Cispo {
        required {
            /// The largest ratio; TRL's `epsilon_high` is this itself, verl's is this less 1.
            cap: f64 in POSITIVE,
        }
        optional {
            /// The smallest ratio; verl has `1 - epsilon_low`.
            floor: f64 = 0.0, in NOT_NEGATIVE, set by with_floor;
        }
    }
    uses(old, advantage)
    ordered(floor <= cap)
    examples [Self::new(1.28), Self::new(5.0).with_floor(0.5)]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        let ratio = clip(exp(token.policy - token.old), self.floor, self.cap);
        grad.policy = -ratio * token.advantage;
        loss = grad.policy * token.policy;
    }
    fn clipped(self, token) -> (low, high, dual) {
        let ratio = exp(token.policy - token.old);
        low = ratio < self.floor && token.advantage < 0.0;
        high = ratio > self.cap && token.advantage > 0.0;
    }
}
