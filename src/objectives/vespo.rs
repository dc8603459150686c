crate::objective! {
    /// Variational sequence-level soft policy optimization (VESPO; Shen et al., 2026): REINFORCE under a
    /// gamma weight of the sequence's ratio `w`, not divided by length, which is a constant for the
    /// gradient: `-w^k * exp(lambda * (1 - w)) * A * log-prob`, `k` and `lambda` by the sign of the
    /// advantage.
    ///
    /// As in TRL 1.16 and the released code, `log w` is held to log 1e-8 to 20; unlike there, each token's
    /// part of it is not held to 20. `Divisor` of the tokens of the whole window is TRL's reduction.
    pub struct Vespo {
        required {}
        optional {
            /// How fast the weight falls where the ratio does, for advantages from 0.
            k_positive: f64 = 2.0, in POSITIVE, set by with_k_positive;
            /// How fast it falls where the ratio rises.
            lambda_positive: f64 = 3.0, in POSITIVE, set by with_lambda_positive;
            /// The first for negative advantages.
            k_negative: f64 = 3.0, in POSITIVE, set by with_k_negative;
            /// The second for negative advantages.
            lambda_negative: f64 = 2.0, in POSITIVE, set by with_lambda_negative;
        }
    }
    uses(old, advantage, sequence)
    examples [
        Self::new(),
        Self::new()
            .with_k_positive(1.0)
            .with_lambda_positive(0.5)
            .with_k_negative(4.0)
            .with_lambda_negative(2.5),
    ]
    fn evaluate(self, token: Token) -> (loss, grad, reward) {
        let log_ratio = clip(token.sequence_log_ratio, -18.420680743952367, 20.0);
        let negative = token.advantage < 0.0;
        let k = select(negative, self.k_negative, self.k_positive);
        let lambda = select(negative, self.lambda_negative, self.lambda_positive);
        let weight = exp(k * log_ratio - lambda * expm1(log_ratio));
        grad.policy = -weight * token.advantage;
        loss = product(grad.policy, token.policy);
    }
}
