crate::choice! {
    /// How [`Rpo`] measures the distance of two preferences, or of two margins.
    pub enum RpoDistance {
        /// `KL(a || b)`, the policy's preference behind: NeMo-Aligner's `rpo_bwd_kl`.
        BackwardKl,
        /// `KL(b || a)`: `rpo_fwd_kl`.
        ForwardKl,
        /// The squared difference of the margins themselves: `rpo_sq`.
        Squared,
    }
}

crate::objective! {
    /// Reward-aware Preference Optimization (Nemotron-4; Adler et al., 2024): holds the policy's preference `b = sigmoid(u)` to that of a reward model,
    /// `a = sigmoid(reward_scale * (score chosen - score rejected))`, `u` DPO's margin.
    ///
    /// The scores of the sequences are rewards. Not the RPO of Pang et al., which is DPO beside an
    /// [`Nll`](super::Nll) term. Rewards: `beta * log-ratio`.
    pub struct Rpo {
        required {
            /// How strongly the policy is held to the reference.
            beta: f64 in POSITIVE,
        }
        optional {
            /// The distance.
            distance: RpoDistance = RpoDistance::BackwardKl, in CHOICE, set by with_distance;
            /// The paper's eta, NeMo-Aligner's `gt_reward_scale`.
            reward_scale: f64 = 1.0, in POSITIVE, set by with_reward_scale;
        }
    }
    uses(reference, beta, score)
    examples [
        Self::new(0.1),
        Self::new(0.1).with_distance(RpoDistance::ForwardKl).with_reward_scale(0.5),
        Self::new(0.1).with_distance(RpoDistance::Squared),
    ]
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        let beta = self.beta * pair.beta;
        reward.chosen = beta * (pair.chosen.policy - pair.chosen.reference);
        reward.rejected = beta * (pair.rejected.policy - pair.rejected.reference);
        let u = reward.chosen - reward.rejected;
        let target = self.reward_scale * (pair.chosen.score - pair.rejected.score);
        if (self.distance == RpoDistance::Squared) {
            loss = (u - target) * (u - target);
            grad.chosen = 2.0 * beta * (u - target);
        } else {
            if (self.distance == RpoDistance::ForwardKl) {
                loss = max(
                    product(sigmoid(u), softplus(-target) - softplus(-u))
                        + product(sigmoid(-u), softplus(target) - softplus(u)),
                    0.0);
                grad.chosen = beta * product(sigmoid(u) * sigmoid(-u), u - target);
            } else {
                let right = sigmoid(target);
                let wrong = sigmoid(-target);
                loss = max(soft_loss(u, right, wrong) - soft_loss(target, right, wrong), 0.0);
                grad.chosen = beta * soft_slope(u, right, wrong);
            }
        }
        grad.rejected = -grad.chosen;
    }
}
