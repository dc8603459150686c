use super::Divergence;

crate::objective! {
    /// Hinge loss on the normalised likelihood (RSO; Liu et al., 2023, eq. 9; SLiC-HF with a
    /// reference): `max(0, 1 - u)`, `u` as in [`Dpo`](super::Dpo).
    ///
    /// At the kink `u == 1` the gradient is 0, as torch's relu has it. Rewards: `beta * log-ratio`.
    pub struct Hinge {
        required {
            /// How strongly the policy is held to the reference (RSO's gamma).
            beta: f64 in POSITIVE,
        }
        optional {
            /// What the policy is held to the reference by; the score of each log-ratio takes its place.
            divergence: Divergence = Divergence::ReverseKl, in CHOICE, set by with_divergence;
            /// The order of [`Divergence::Alpha`].
            alpha: f64 = 0.5, in ORDER, set by with_alpha;
        }
    }
    uses(reference, beta, margin)
    examples [
        Self::new(0.1),
        Self::new(0.1).with_divergence(Divergence::JensenShannon),
        Self::new(0.1).with_divergence(Divergence::ForwardKl),
        Self::new(0.1).with_divergence(Divergence::Alpha).with_alpha(0.7),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        let difference =
            divergence_margin(self.divergence, self.alpha, chosen, 1.0, rejected, 1.0);
        let slack = 1.0 - (beta * difference - pair.margin);
        loss = max(slack, 0.0);
        if (slack <= 0.0) {
            grad.chosen = 0.0;
            grad.rejected = 0.0;
        } else {
            grad.chosen = -beta * divergence_slope(self.divergence, self.alpha, chosen);
            grad.rejected = beta * divergence_slope(self.divergence, self.alpha, rejected);
        }
    }
}
