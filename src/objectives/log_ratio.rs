crate::objective! {
    /// The log-ratio of a sequence, `log-prob - reference log-prob`: SELM's optimism (Zhang et al.,
    /// 2024, eq. 4.2) is this over the reference's own answers, with weight `alpha * beta` beside
    /// [`Dpo`](super::Dpo); the loss pushes them down.
    ///
    /// The paper's algorithm 1 has `alpha` in place of `alpha * beta`. Unbounded below. Reward: the
    /// log-ratio.
    pub struct LogRatio {
        required {}
        optional {}
    }
    uses(reference)
    examples [Self::new()]
    fn evaluate(self, sequence: Sequence) -> (loss, grad, reward) {
        loss = sequence.response.policy - sequence.response.reference;
        grad.response = 1.0;
        reward.response = loss;
    }
}
