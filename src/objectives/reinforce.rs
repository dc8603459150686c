crate::objective! {
    /// The policy gradient itself (REINFORCE; Williams, 1992): `-A * log-prob`.
    pub struct Reinforce {
        required {}
        optional {}
    }
    uses(advantage)
    examples [Self::new()]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        loss = -token.advantage * token.policy;
        grad.policy = -token.advantage;
    }
}
