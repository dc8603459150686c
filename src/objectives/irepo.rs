crate::objective! {
    /// iREPO (Le et al., 2024), reconstructed from its abstract and reviews: regression of the
    /// implicit reward difference on the logit of an empirical preference,
    /// `(beta * (log-ratio chosen - log-ratio rejected) - margin)^2`.
    ///
    /// The margin of a pair has to be given: `log(p / (1 - p))`, `p` the share of annotators who prefer the
    /// chosen response, or the difference of the logarithms of fitted strengths. Any factor 1/2 is unknown:
    /// use the term's weight. Rewards: `beta * log-ratio`.
    pub struct Irepo {
        required {
            /// Scale of the rewards.
            beta: f64 in POSITIVE,
        }
        optional {
            /// `(sigmoid(u) - p)^2` in place of the logits' squared difference, as one reviewer
            /// describes the loss.
            of_probabilities: bool = false, in SWITCH, set by with_of_probabilities;
        }
    }
    uses(reference, beta, margin)
    requires(margin)
    examples [Self::new(0.1), Self::new(0.1).with_of_probabilities(true)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * (pair.chosen.policy - pair.chosen.reference);
        reward.rejected = beta * (pair.rejected.policy - pair.rejected.reference);
        let u = reward.chosen - reward.rejected;
        if (self.of_probabilities) {
            let residual = soft_slope(u, sigmoid(pair.margin), sigmoid(-pair.margin));
            loss = residual * residual;
            grad.chosen = 2.0 * beta * residual * sigmoid(u) * sigmoid(-u);
        } else {
            let residual = u - pair.margin;
            loss = residual * residual;
            grad.chosen = 2.0 * beta * residual;
        }
        grad.rejected = -grad.chosen;
    }
}
