crate::objective! {
    /// Logistic loss of single sequences, for data without pairs: `-log sigmoid(u)` of a desirable one
    /// and `-log sigmoid(-u)` of an undesirable one, `u = beta * log-ratio - shift`. With the running
    /// mean of the rewards as its shift it is BCO (Jung et al., 2024).
    ///
    /// Desirable sequences have the soft label 1, undesirable ones 0; BCO's density ratio, which
    /// weighs undesirable sequences, is given by the weights of the sequences. With beta 1 and
    /// `length_normalized` it is what TRPA falls back to. Reward: `beta * log-ratio`, divided by length if
    /// the loss divides it, so that the shift is the mean of the rewards.
    pub struct PointwiseLogistic {
        required {
            /// Scale of the log-ratios.
            beta: f64 in POSITIVE,
        }
        optional {
            /// The running mean of all rewards, a constant (`statistics::Moments`); TRL takes the
            /// current batch in first.
            shift: f64 = 0.0, in BOUNDED, set by with_shift;
            /// Divides the log-ratio by the sequence's counted tokens (at least 1).
            length_normalized: bool = false, in SWITCH, set by with_length_normalized;
        }
    }
    uses(reference, soft_label)
    examples [Self::new(0.1), Self::new(1.0).with_shift(-0.3).with_length_normalized(true)]
    fn evaluate(self, sequence: Sequence) -> (loss, grad, reward) {
        let divisor = one_or(self.length_normalized, length(sequence.response.tokens));
        let log_ratio = sequence.response.policy - sequence.response.reference;
        reward.response = self.beta * (log_ratio / divisor);
        let u = reward.response - self.shift;
        loss = logistic_loss(u, sequence.soft_label);
        grad.response = self.beta * logistic_slope(u, sequence.soft_label) / divisor;
    }
}
