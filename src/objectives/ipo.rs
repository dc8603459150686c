crate::objective! {
    /// Identity Preference Optimization (Azar et al., 2023, eq. 17):
    /// `(log-ratio chosen - log-ratio rejected - 1 / (2 beta))^2` on sums over tokens, as the paper
    /// and OpenRLHF have it.
    ///
    /// Rewards: `beta * log-ratio`, never divided by length (as TRL logs them).
    pub struct Ipo {
        required {
            /// The paper's tau: the squared distance is to a margin of `1 / (2 beta)`.
            beta: f64 in POSITIVE,
        }
        optional {
            /// Divides each log-ratio by its response's counted tokens (at least 1), which the
            /// authors confirmed to TRL as their practice; TRL and LLaMA-Factory always do it.
            length_normalized: bool = false, in SWITCH, set by with_length_normalized;
        }
    }
    uses(reference, beta)
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        if (self.length_normalized) {
            let chosen_length = max(pair.chosen.tokens, 1.0);
            let rejected_length = max(pair.rejected.tokens, 1.0);
            let residual = chosen / chosen_length - rejected / rejected_length - 0.5 / beta;
            loss = residual * residual;
            grad.chosen = 2.0 * residual / chosen_length;
            grad.rejected = -2.0 * residual / rejected_length;
        } else {
            let residual = chosen - rejected - 0.5 / beta;
            loss = residual * residual;
            grad.chosen = 2.0 * residual;
            grad.rejected = -2.0 * residual;
        }
    }
}
