crate::objective! {
    /// Self-Consistency of Internal Rewards (SCIR, 2025), its consistency term,
    /// reconstructed: the symmetric KL of two Bernoulli preferences,
    /// `weight * (sigmoid(u) - sigmoid(v)) * (u - v) + entropy_weight * (H(u) + H(v))`, with
    /// `u = beta * (log-ratio chosen - log-ratio rejected)` the implicit reward's, `v` the difference
    /// of the log-probs of a judge's two verdicts, and `H` the entropy.
    ///
    /// DPO on the pairs where both agree is a term of its own. The paper's structure is certain, the
    /// formula not. Rewards: `beta * log-ratio`, and the verdicts' log-probs.
    pub struct Scir {
        required {
            /// Scale of the implicit rewards.
            beta: f64 in POSITIVE,
            /// Weight of the entropies, which keeps both sides confident; how large is not known.
            entropy_weight: f64 in NOT_NEGATIVE,
        }
        optional {
            /// Weight of the consistency.
            weight: f64 = 1.0, in NOT_NEGATIVE, set by with_weight;
            /// The pair is a constant for the gradient.
            detach_pair: bool = false, in SWITCH, set by with_detach_pair;
            /// The verdicts are constants for the gradient.
            detach_verdicts: bool = false, in SWITCH, set by with_detach_verdicts;
        }
    }
    uses(reference)
    examples [
        Self::new(0.1, 0.0),
        Self::new(0.1, 0.2).with_weight(0.5),
        Self::new(0.1, 0.2).with_detach_pair(true),
        Self::new(0.1, 0.2).with_detach_verdicts(true),
    ]
    fn evaluate(self, pair: JudgedPair) -> (loss, grad, reward) {
        reward.chosen = self.beta * (pair.chosen.policy - pair.chosen.reference);
        reward.rejected = self.beta * (pair.rejected.policy - pair.rejected.reference);
        reward.verdict_chosen = pair.verdict_chosen.policy;
        reward.verdict_rejected = pair.verdict_rejected.policy;
        let u = reward.chosen - reward.rejected;
        let v = reward.verdict_chosen - reward.verdict_rejected;
        let distance = soft_slope(u, sigmoid(v), sigmoid(-v));
        let u_slope = sigmoid(u) * sigmoid(-u);
        let v_slope = sigmoid(v) * sigmoid(-v);
        loss = self.weight * product(distance, u - v)
            + self.entropy_weight
                * (soft_loss(u, sigmoid(u), sigmoid(-u)) + soft_loss(v, sigmoid(v), sigmoid(-v)));
        if (!self.detach_pair) {
            grad.chosen = self.beta * (self.weight * (product(u_slope, u - v) + distance)
                - self.entropy_weight * product(u, u_slope));
            grad.rejected = -grad.chosen;
        }
        if (!self.detach_verdicts) {
            grad.verdict_chosen = -self.weight * (product(v_slope, u - v) + distance)
                - self.entropy_weight * product(v, v_slope);
            grad.verdict_rejected = -grad.verdict_chosen;
        }
    }
}
