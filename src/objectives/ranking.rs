//! Losses of several ranked responses to one prompt: softmaxes over them, and sums whose weights follow
//! from all of them. What is a sum over pairs of responses by themselves is a term over pairs: see
//! [`Groups::pairs`](crate::batch::Groups::pairs).
//!
//! Their loops read differently in Rust and in CUDA, so that the body is a twin: `evaluate` here and in
//! `kernels/ranking.cu`, of the few numbers that a [`Ranking`] is.

use std::f64::consts::LN_2;

use super::objective::Inputs;
use super::parameter::{Domain, FINITE, POSITIVE, ParameterError};
use super::scalar::{abs, exp, exp2, length, log, log1p, max, min, product, sigmoid, softplus};
use super::units::Response;

/// Of a power of 2 whose sums over all pairs of a group are finite.
const EXPONENT: Domain =
    Domain { expected: "a number up to 500", contains: |value| value <= 500.0 };

/// Whose gaps times a value are finite.
const REWARD: Domain = Domain {
    expected: "a number from -1e30 to 1e30",
    contains: |value| (-1e30..=1e30).contains(&value),
};

/// A loss of the responses of a group. Of response `i` it knows the value `z[i]`, `scale` times what
/// [`of`](Self::of) names, and the score `r[i]`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ranking {
    /// Which loss.
    pub kind: RankingKind,
    /// What is compared.
    pub of: RankingValue,
    /// The factor of the values.
    pub scale: f64,
    /// What divides the scores, where they make targets: of a cross-entropy and of NCA.
    pub temperature: f64,
}

/// The losses, of `K` responses. Weights are constants for the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankingKind {
    /// `sum over k of log(sum over j >= k of exp(z[j])) - z[k]`, best response first.
    PlackettLuce,
    /// The same with `z[j]` times the gap `r[k] - r[j]`, and `z[k]` times the largest of them.
    RewardGaps,
    /// `-sum over i of q[i] * log softmax(z)[i]`, `q = softmax(r / temperature)`.
    CrossEntropy,
    /// `sum over i of q[i] * softplus(-z[i]) + softplus(z[i]) / K`, `q = softmax(r / temperature)`.
    Nca,
    /// `sum over i < K of mu[i] * (softplus(-z[i]) + sum over j > i of softplus(z[j])) / (K - 1)`, best
    /// response first, `mu[i] = (z[i] - min z) / (max z - min z)`, 0 where all values are equal.
    KnowPat(Constants),
    /// `sum over r[i] > r[j] of w[i, j] * softplus(-(z[i] - z[j]))`, `w[i, j] = |2^r[i] - 2^r[j]| *
    /// |1 / log(1 + t[i]) - 1 / log(1 + t[j])|`, `t` the rank by `z`, 1 the largest, equal ones by
    /// position.
    LipoLambda(Constants),
}

/// Whose constants a loss has, where published code differs from its paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constants {
    /// The paper's.
    Paper,
    /// The code's: for KnowPAT the mean over worse responses and 3 in place of `K - 1`, for LiPO-lambda
    /// rax's logarithm to base 2 and a factor `K`.
    Code,
}

/// What of a response is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankingValue {
    /// The policy's sum, or a reward.
    Sum,
    /// The sum over counted tokens (at least 1).
    Average,
    /// The sum less the reference's.
    LogRatio,
}

impl Ranking {
    /// Plackett-Luce DPO (Rafailov et al., 2023, appendix A.3): the responses of a group stand best
    /// first, `z = beta * log-ratio`. Of two it is DPO. The order is all that counts; scores that the batch
    /// has for another term may not rise along it.
    pub fn plackett_luce(beta: f64) -> Self {
        let (kind, of) = (RankingKind::PlackettLuce, RankingValue::LogRatio);
        Self { kind, of, scale: beta, temperature: 1.0 }
    }

    /// Preference Ranking Optimization (PRO; Song et al., 2024), its ranking term: the responses of a
    /// group stand best first, `z` is the average log-prob and the scores are rewards, whose gaps are
    /// the inverse temperatures.
    ///
    /// The paper's other term is [`Nll`](super::Nll) on the best response, with weight
    /// `lambda * (responses - 1)^2`. The released code adds 1e-10 inside the logarithm.
    pub fn pro() -> Self {
        let (kind, of) = (RankingKind::RewardGaps, RankingValue::Average);
        Self { kind, of, scale: 1.0, temperature: 1.0 }
    }

    /// InfoNCA (Chen et al., 2024): cross-entropy of `softmax(beta * log-ratio)` from
    /// `softmax(score / temperature)`. The paper's alpha is the temperature's inverse; the released code
    /// adds 0.01 to the first score of each group.
    pub fn info_nca(beta: f64, temperature: f64) -> Self {
        let (kind, of) = (RankingKind::CrossEntropy, RankingValue::LogRatio);
        Self { kind, of, scale: beta, temperature }
    }

    /// NCA (Chen et al., 2024) of a list: each response against noise, as often as
    /// `softmax(score / temperature)` says, and against the policy that sampled them all, `z = beta *
    /// log-ratio`. Of two, whose one target is certain, it is [`NcaPair`](super::NcaPair). The rest is as
    /// for [`info_nca`](Self::info_nca).
    pub fn nca(beta: f64, temperature: f64) -> Self {
        Self { kind: RankingKind::Nca, ..Self::info_nca(beta, temperature) }
    }

    /// SteerLM 2.0 (HelpSteer2; Wang et al., 2024): the same with beta 1, the proposal's log-prob as
    /// the reference, and as scores `log P(attributes | response) + log P(response) - log Q(response)`.
    /// Its gradient is the released code's, which divides by the group's mean length: a weight of the
    /// group.
    pub fn steer_lm() -> Self {
        Self::info_nca(1.0, 1.0)
    }

    /// Knowledgeable Preference Alignment (KnowPAT; Zhang et al., 2024), its ranking term: the responses
    /// of a group stand best first and `z` is the average log-prob. A group whose values are all equal
    /// has no weights: its loss is 0, where the released code divides by 0. The order is all that counts:
    /// responses of equal rank are compared as they stand, and scores that the batch has for another term
    /// may be equal along it, but not rise.
    ///
    /// The paper's other term is [`Nll`](super::Nll) on the best response; the ranking's weight is its
    /// lambda.
    pub fn know_pat() -> Self {
        let (kind, of) = (RankingKind::KnowPat(Constants::Paper), RankingValue::Average);
        Self { kind, of, scale: 1.0, temperature: 1.0 }
    }

    /// KnowPAT as the released code has it: the mean over worse responses in place of the sum, and 3 in
    /// place of the number of responses less 1, whatever that is. That code divides all sums by the padded
    /// length: [`RankingValue::Sum`], and its inverse as the scale.
    pub fn know_pat_released() -> Self {
        Self { kind: RankingKind::KnowPat(Constants::Code), ..Self::know_pat() }
    }

    /// LiPO-lambda (Liu et al., 2024): DPO of every pair whose scores differ, weighted by how much the
    /// pair's order changes the DCG of the policy's own ranking. Scores are the gains' exponents, up to
    /// 500; the responses stand in any order. The constants, a natural logarithm and no factor, are
    /// reconstructed.
    pub fn lipo_lambda(beta: f64) -> Self {
        let (kind, of) = (RankingKind::LipoLambda(Constants::Paper), RankingValue::LogRatio);
        Self { kind, of, scale: beta, temperature: 1.0 }
    }

    /// LiPO-lambda as rax 0.4 has its DCG lambda weights: the logarithm to base 2, and times the number of
    /// responses.
    pub fn lipo_lambda_rax(beta: f64) -> Self {
        Self { kind: RankingKind::LipoLambda(Constants::Code), ..Self::lipo_lambda(beta) }
    }

    /// Compares other values, such as rewards.
    #[must_use]
    pub fn with_value(self, of: RankingValue) -> Self {
        Self { of, ..self }
    }

    /// Another factor of the values.
    #[must_use]
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// The objective's name.
    pub fn name(&self) -> &'static str {
        match self.kind {
            RankingKind::PlackettLuce => "PlackettLuce",
            RankingKind::RewardGaps => "Pro",
            RankingKind::CrossEntropy => "ListCrossEntropy",
            RankingKind::Nca => "Nca",
            RankingKind::KnowPat(_) => "KnowPat",
            RankingKind::LipoLambda(_) => "LipoLambda",
        }
    }

    /// # Errors
    /// A scale or temperature outside its domain.
    pub fn check(&self) -> Result<(), ParameterError> {
        Domain::check(POSITIVE, "scale (beta)", self.scale)?;
        Domain::check(POSITIVE, "temperature", self.temperature)
    }

    /// What it looks at.
    pub fn inputs(&self) -> Inputs {
        let reference = self.of == RankingValue::LogRatio;
        let score = !matches!(self.kind, RankingKind::PlackettLuce | RankingKind::KnowPat(_));
        Inputs { reference, score, ..Inputs::NONE }
    }

    /// Whether the responses have to stand best first; where the batch has scores, they may not rise.
    pub fn is_ordered(&self) -> bool {
        let any = [RankingKind::CrossEntropy, RankingKind::Nca].contains(&self.kind);
        !any && !matches!(self.kind, RankingKind::LipoLambda(_))
    }

    /// What each score has to be.
    pub fn scores(&self) -> Domain {
        match self.kind {
            RankingKind::LipoLambda(_) => EXPONENT,
            RankingKind::RewardGaps => REWARD,
            _ => FINITE,
        }
    }

    /// The value of a response.
    pub fn value(&self, response: &Response) -> f64 {
        self.scale
            * match self.of {
                RankingValue::Sum => response.policy,
                RankingValue::Average => response.policy / length(response.tokens),
                RankingValue::LogRatio => response.policy - response.reference,
            }
    }

    /// The derivative of [`value`](Self::value) by the policy's sum.
    fn slope(&self, response: &Response) -> f64 {
        match self.of {
            RankingValue::Average => self.scale / length(response.tokens),
            _ => self.scale,
        }
    }

    /// The loss of a group; `grads` gets its derivative by the policy's sum of each response. Every softmax
    /// is taken from its own maximum, so that values of any size are right, and a response that is all but
    /// certain has the loss of the others' shares.
    pub fn evaluate(&self, group: &[Response], grads: &mut Vec<f64>) -> f64 {
        let values: Vec<f64> = group.iter().map(|response| self.value(response)).collect();
        grads.clear();
        grads.resize(group.len(), 0.0);
        let loss = match self.kind {
            RankingKind::CrossEntropy => self.cross_entropy(group, &values, grads),
            RankingKind::Nca => self.noise_contrast(group, &values, grads),
            RankingKind::KnowPat(constants) => adaptive(constants, &values, grads),
            RankingKind::LipoLambda(constants) => lambda_pairs(constants, group, &values, grads),
            RankingKind::PlackettLuce | RankingKind::RewardGaps => {
                (0..group.len().saturating_sub(1))
                    .map(|first| self.choice(group, &values, first, grads))
                    .sum()
            }
        };
        for (grad, response) in grads.iter_mut().zip(group) {
            *grad = product(*grad, self.slope(response));
        }
        loss
    }

    /// The factor of response `j` where `first` is the best that is left. Scores do not rise, so that
    /// the largest gap is that to the last.
    fn gap(&self, group: &[Response], first: usize, j: usize) -> f64 {
        let other = if j == first { group.len() - 1 } else { j };
        match self.kind {
            RankingKind::RewardGaps => group[first].score - group[other].score,
            _ => 1.0,
        }
    }

    /// Choosing `first` from those that are left.
    fn choice(&self, group: &[Response], z: &[f64], first: usize, grads: &mut [f64]) -> f64 {
        let scaled = |j: usize| product(self.gap(group, first, j), z[j]);
        let left = first..group.len();
        let (largest, rest) = softmax(left.clone().map(scaled), 1.0);
        let of_largest = |j: usize| exp(scaled(j) - largest);
        for (j, grad) in grads.iter_mut().enumerate().skip(first + 1) {
            *grad += product(self.gap(group, first, j), of_largest(j) / (1.0 + rest));
        }
        // Those of the others, since 1 less its own loses what is small.
        let others = if scaled(first) == largest { rest } else { 1.0 + rest - of_largest(first) };
        grads[first] -= product(self.gap(group, first, first), others / (1.0 + rest));
        largest - scaled(first) + log1p(rest)
    }

    /// The softmax of the scores.
    fn targets(&self, group: &[Response]) -> Vec<f64> {
        let scores = group.iter().map(|response| response.score);
        let (most, others) = softmax(scores.clone(), self.temperature);
        scores.map(|score| exp((score - most) / self.temperature) / (1.0 + others)).collect()
    }

    fn cross_entropy(&self, group: &[Response], z: &[f64], grads: &mut [f64]) -> f64 {
        let (largest, rest) = softmax(z.iter().copied(), 1.0);
        let mut loss = 0.0;
        for (i, target) in self.targets(group).into_iter().enumerate() {
            loss += product(target, largest - z[i] + log1p(rest));
            grads[i] = exp(z[i] - largest) / (1.0 + rest) - target;
        }
        loss
    }

    fn noise_contrast(&self, group: &[Response], z: &[f64], grads: &mut [f64]) -> f64 {
        let count = group.len() as f64;
        let mut loss = 0.0;
        for (i, target) in self.targets(group).into_iter().enumerate() {
            loss += product(target, softplus(-z[i])) + softplus(z[i]) / count;
            grads[i] = sigmoid(z[i]) / count - target * sigmoid(-z[i]);
        }
        loss
    }
}

/// The largest value, and the sum of `exp((value - largest) / temperature)` over the others. The difference
/// comes first: two quotients beyond f64 would have none.
fn softmax(values: impl Iterator<Item = f64> + Clone, temperature: f64) -> (f64, f64) {
    let largest = values.clone().fold(f64::NEG_INFINITY, max);
    let top = values.clone().position(|value| value == largest);
    let others = values.enumerate().filter(|&(index, _)| Some(index) != top);
    (largest, others.map(|(_, value)| exp((value - largest) / temperature)).sum())
}

/// KnowPAT. Each value counts with its own weight for being large, and with the weights of the better ones,
/// of each its share in the inner mean, for being small.
fn adaptive(constants: Constants, z: &[f64], grads: &mut [f64]) -> f64 {
    let last = z.len().saturating_sub(1);
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, max);
    let smallest = z.iter().copied().fold(f64::INFINITY, min);
    let outer = match constants {
        Constants::Paper => length(last as f64),
        Constants::Code => 3.0,
    };
    let (mut loss, mut of_better) = (0.0, 0.0);
    for (i, &value) in z.iter().enumerate() {
        // By the distance from the largest, so that a value of -inf leaves the others a weight of 1.
        let weight = match i < last && value != smallest {
            true => 1.0 - (largest - value) / (largest - smallest),
            false => 0.0,
        };
        loss += product(weight, softplus(-value)) + product(of_better, softplus(value));
        grads[i] = (of_better * sigmoid(value) - weight * sigmoid(-value)) / outer;
        of_better += match constants {
            Constants::Paper => weight,
            Constants::Code => weight / length(last as f64 - i as f64),
        };
    }
    loss / outer
}

/// LiPO-lambda. A response's gain is 2 to its score; where two gains are equal the pair has no weight.
fn lambda_pairs(constants: Constants, group: &[Response], z: &[f64], grads: &mut [f64]) -> f64 {
    let gains: Vec<f64> = group.iter().map(|response| exp2(response.score)).collect();
    let discount = |(i, value): (usize, &f64)| {
        let before = |&(j, other): &(usize, &f64)| other > value || other == value && j < i;
        1.0 / log(2.0 + z.iter().enumerate().filter(before).count() as f64)
    };
    let discounts: Vec<f64> = z.iter().enumerate().map(discount).collect();
    let outer = match constants {
        Constants::Paper => 1.0,
        Constants::Code => LN_2 * group.len() as f64,
    };
    let mut loss = 0.0;
    for i in 0..group.len() {
        for j in i + 1..group.len() {
            let (better, worse) = if gains[i] > gains[j] { (i, j) } else { (j, i) };
            let weight =
                outer * (gains[better] - gains[worse]) * abs(discounts[better] - discounts[worse]);
            let margin = z[better] - z[worse];
            loss += product(weight, softplus(-margin));
            let slope = product(weight, sigmoid(-margin));
            grads[better] -= slope;
            grads[worse] += slope;
        }
    }
    loss
}
