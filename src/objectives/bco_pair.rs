crate::objective! {
    /// Binary Classifier Optimization on pairs (Jung et al., 2024; TRL's `bco_pair`):
    /// `-log sigmoid(r_w - shift) - log sigmoid(shift - r_l)`, `r = beta * log-ratio`.
    ///
    /// For data without pairs there is [`PointwiseLogistic`](super::PointwiseLogistic).
    pub struct BcoPair {
        required {
            /// Scale of the rewards.
            beta: f64 in POSITIVE,
        }
        optional {
            /// The running mean of all rewards, a constant (`statistics::Moments`). TRL up to 0.28
            /// takes the current batch in first; TRL since 0.29 has 0.
            shift: f64 = 0.0, in BOUNDED, set by with_shift;
        }
    }
    uses(reference, beta)
    examples [Self::new(0.1), Self::new(0.1).with_shift(-0.4)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * (pair.chosen.policy - pair.chosen.reference);
        reward.rejected = beta * (pair.rejected.policy - pair.rejected.reference);
        let chosen = reward.chosen - self.shift;
        let rejected = reward.rejected - self.shift;
        loss = softplus(-chosen) + softplus(rejected);
        grad.chosen = -beta * sigmoid(-chosen);
        grad.rejected = beta * sigmoid(rejected);
    }
}
