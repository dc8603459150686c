use super::Divergence;

crate::objective! {
    /// Provably robust DPO (Chowdhury, Kini and Natarajan, 2024, eq. 12): the loss whose
    /// expectation under flipped labels is DPO's,
    /// `(-(1 - e) log sigmoid(u) + e log sigmoid(-u)) / (1 - 2 e)`, `u` as in [`Dpo`](super::Dpo).
    ///
    /// It may be negative, and it is unbounded below as `u` grows. Rewards: `beta * log-ratio`.
    pub struct Robust {
        required {
            /// How strongly the policy is held to the reference.
            beta: f64 in POSITIVE,
            /// `e`, the probability that a label is wrong, 0 to below 0.5.
            label_smoothing: f64 in BELOW_HALF,
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
        Self::new(0.1, 0.2),
        Self::new(0.1, 0.1).with_divergence(Divergence::JensenShannon),
        Self::new(0.1, 0.1).with_divergence(Divergence::ForwardKl),
        Self::new(0.1, 0.1).with_divergence(Divergence::Alpha).with_alpha(0.7),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let flip = self.label_smoothing;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        let difference =
            divergence_margin(self.divergence, self.alpha, chosen, 1.0, rejected, 1.0);
        let u = beta * difference - pair.margin;
        loss = (product(1.0 - flip, softplus(-u)) - product(flip, softplus(u))) / (1.0 - 2.0 * flip);
        let slope =
            -beta * ((1.0 - flip) * sigmoid(-u) + flip * sigmoid(u)) / (1.0 - 2.0 * flip);
        grad.chosen = product(slope, divergence_slope(self.divergence, self.alpha, chosen));
        grad.rejected = -product(slope, divergence_slope(self.divergence, self.alpha, rejected));
    }
}
