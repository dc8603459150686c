use super::Divergence;

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
            /// Divides each score by its response's counted tokens (at least 1), which the
            /// authors confirmed to TRL as their practice; TRL and LLaMA-Factory always do it.
            length_normalized: bool = false, in SWITCH, set by with_length_normalized;
            /// What the policy is held to the reference by; the score of each log-ratio takes its place.
            divergence: Divergence = Divergence::ReverseKl, in CHOICE, set by with_divergence;
            /// The order of [`Divergence::Alpha`].
            alpha: f64 = 0.5, in ORDER, set by with_alpha;
        }
    }
    uses(reference, beta)
    examples [
        Self::new(0.1),
        Self::new(0.1).with_length_normalized(true),
        Self::new(0.1).with_length_normalized(true).with_divergence(Divergence::ForwardKl),
        Self::new(0.1).with_divergence(Divergence::JensenShannon),
        Self::new(0.1).with_divergence(Divergence::Alpha).with_alpha(0.7),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        let chosen_length = one_or(self.length_normalized, length(pair.chosen.tokens));
        let rejected_length = one_or(self.length_normalized, length(pair.rejected.tokens));
        let difference = divergence_margin(
            self.divergence, self.alpha, chosen, chosen_length, rejected, rejected_length);
        let residual = difference - 0.5 / beta;
        loss = residual * residual;
        grad.chosen = product(
            2.0 * residual, divergence_slope(self.divergence, self.alpha, chosen)) / chosen_length;
        grad.rejected = -product(
            2.0 * residual, divergence_slope(self.divergence, self.alpha, rejected))
            / rejected_length;
    }
}
