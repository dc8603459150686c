use super::Divergence;

crate::objective! {
    /// DiscoPOP, the log-ratio modulated loss (Lu et al., 2024):
    /// `(1 - m) * -log sigmoid(u) + m * exp(-u)` with `m = sigmoid(u / temperature)`,
    /// `u = beta * (log-ratio chosen - log-ratio rejected)`.
    ///
    /// `m * exp(-u)` is taken as one exponential, `exp(u * (1 / temperature - 1)) / (1 + exp(u /
    /// temperature))` below 0: TRL and Liger have NaN where `exp(-u)` overflows.
    /// Rewards: `beta * log-ratio`.
    pub struct DiscoPop {
        required {
            /// How strongly the policy is held to the reference.
            beta: f64 in POSITIVE,
        }
        optional {
            /// How sharply the two losses meet; the paper's 0.05.
            temperature: f64 = 0.05, in POSITIVE, set by with_temperature;
            /// What the policy is held to the reference by; the score of each log-ratio takes its place.
            divergence: Divergence = Divergence::ReverseKl, in CHOICE, set by with_divergence;
            /// The order of [`Divergence::Alpha`].
            alpha: f64 = 0.5, in ORDER, set by with_alpha;
        }
    }
    uses(reference, beta)
    examples [
        Self::new(0.1),
        Self::new(0.1).with_temperature(0.5).with_divergence(Divergence::JensenShannon),
        Self::new(0.1).with_divergence(Divergence::ForwardKl),
        Self::new(0.1).with_divergence(Divergence::Alpha).with_alpha(0.7),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        let u = beta * divergence_margin(self.divergence, self.alpha, chosen, 1.0, rejected, 1.0);
        let scaled = u / self.temperature;
        let modulation = sigmoid(scaled);
        let rest = sigmoid(-scaled);
        let exponential = exp(select(
            u < 0.0,
            product(u, 1.0 / self.temperature - 1.0) - softplus(scaled),
            -u - softplus(-scaled)));
        loss = product(rest, softplus(-u)) + exponential;
        let slope = beta * (product(exponential, rest / self.temperature - 1.0)
            - rest * sigmoid(-u)
            - product(modulation * rest / self.temperature, softplus(-u)));
        grad.chosen = product(slope, divergence_slope(self.divergence, self.alpha, chosen));
        grad.rejected = -product(slope, divergence_slope(self.divergence, self.alpha, rejected));
    }
}
