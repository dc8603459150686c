crate::objective! {
    /// Contrastive Preference Optimization (Xu et al., 2024): `-log sigmoid(u) - nll_weight *
    /// log-prob chosen`, `u = beta * (log-prob chosen - log-prob rejected) - margin`, on sums, without
    /// a reference.
    ///
    /// TRL's NLL is a mean over the tokens of the batch: `with_nll_weight(0.0)` and an
    /// [`Nll`](super::Nll) term. Without NLL it is also TPO's pair term, and DPO without a reference.
    /// Rewards: `beta * log-prob`.
    pub struct Cpo {
        required {
            /// Scale of the rewards; the paper uses 0.1.
            beta: f64 in POSITIVE,
        }
        optional {
            /// Probability that a label is wrong, 0 to 0.5; it flips each pair's soft label.
            label_smoothing: f64 = 0.0, in UP_TO_HALF, set by with_label_smoothing;
            /// Weight of the chosen response's negative log-likelihood; the paper's 1.
            nll_weight: f64 = 1.0, in NOT_NEGATIVE, set by with_nll_weight;
        }
    }
    uses(beta, margin, soft_label)
    examples [
        Self::new(0.1),
        Self::new(0.1).with_label_smoothing(0.2).with_nll_weight(0.0),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * pair.chosen.policy;
        reward.rejected = beta * pair.rejected.policy;
        let u = beta * (pair.chosen.policy - pair.rejected.policy) - pair.margin;
        let label = smoothed(pair.soft_label, self.label_smoothing);
        loss = logistic_loss(u, label) - self.nll_weight * pair.chosen.policy;
        grad.rejected = -beta * logistic_slope(u, label);
        grad.chosen = -grad.rejected - self.nll_weight;
    }
}
