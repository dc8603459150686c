crate::objective! {
    /// AlphaPO (Gupta et al., 2025): SimPO with another shape of the reward,
    /// `r = beta * (1 - p^-alpha) / alpha`, `p` the exponential of the average log-prob;
    /// `-log sigmoid(r_w - r_l - gamma - margin)`. At alpha 0 it is SimPO.
    ///
    /// Beyond the range of f64 (average log-probs below `-709 / alpha`) a reward is infinite, and two
    /// of them differ by the larger exponent.
    pub struct AlphaPo {
        required {
            /// The shape; the paper uses -0.25 to 0.25.
            alpha: f64 in ORDER,
            /// Scale of the rewards.
            beta: f64 in POSITIVE,
            /// Target margin, absolute.
            gamma: f64 in NOT_NEGATIVE,
        }
        optional {
            /// Probability that a label is wrong, 0 to 0.5; it flips each pair's soft label.
            label_smoothing: f64 = 0.0, in UP_TO_HALF, set by with_label_smoothing;
        }
    }
    uses(beta, margin, soft_label)
    examples [Self::new(0.25, 2.5, 0.1), Self::new(-0.1, 2.5, 0.1).with_label_smoothing(0.1)]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        let order = 1.0 - self.alpha;
        let chosen = pair.chosen.policy / length(pair.chosen.tokens);
        let rejected = pair.rejected.policy / length(pair.rejected.tokens);
        reward.chosen = beta * divergence_score(Divergence::Alpha, order, chosen);
        reward.rejected = beta * divergence_score(Divergence::Alpha, order, rejected);
        let difference = divergence_margin(Divergence::Alpha, order, chosen, 1.0, rejected, 1.0);
        let u = beta * difference - self.gamma - pair.margin;
        let label = smoothed(pair.soft_label, self.label_smoothing);
        loss = logistic_loss(u, label);
        let slope = beta * logistic_slope(u, label);
        grad.chosen = product(slope, divergence_slope(Divergence::Alpha, order, chosen))
            / length(pair.chosen.tokens);
        grad.rejected = -product(slope, divergence_slope(Divergence::Alpha, order, rejected))
            / length(pair.rejected.tokens);
    }
}
