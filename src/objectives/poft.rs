crate::objective! {
    /// Preference-oriented Supervised Fine-Tuning (Fan et al., 2025): a Bradley-Terry loss of
    /// the policy against aligned models on the same answer,
    /// `-log sigmoid(beta * (average log-prob - score) + gamma)`.
    ///
    /// The score of a sequence is the mean of the aligned models' average log-probs, each by its own
    /// count of tokens. The policy's average is over the tokens that count: over the response in the
    /// paper; the released code's is over the prompt too, for which the prompt's labels have to count.
    /// Reward: `beta * average log-prob`.
    pub struct Poft {
        required {}
        optional {
            /// Scale of the averages; 1 in the released code.
            beta: f64 = 1.0, in POSITIVE, set by with_beta;
            /// Added inside; 0 in the released code.
            gamma: f64 = 0.0, in BOUNDED, set by with_gamma;
        }
    }
    uses(score)
    score in AVERAGE
    examples [Self::new(), Self::new().with_beta(2.0).with_gamma(0.5)]
    fn evaluate(self, sequence: Sequence) -> (loss, grad, reward) {
        let average = sequence.response.policy / length(sequence.response.tokens);
        reward.response = self.beta * average;
        let u = self.beta * (average - sequence.response.score) + self.gamma;
        loss = softplus(-u);
        grad.response = -self.beta * sigmoid(-u) / length(sequence.response.tokens);
    }
}
