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
        optional {}
    }
    uses(reference, beta, margin)
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * (pair.chosen.policy - pair.chosen.reference);
        reward.rejected = beta * (pair.rejected.policy - pair.rejected.reference);
        let slack = 1.0 - (reward.chosen - reward.rejected - pair.margin);
        loss = max(slack, 0.0);
        if (slack <= 0.0) {
            grad.chosen = 0.0;
            grad.rejected = 0.0;
        } else {
            grad.chosen = -beta;
            grad.rejected = beta;
        }
    }
}
