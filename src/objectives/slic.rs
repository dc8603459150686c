crate::objective! {
    /// Sequence Likelihood Calibration (SLiC-HF; Zhao et al., 2023), its first term:
    /// `max(0, delta - beta * (log-prob chosen - log-prob rejected))` on sums, without a reference.
    /// The paper's second term is an [`Nll`](super::Nll) term.
    ///
    /// At the kink the gradient is 0, as torch's relu has it. Rewards: `beta * log-prob`.
    pub struct Slic {
        required {
            /// The margin below which a pair counts; HALOs and CPO's hinge in TRL have 1.
            delta: f64 in FINITE,
        }
        optional {
            /// Scale of the log-probs; the paper has none, CPO's hinge in TRL has 0.1.
            beta: f64 = 1.0, in POSITIVE, set by with_beta;
        }
    }
    uses(beta, margin)
    examples [Self::new(1.0), Self::new(0.5).with_beta(0.1)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * pair.chosen.policy;
        reward.rejected = beta * pair.rejected.policy;
        let slack =
            self.delta - (beta * (pair.chosen.policy - pair.rejected.policy) - pair.margin);
        loss = max(slack, 0.0);
        if (slack <= 0.0) {
            grad.chosen = 0.0;
        } else {
            grad.chosen = -beta;
        }
        grad.rejected = -grad.chosen;
    }
}
