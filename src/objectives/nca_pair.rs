crate::objective! {
    /// Noise Contrastive Alignment on pairs (Chen et al., 2024; TRL's `nca_pair`):
    /// `-log sigmoid(r_w) - (log sigmoid(-r_w) + log sigmoid(-r_l)) / 2` on the absolute rewards
    /// `r = beta * log-ratio`.
    pub struct NcaPair {
        required {
            /// Scale of the rewards; the authors' runs use 0.01, TRL 0.1.
            beta: f64 in POSITIVE,
        }
        optional {}
    }
    uses(reference, beta)
    examples [Self::new(0.1)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * (pair.chosen.policy - pair.chosen.reference);
        reward.rejected = beta * (pair.rejected.policy - pair.rejected.reference);
        loss = softplus(-reward.chosen) + 0.5 * softplus(reward.chosen)
            + 0.5 * softplus(reward.rejected);
        grad.chosen = beta * (0.5 * sigmoid(reward.chosen) - sigmoid(-reward.chosen));
        grad.rejected = 0.5 * beta * sigmoid(reward.rejected);
    }
}
