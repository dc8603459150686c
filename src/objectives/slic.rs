crate::objective! {
    /// Sequence Likelihood Calibration (SLiC-HF; Zhao et al., 2023), its first term:
    /// `max(0, delta - (beta * (log-prob chosen - log-prob rejected) - margin))`, without a reference,
    /// on sums, or on averages with `length_normalized`. The paper's second term is an
    /// [`Nll`](super::Nll) term.
    ///
    /// At the kink the gradient is 0, as torch's relu has it. Rewards: `beta` times the sum, or the
    /// average, that is compared.
    pub struct Slic {
        required {
            /// The margin below which a pair counts; HALOs and CPO's hinge in TRL have 1.
            delta: f64 in NOT_NEGATIVE,
        }
        optional {
            /// Scale of the log-probs; the paper has none, CPO's hinge in TRL has 0.1.
            beta: f64 = 1.0, in POSITIVE, set by with_beta;
            /// Compares averages over counted tokens (at least 1), as RRHF (Yuan et al., 2023, eq. 1
            /// to 5) does with a delta of 0, over all pairs of a group and without a mean.
            length_normalized: bool = false, in SWITCH, set by with_length_normalized;
        }
    }
    uses(beta, margin)
    examples [
        Self::new(1.0),
        Self::new(0.5).with_beta(0.1),
        Self::new(0.0).with_length_normalized(true),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let chosen_length = one_or(self.length_normalized, length(pair.chosen.tokens));
        let rejected_length = one_or(self.length_normalized, length(pair.rejected.tokens));
        let difference =
            pair.chosen.policy / chosen_length - pair.rejected.policy / rejected_length;
        reward.chosen = beta * (pair.chosen.policy / chosen_length);
        reward.rejected = beta * (pair.rejected.policy / rejected_length);
        let slack = self.delta - (beta * difference - pair.margin);
        loss = max(slack, 0.0);
        if (slack <= 0.0) {
            grad.chosen = 0.0;
        } else {
            grad.chosen = -beta / chosen_length;
            grad.rejected = beta / rejected_length;
        }
    }
}
