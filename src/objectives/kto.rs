crate::objective! {
    /// Kahneman-Tversky Optimization (Ethayarajh et al., 2024), for data without pairs:
    /// `weight * (1 - sigmoid(beta * (d - z)))` of a desirable sequence and
    /// `weight * (1 - sigmoid(beta * (z - d)))` of an undesirable one, `d` the log-ratio and `z` the
    /// baseline.
    ///
    /// Desirable sequences have the soft label 1, undesirable ones 0. With the baseline at 0 it is
    /// APO-zero without pairs (TRL's `apo_zero_unpaired`). Reward: `beta * log-ratio`.
    pub struct Kto {
        required {
            /// Scale of the log-ratios; 0.1 in the paper and in TRL.
            beta: f64 in POSITIVE,
        }
        optional {
            /// `z`, an estimate of the policy's divergence from the reference, a constant
            /// (`statistics::kto_baseline`); at least 0.
            baseline: f64 = 0.0, in NOT_NEGATIVE, set by with_baseline;
            /// Weight of desirable sequences.
            desirable_weight: f64 = 1.0, in NOT_NEGATIVE, set by with_desirable_weight;
            /// Weight of undesirable sequences; Eurus has 1 to 1.33 for desirable ones.
            undesirable_weight: f64 = 1.0, in NOT_NEGATIVE, set by with_undesirable_weight;
        }
    }
    uses(reference, soft_label)
    examples [
        Self::new(0.1),
        Self::new(0.1).with_baseline(0.8).with_desirable_weight(1.33).with_undesirable_weight(0.9),
    ]
    fn evaluate(self, sequence: Sequence) -> (loss, grad, reward) {
        let log_ratio = sequence.response.policy - sequence.response.reference;
        reward.response = self.beta * log_ratio;
        let u = self.beta * (log_ratio - self.baseline);
        let desirable = sequence.soft_label * self.desirable_weight;
        let undesirable = (1.0 - sequence.soft_label) * self.undesirable_weight;
        loss = desirable * sigmoid(-u) + undesirable * sigmoid(u);
        grad.response = (undesirable - desirable) * (self.beta * sigmoid(u) * sigmoid(-u));
    }
}
