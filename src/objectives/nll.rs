crate::objective! {
    /// Negative log-likelihood of a sequence: minus the sum of its log-probs. As a second term over
    /// the chosen sequences it makes RPO (Pang et al., 2024), CPO-SimPO and MPO, over a third
    /// response TPO (Saeidi et al., 2024); with a negative weight XPO's exploration (Xie et al., 2024).
    ///
    /// With [`Reduction::TokenMean`](super::Reduction::TokenMean) it is TRL's `sft` term, with
    /// `length_normalized` and the mean that of LLaMA-Factory and OpenRLHF, with the plain mean
    /// NeMo-RL's. Reward: 0.
    pub struct Nll {
        required {}
        optional {
            /// Divides by the sequence's counted tokens (at least 1); for the mean or the sum, as `TokenMean`
            /// would divide by them again.
            length_normalized: bool = false, in SWITCH, set by with_length_normalized;
        }
    }
    uses()
    examples [Self::new(), Self::new().with_length_normalized(true)]
    fn evaluate(self, sequence: Sequence) -> (loss, grad, reward) {
        grad.response = -1.0;
        if (self.length_normalized) {
            grad.response = -1.0 / length(sequence.response.tokens);
        }
        loss = grad.response * sequence.response.policy;
    }
}
