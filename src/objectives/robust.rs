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
        optional {}
    }
    uses(reference, beta, margin)
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let flip = self.label_smoothing;
        reward.chosen = beta * (pair.chosen.policy - pair.chosen.reference);
        reward.rejected = beta * (pair.rejected.policy - pair.rejected.reference);
        let u = reward.chosen - reward.rejected - pair.margin;
        loss = (product(1.0 - flip, softplus(-u)) - product(flip, softplus(u))) / (1.0 - 2.0 * flip);
        grad.chosen = -beta * ((1.0 - flip) * sigmoid(-u) + flip * sigmoid(u)) / (1.0 - 2.0 * flip);
        grad.rejected = -grad.chosen;
    }
}
