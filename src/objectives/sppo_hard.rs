crate::objective! {
    /// SPPO (Wu et al., 2024) with win probabilities of 1 and 0, as TRL and xtuner have it (`sppo_hard`):
    /// `(d_w - 1 / (2 beta))^2 + (d_l + 1 / (2 beta))^2`, `d` the log-ratio, without the factor 1/2
    /// of [`Sppo`](super::Sppo).
    ///
    /// Rewards: `beta * log-ratio`.
    pub struct SppoHard {
        required {
            /// The paper's `1 / eta`.
            beta: f64 in POSITIVE,
        }
        optional {}
    }
    uses(reference, beta)
    examples [Self::new(0.1)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        let first = chosen - 0.5 / beta;
        let second = rejected + 0.5 / beta;
        loss = first * first + second * second;
        grad.chosen = 2.0 * first;
        grad.rejected = 2.0 * second;
    }
}
