crate::objective! {
    /// Token-level Direct Preference Optimization, second form (Zeng et al., 2024, eq. 17; reconstructed
    /// from its released code): `-log sigmoid(u)`, `u = beta * (log-ratio chosen - log-ratio rejected -
    /// alpha * (KL rejected - KL chosen)) - margin`, with the chosen response's KL a constant.
    ///
    /// The scores of the sequences are their sequential KLs: sums of `KL(reference || policy)` over the counted
    /// tokens (`Distillation`'s, whose teacher is the reference). The gradient here takes them as constants; the
    /// rejected response's has one too, `alpha` times what the loss has by its sum of log-probs. Rewards:
    /// `beta * (log-ratio + KL)`.
    pub struct Tdpo2 {
        required {
            /// How strongly the policy is held to the reference; the paper uses 0.1.
            beta: f64 in POSITIVE,
        }
        optional {
            /// Share of the sequential KL in the margin; the paper uses 0.5.
            alpha: f64 = 0.5, in NOT_NEGATIVE, set by with_alpha;
        }
    }
    uses(reference, beta, margin, soft_label, score)
    examples [Self::new(0.1), Self::new(0.1).with_alpha(0.8)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * (chosen + pair.chosen.score);
        reward.rejected = beta * (rejected + pair.rejected.score);
        let shift = self.alpha * (pair.rejected.score - pair.chosen.score);
        let u = beta * (chosen - rejected - shift) - pair.margin;
        loss = logistic_loss(u, pair.soft_label);
        grad.chosen = beta * logistic_slope(u, pair.soft_label);
        grad.rejected = -grad.chosen;
    }
}
