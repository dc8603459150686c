use super::Divergence;

crate::objective! {
    /// Direct Preference Optimization (Rafailov et al., 2023, eq. 7): `-log sigmoid(u)`,
    /// `u = beta * (log-ratio chosen - log-ratio rejected) - margin`.
    ///
    /// With label smoothing (cDPO; Mitchell, 2023, eq. 3) or a soft label `w` for each pair:
    /// `-w log sigmoid(u) - (1 - w) log sigmoid(-u)`. Rewards: `beta * log-ratio`, never divided by
    /// length, whatever the divergence (as TRL logs them).
    pub struct Dpo {
        required {
            /// How strongly the policy is held to the reference; the paper and TRL use 0.1.
            beta: f64 in POSITIVE,
        }
        optional {
            /// Probability that a label is wrong, 0 to 0.5; it flips each pair's soft label.
            label_smoothing: f64 = 0.0, in UP_TO_HALF, set by with_label_smoothing;
            /// Divides each score by its response's counted tokens (at least 1): Tulu 3 (Lambert et
            /// al., 2024), TRL's `sigmoid_norm`.
            length_normalized: bool = false, in SWITCH, set by with_length_normalized;
            /// What the policy is held to the reference by; the score of each log-ratio takes its place.
            divergence: Divergence = Divergence::ReverseKl, in CHOICE, set by with_divergence;
            /// The order of [`Divergence::Alpha`].
            alpha: f64 = 0.5, in ORDER, set by with_alpha;
        }
    }
    uses(reference, beta, margin, soft_label)
    examples [
        Self::new(0.1),
        Self::new(0.1).with_label_smoothing(0.2),
        Self::new(2.0).with_length_normalized(true),
        Self::new(0.1).with_divergence(Divergence::ForwardKl),
        Self::new(0.1).with_divergence(Divergence::JensenShannon).with_length_normalized(true),
        Self::new(0.1).with_divergence(Divergence::Alpha).with_alpha(0.7),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen = pair.chosen.policy - pair.chosen.reference;
        let rejected = pair.rejected.policy - pair.rejected.reference;
        reward.chosen = beta * chosen;
        reward.rejected = beta * rejected;
        let chosen_length = one_or(self.length_normalized, length(pair.chosen.tokens));
        let rejected_length = one_or(self.length_normalized, length(pair.rejected.tokens));
        let difference = divergence_margin(
            self.divergence, self.alpha, chosen, chosen_length, rejected, rejected_length);
        let u = beta * difference - pair.margin;
        let label = smoothed(pair.soft_label, self.label_smoothing);
        loss = logistic_loss(u, label);
        let slope = beta * logistic_slope(u, label);
        grad.chosen = product(slope, divergence_slope(self.divergence, self.alpha, chosen))
            / chosen_length;
        grad.rejected = -product(slope, divergence_slope(self.divergence, self.alpha, rejected))
            / rejected_length;
    }
}
