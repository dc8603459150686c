use super::Divergence;

crate::objective! {
    /// Efficient Exact Optimization on pairs (EXO; Ji et al., 2024): the reverse KL of the
    /// policy's preference `q = sigmoid(u)` from a smoothed label,
    /// `q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e)`, `u = beta * (log-ratio chosen -
    /// log-ratio rejected)`.
    ///
    /// Rewards: `beta * log-ratio`.
    pub struct ExoPair {
        required {
            /// How strongly the policy is held to the reference.
            beta: f64 in POSITIVE,
            /// `e`, the probability that a label is wrong; 0 would make the loss infinite, TRL up to
            /// 0.28 takes 0.001 in its place.
            label_smoothing: f64 in INSIDE_HALF,
        }
        optional {
            /// What the policy is held to the reference by; the score of each log-ratio takes its place.
            divergence: Divergence = Divergence::ReverseKl, in CHOICE, set by with_divergence;
            /// The order of [`Divergence::Alpha`].
            alpha: f64 = 0.5, in ORDER, set by with_alpha;
        }
    }
    uses(reference, beta)
    examples [
        Self::new(0.1, 0.001),
        Self::new(0.1, 0.2).with_divergence(Divergence::JensenShannon),
        Self::new(0.1, 0.2).with_divergence(Divergence::ForwardKl),
        Self::new(0.1, 0.2).with_divergence(Divergence::Alpha).with_alpha(0.7),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let flip = self.label_smoothing;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        let u = beta * divergence_margin(self.divergence, self.alpha, chosen, 1.0, rejected, 1.0);
        loss = -product(sigmoid(u), softplus(-u) + log(1.0 - flip))
            - product(sigmoid(-u), softplus(u) + log(flip));
        let slope = beta * product(sigmoid(u) * sigmoid(-u), u + log(flip / (1.0 - flip)));
        grad.chosen = product(slope, divergence_slope(self.divergence, self.alpha, chosen));
        grad.rejected = -product(slope, divergence_slope(self.divergence, self.alpha, rejected));
    }
}
