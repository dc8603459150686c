crate::objective! {
    /// Pairwise Proximal Policy Optimization (P3O; Wu et al., 2023), its joint clip (V2):
    /// `max(-u, -clip(u, margin - epsilon, margin + epsilon)) / 2`, `u = log-ratio chosen - log-ratio
    /// rejected`.
    ///
    /// [`P3oAdvantages`](crate::statistics::P3oAdvantages) makes the order, the weights and the margins of
    /// the pairs: the margin is `u` under the policy that sampled. The mean over tokens without the half
    /// (the code's `avg_tokenwise`) is weight 2 and
    /// [`TokenMean`](super::Reduction::TokenMean). At the clip's upper edge the gradient is the full
    /// one, as torch's clamp has it. Rewards: the log-ratios. Source: the authors' code.
    pub struct P3o {
        required {
            /// How far the difference may rise; 0.2.
            epsilon: f64 in NOT_NEGATIVE,
        }
        optional {}
    }
    uses(reference, margin)
    requires(margin)
    examples [Self::new(0.2)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        reward.chosen = pair.chosen.policy - pair.chosen.reference;
        reward.rejected = pair.rejected.policy - pair.rejected.reference;
        let u = reward.chosen - reward.rejected;
        let clipped = clip(u, pair.margin - self.epsilon, pair.margin + self.epsilon);
        loss = 0.5 * max(-u, -clipped);
        if (u <= pair.margin + self.epsilon) {
            grad.chosen = -0.5;
            grad.rejected = 0.5;
        }
    }
}
