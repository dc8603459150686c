crate::objective! {
    /// Minus the entropy of the policy at each token, which keeps it exploring (Williams and Peng,
    /// 1991); the term's weight is the bonus's coefficient. The gradient is exact over the vocabulary.
    pub struct EntropyBonus {
        required {}
        optional {}
    }
    uses(entropy)
    examples [Self::new()]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        loss = -token.entropy;
        grad.entropy = -1.0;
    }
}
