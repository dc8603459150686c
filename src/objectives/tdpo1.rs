crate::objective! {
    /// Token-level Direct Preference Optimization, first form (Zeng et al., 2024, eq. 14; reconstructed
    /// from its released code): `-log sigmoid(u)`, `u = beta * (log-ratio chosen - log-ratio rejected -
    /// (KL rejected - KL chosen)) - margin`.
    ///
    /// The scores of the sequences are their sequential KLs: sums of `KL(reference || policy)` over the counted
    /// tokens (`Distillation`'s, whose teacher is the reference). The gradient here takes them as constants; they
    /// have one too, by each KL what the loss has by that response's sum of log-probs. Rewards:
    /// `beta * (log-ratio + KL)`.
    pub struct Tdpo1 {
        required {
            /// How strongly the policy is held to the reference; the paper uses 0.1.
            beta: f64 in POSITIVE,
        }
        optional {}
    }
    uses(reference, beta, margin, soft_label, score)
    examples [Self::new(0.1)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * (chosen + pair.chosen.score);
        reward.rejected = beta * (rejected + pair.rejected.score);
        let shift = (pair.rejected.score - pair.chosen.score);
        let u = beta * (chosen - rejected - shift) - pair.margin;
        loss = logistic_loss(u, pair.soft_label);
        grad.chosen = beta * logistic_slope(u, pair.soft_label);
        grad.rejected = -grad.chosen;
    }
}
