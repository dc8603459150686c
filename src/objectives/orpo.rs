crate::objective! {
    /// Odds Ratio Preference Optimization (Hong, Lee and Thorne, 2024):
    /// `-nll_weight * a_w - lambda * log sigmoid(log odds(a_w) - log odds(a_l))`, `a` the average
    /// log-prob and `odds = exp(a) / (1 - exp(a))`, without a reference.
    ///
    /// TRL's NLL is a mean over prompt and completion of the batch's tokens: `with_nll_weight(0.0)`,
    /// and an [`Nll`](super::Nll) term of its own. An average of exactly 0 has infinite odds; the pair
    /// of an empty response has no odds, and keeps its NLL alone. Rewards: `lambda * a`, as TRL logs
    /// them.
    pub struct Orpo {
        required {
            /// Weight of the odds ratio; the paper uses 0.1 and 0.25, TRL's `beta` 0.1.
            lambda: f64 in POSITIVE,
        }
        optional {
            /// Weight of the chosen response's negative average log-prob; the paper's 1.
            nll_weight: f64 = 1.0, in NOT_NEGATIVE, set by with_nll_weight;
        }
    }
    uses(beta)
    examples [Self::new(0.1), Self::new(0.25).with_nll_weight(0.0)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let lambda = self.lambda * pair.beta;
        let chosen = pair.chosen.policy / length(pair.chosen.tokens);
        let rejected = pair.rejected.policy / length(pair.rejected.tokens);
        reward.chosen = lambda * chosen;
        reward.rejected = lambda * rejected;
        loss = -self.nll_weight * chosen;
        grad.chosen = -self.nll_weight / length(pair.chosen.tokens);
        if (pair.chosen.tokens > 0.0 && pair.rejected.tokens > 0.0) {
            let chosen_rest = 0.0 - expm1(chosen);
            let rejected_rest = 0.0 - expm1(rejected);
            let rests = ratio(rejected_rest, chosen_rest);
            loss = loss + lambda * softplus(rejected - chosen - log(rests));
            let slope = lambda / (chosen_rest + product(exp(chosen - rejected), rejected_rest));
            grad.chosen = grad.chosen - slope / length(pair.chosen.tokens);
            grad.rejected = slope / rests / length(pair.rejected.tokens);
        }
    }
}
