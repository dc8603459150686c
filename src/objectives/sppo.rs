crate::objective! {
    /// Self-Play Preference Optimization (Wu et al., 2024, the authors' code; algorithm 1, with the
    /// log-partition term as a constant, is reconstructed):
    /// `((d_w - (P_w - 1/2) / beta)^2 + (d_l - (P_l - 1/2) / beta)^2) / 2`, `d` the log-ratio.
    ///
    /// The scores of the sequences are win probabilities (`statistics::win_rates`). The authors'
    /// `sppo_single` is the same with `P(w > l)` and its complement. Rewards: `beta * log-ratio`.
    pub struct Sppo {
        required {
            /// The paper's `1 / eta`; the authors' runs use 0.001.
            beta: f64 in POSITIVE,
        }
        optional {}
    }
    uses(reference, beta, score)
    score in PROBABILITY
    examples [Self::new(0.1)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        grad.chosen = chosen - (pair.chosen.score - 0.5) / beta;
        grad.rejected = rejected - (pair.rejected.score - 0.5) / beta;
        loss = 0.5 * (grad.chosen * grad.chosen + grad.rejected * grad.rejected);
    }
}
