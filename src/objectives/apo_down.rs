crate::objective! {
    /// Anchored Preference Optimization, down (D'Oosterlinck et al., 2024): for chosen
    /// responses worse than the model's own, pushes both down and the rejected one further,
    /// `sigmoid(r_w) + 1 - sigmoid(r_w - r_l)`, `r = beta * log-ratio`.
    pub struct ApoDown {
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
        let u = reward.chosen - reward.rejected;
        loss = sigmoid(reward.chosen) + sigmoid(-u);
        grad.rejected = beta * sigmoid(u) * sigmoid(-u);
        grad.chosen = beta * sigmoid(reward.chosen) * sigmoid(-reward.chosen) - grad.rejected;
    }
}
