crate::objective! {
    /// Anchored Preference Optimization, zero (D'Oosterlinck et al., 2024): pushes the chosen
    /// response up and the rejected one down, `1 - sigmoid(r_w) + sigmoid(r_l)`,
    /// `r = beta * log-ratio`.
    ///
    /// Between 0 and 2; it saturates on both sides.
    pub struct ApoZero {
        required {
            /// Scale of the rewards.
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
        loss = sigmoid(-reward.chosen) + sigmoid(reward.rejected);
        grad.chosen = -beta * sigmoid(reward.chosen) * sigmoid(-reward.chosen);
        grad.rejected = beta * sigmoid(reward.rejected) * sigmoid(-reward.rejected);
    }
}
