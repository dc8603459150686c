crate::objective! {
    /// Regression of a reward model on attribute ratings: `(prediction - target)^2`, the target the
    /// score of the response.
    ///
    /// A response of several attributes is several entries; those without a rating are left out by
    /// selecting the others, so that the mean is over the ratings that exist, as HelpSteer2 (Wang et
    /// al., 2024) has it. ArmoRM and DPA are the same by attribute, with a sum over the attributes.
    /// Reward: the prediction.
    pub struct RewardRegression {
        required {}
        optional {}
    }
    uses(score)
    examples [Self::new()]
    fn evaluate(self, reward_of: Reward) -> (loss, grad, reward) {
        let residual = reward_of.prediction - reward_of.target;
        loss = residual * residual;
        grad.response = 2.0 * residual;
        reward.response = reward_of.prediction;
    }
}
