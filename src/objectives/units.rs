//! What one evaluation of an objective looks at. The layouts are those of `kernels/include/units.cuh`.

/// The most responses that a unit has.
pub const MAX_RESPONSES: usize = 4;

/// What the units of a term are. It decides which stage and which kernel run the term, and of which
/// arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Sequences,
    Rewards,
    Pairs,
    RewardPairs,
    JudgedPairs,
    Tokens,
    Groups,
}

pub(super) mod sealed {
    pub trait Sealed {
        const LAYOUT: super::Layout;
    }
}

/// What an objective is a function of: a pair, a sequence, a pair and a judge's verdict on it, rewards,
/// or a token. There are no others, since kernels read their layouts:
///
/// ```compile_fail,E0277
/// use prefuse::objectives::{Given, MAX_RESPONSES, PerPair, Response, Unit};
///
/// #[derive(Clone, Copy, Debug)]
/// struct Mine;
///
/// impl Unit for Mine {
///     type PerResponse = PerPair;
///     const NAMES: [&'static str; 2] = ["Pair", "PerPair"];
///     const RESPONSES: &'static [&'static str] = &["chosen", "rejected"];
///     fn new_unit(_: &[Response; MAX_RESPONSES], _: Given) -> Self {
///         Mine
///     }
///     fn spread(_: PerPair) -> [f64; MAX_RESPONSES] {
///         [0.0; MAX_RESPONSES]
///     }
/// }
/// ```
pub trait Unit: sealed::Sealed + Copy + Send + Sync + std::fmt::Debug + 'static {
    /// One number for each response of the unit.
    type PerResponse: Copy + Default + Send + Sync + std::fmt::Debug;
    /// The type names, here and in CUDA C++, of the unit and of one number for each response.
    const NAMES: [&'static str; 2];
    /// What its responses are called, in the order in which a batch lists them; at most 4.
    const RESPONSES: &'static [&'static str];

    /// The unit of these responses; those beyond its own are not looked at.
    fn new_unit(responses: &[Response; MAX_RESPONSES], given: Given) -> Self;

    /// The numbers in the order of the responses, then zeros.
    fn spread(of: Self::PerResponse) -> [f64; MAX_RESPONSES];
}

/// What the dataset says about a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Given {
    /// Factor of the objective's beta.
    pub beta: f64,
    /// Subtracted inside the link function.
    pub margin: f64,
    /// Probability that the label is right.
    pub soft_label: f64,
}

impl Given {
    /// It says nothing: what each number is where none is given.
    pub const NEUTRAL: Self = Self { beta: 1.0, margin: 0.0, soft_label: 1.0 };
}

/// What is known about one response.
#[repr(C)]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Response {
    /// Sum of token weight times log-prob under the policy.
    pub policy: f64,
    /// The same under the reference; NaN for an objective that does not declare that it uses it.
    pub reference: f64,
    /// Labels that are not ignored and whose weight is not 0.
    pub tokens: f64,
    /// Sum of the weights of those labels.
    pub weights: f64,
    /// What a judge or another model said of the response; each objective that uses it says what it
    /// has to be. NaN for one that does not declare that it uses it.
    pub score: f64,
    /// The sum under the policy that sampled the response; NaN where none is known.
    pub old: f64,
}

impl Response {
    /// A response of `tokens` counted tokens of weight 1, without a reference.
    pub fn new(policy: f64, tokens: f64) -> Self {
        Self { policy, reference: 0.0, tokens, weights: tokens, score: 0.0, old: f64::NAN }
    }

    /// The sum under the reference.
    #[must_use]
    pub fn with_reference(self, reference: f64) -> Self {
        Self { reference, ..self }
    }

    /// The sum of the tokens' weights.
    #[must_use]
    pub fn with_weights(self, weights: f64) -> Self {
        Self { weights, ..self }
    }

    /// The sum under the policy that sampled the response.
    #[must_use]
    pub fn with_old(self, old: f64) -> Self {
        Self { old, ..self }
    }

    /// The score.
    #[must_use]
    pub fn with_score(self, score: f64) -> Self {
        Self { score, ..self }
    }
}

/// A preferred and a dispreferred response, and what the dataset says about the pair.
#[repr(C)]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The preferred response.
    pub chosen: Response,
    /// The dispreferred response.
    pub rejected: Response,
    /// Factor of the objective's beta; neutral 1.
    pub beta: f64,
    /// Subtracted inside the link function; neutral 0.
    pub margin: f64,
    /// Probability that the label is right; neutral 1.
    pub soft_label: f64,
}

impl Pair {
    /// A pair about which the dataset says nothing more.
    pub fn new(chosen: Response, rejected: Response) -> Self {
        Self { chosen, rejected, beta: 1.0, margin: 0.0, soft_label: 1.0 }
    }

    /// A factor of the objective's beta.
    #[must_use]
    pub fn with_beta(self, beta: f64) -> Self {
        Self { beta, ..self }
    }

    /// A margin.
    #[must_use]
    pub fn with_margin(self, margin: f64) -> Self {
        Self { margin, ..self }
    }

    /// A probability that the label is right.
    #[must_use]
    pub fn with_soft_label(self, soft_label: f64) -> Self {
        Self { soft_label, ..self }
    }
}

/// One number for each response of a pair.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerPair {
    /// Of the preferred response.
    pub chosen: f64,
    /// Of the dispreferred response.
    pub rejected: f64,
}

impl sealed::Sealed for Pair {
    const LAYOUT: Layout = Layout::Pairs;
}

impl Unit for Pair {
    type PerResponse = PerPair;
    const NAMES: [&'static str; 2] = ["Pair", "PerPair"];
    const RESPONSES: &'static [&'static str] = &["chosen", "rejected"];

    #[inline(always)]
    fn new_unit(responses: &[Response; MAX_RESPONSES], given: Given) -> Self {
        let Given { beta, margin, soft_label } = given;
        Self { chosen: responses[0], rejected: responses[1], beta, margin, soft_label }
    }

    #[inline(always)]
    fn spread(of: PerPair) -> [f64; MAX_RESPONSES] {
        [of.chosen, of.rejected, 0.0, 0.0]
    }
}

/// One response by itself.
#[repr(C)]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequence {
    /// The response.
    pub response: Response,
    /// Probability that it is desirable; 1 or 0 where the label is certain.
    pub soft_label: f64,
}

impl Sequence {
    /// A desirable response.
    pub fn new(response: Response) -> Self {
        Self { response, soft_label: 1.0 }
    }

    /// A probability that it is desirable.
    #[must_use]
    pub fn with_soft_label(self, soft_label: f64) -> Self {
        Self { soft_label, ..self }
    }
}

/// One number for a sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerSequence {
    /// Of the response.
    pub response: f64,
}

impl sealed::Sealed for Sequence {
    const LAYOUT: Layout = Layout::Sequences;
}

impl Unit for Sequence {
    type PerResponse = PerSequence;
    const NAMES: [&'static str; 2] = ["Sequence", "PerSequence"];
    const RESPONSES: &'static [&'static str] = &["response"];

    #[inline(always)]
    fn new_unit(responses: &[Response; MAX_RESPONSES], given: Given) -> Self {
        Self { response: responses[0], soft_label: given.soft_label }
    }

    #[inline(always)]
    fn spread(of: PerSequence) -> [f64; MAX_RESPONSES] {
        [of.response, 0.0, 0.0, 0.0]
    }
}

/// A pair, and what a judge, who may be the same model, says of it: the log-probs of the two answers
/// "the first is better" and "the second is better" to a prompt that shows both.
#[repr(C)]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgedPair {
    /// The preferred response.
    pub chosen: Response,
    /// The dispreferred response.
    pub rejected: Response,
    /// The verdict for the preferred response.
    pub verdict_chosen: Response,
    /// The verdict for the dispreferred response.
    pub verdict_rejected: Response,
}

/// One number for each response and verdict of a judged pair.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerJudgedPair {
    /// Of the preferred response.
    pub chosen: f64,
    /// Of the dispreferred response.
    pub rejected: f64,
    /// Of the verdict for the preferred response.
    pub verdict_chosen: f64,
    /// Of the verdict for the dispreferred response.
    pub verdict_rejected: f64,
}

impl sealed::Sealed for JudgedPair {
    const LAYOUT: Layout = Layout::JudgedPairs;
}

impl Unit for JudgedPair {
    type PerResponse = PerJudgedPair;
    const NAMES: [&'static str; 2] = ["JudgedPair", "PerJudgedPair"];
    const RESPONSES: &'static [&'static str] =
        &["chosen", "rejected", "verdict_chosen", "verdict_rejected"];

    #[inline(always)]
    fn new_unit(responses: &[Response; MAX_RESPONSES], _: Given) -> Self {
        let [chosen, rejected, verdict_chosen, verdict_rejected] = *responses;
        Self { chosen, rejected, verdict_chosen, verdict_rejected }
    }

    #[inline(always)]
    fn spread(of: PerJudgedPair) -> [f64; MAX_RESPONSES] {
        [of.chosen, of.rejected, of.verdict_chosen, of.verdict_rejected]
    }
}

/// The rewards that a reward model gives to a pair. They come where sums of log-probs do otherwise.
#[repr(C)]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RewardPair {
    /// Of the preferred response.
    pub chosen: f64,
    /// Of the dispreferred response.
    pub rejected: f64,
    /// Subtracted inside the link function; neutral 0.
    pub margin: f64,
    /// Probability that the label is right; neutral 1.
    pub soft_label: f64,
}

impl sealed::Sealed for RewardPair {
    const LAYOUT: Layout = Layout::RewardPairs;
}

impl Unit for RewardPair {
    type PerResponse = PerPair;
    const NAMES: [&'static str; 2] = ["RewardPair", "PerPair"];
    const RESPONSES: &'static [&'static str] = &["chosen", "rejected"];

    #[inline(always)]
    fn new_unit(responses: &[Response; MAX_RESPONSES], given: Given) -> Self {
        let [chosen, rejected, ..] = responses.map(|response| response.policy);
        Self { chosen, rejected, margin: given.margin, soft_label: given.soft_label }
    }

    fn spread(of: PerPair) -> [f64; MAX_RESPONSES] {
        Pair::spread(of)
    }
}

/// One number that a reward model gives, and the number that it should give.
#[repr(C)]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reward {
    /// What the model gives.
    pub prediction: f64,
    /// What it should give: the response's score.
    pub target: f64,
}

impl sealed::Sealed for Reward {
    const LAYOUT: Layout = Layout::Rewards;
}

impl Unit for Reward {
    type PerResponse = PerSequence;
    const NAMES: [&'static str; 2] = ["Reward", "PerSequence"];
    const RESPONSES: &'static [&'static str] = &["response"];

    #[inline(always)]
    fn new_unit(responses: &[Response; MAX_RESPONSES], _: Given) -> Self {
        Self { prediction: responses[0].policy, target: responses[0].score }
    }

    fn spread(of: PerSequence) -> [f64; MAX_RESPONSES] {
        Sequence::spread(of)
    }
}

/// One token of a sampled response, for policy gradients.
#[repr(C)]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Its log-prob under the policy.
    pub policy: f64,
    /// The same under the policy that sampled it, a constant; where that is not known it is the policy
    /// itself, so that their ratio is 1 and has a gradient all the same.
    pub old: f64,
    /// The same under the reference.
    pub reference: f64,
    /// How much better than expected the response was, or this token.
    pub advantage: f64,
    /// The entropy of the policy's distribution at this token, in nats.
    pub entropy: f64,
    /// Sum of `policy - old` over the counted tokens of its sequence; each term is clipped at the
    /// objective's bound, if it has one, above for a positive advantage and below for a negative one.
    pub sequence_log_ratio: f64,
    /// Counted tokens of its sequence; at least 1.
    pub tokens: f64,
}

impl Token {
    /// A token of which nothing is known.
    pub(crate) const UNKNOWN: Self = Self {
        policy: f64::NAN,
        old: f64::NAN,
        reference: f64::NAN,
        advantage: f64::NAN,
        entropy: f64::NAN,
        sequence_log_ratio: f64::NAN,
        tokens: f64::NAN,
    };

    /// What [`new_unit`](Unit::new_unit) makes this token of.
    pub(crate) fn responses(&self) -> [Response; MAX_RESPONSES] {
        let token = Response::new(self.policy, 1.0).with_reference(self.reference);
        [
            token.with_score(self.advantage).with_old(self.old),
            Response::new(self.sequence_log_ratio, self.tokens),
            Response::new(self.entropy, 1.0),
            Response::default(),
        ]
    }
}

/// Derivatives by what an objective knows of a token.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerToken {
    /// By the token's own log-prob.
    pub policy: f64,
    /// By the sum of the sequence's log-ratios.
    pub sequence: f64,
    /// By the token's entropy.
    pub entropy: f64,
}

impl sealed::Sealed for Token {
    const LAYOUT: Layout = Layout::Tokens;
}

impl Unit for Token {
    type PerResponse = PerToken;
    const NAMES: [&'static str; 2] = ["Token", "PerToken"];
    /// What the policy says of the token, of its sequence, and its entropy: of each the `policy`.
    const RESPONSES: &'static [&'static str] = &["policy", "sequence", "entropy"];

    fn new_unit(responses: &[Response; MAX_RESPONSES], _: Given) -> Self {
        let [token, sequence, entropy, _] = responses;
        Self {
            policy: token.policy,
            old: token.old,
            reference: token.reference,
            advantage: token.score,
            entropy: entropy.policy,
            sequence_log_ratio: sequence.policy,
            tokens: sequence.tokens,
        }
    }

    fn spread(of: PerToken) -> [f64; MAX_RESPONSES] {
        [of.policy, of.sequence, of.entropy, 0.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// The kernels read these structs by offset.
    #[test]
    fn layouts_are_pinned() {
        assert_eq!(offset_of!(Response, policy), 0);
        assert_eq!(offset_of!(Response, reference), 8);
        assert_eq!(offset_of!(Response, tokens), 16);
        assert_eq!(offset_of!(Response, weights), 24);
        assert_eq!(offset_of!(Response, score), 32);
        assert_eq!(offset_of!(Response, old), 40);
        assert_eq!(size_of::<Response>(), 48);
        assert_eq!(offset_of!(Pair, rejected), 48);
        assert_eq!(offset_of!(Pair, beta), 96);
        assert_eq!(offset_of!(Pair, margin), 104);
        assert_eq!(offset_of!(Pair, soft_label), 112);
        assert_eq!(size_of::<Pair>(), 120);
        assert_eq!(offset_of!(PerPair, rejected), 8);
        assert_eq!(size_of::<PerPair>(), 16);
        assert_eq!(offset_of!(Sequence, soft_label), 48);
        assert_eq!(size_of::<Sequence>(), 56);
        assert_eq!(size_of::<PerSequence>(), 8);
        assert_eq!(offset_of!(JudgedPair, verdict_chosen), 96);
        assert_eq!(offset_of!(JudgedPair, verdict_rejected), 144);
        assert_eq!(size_of::<JudgedPair>(), 192);
        assert_eq!(offset_of!(PerJudgedPair, verdict_rejected), 24);
        assert_eq!(size_of::<PerJudgedPair>(), 32);
        assert_eq!(offset_of!(RewardPair, margin), 16);
        assert_eq!(offset_of!(RewardPair, soft_label), 24);
        assert_eq!(size_of::<RewardPair>(), 32);
        assert_eq!(offset_of!(Reward, target), 8);
        assert_eq!(size_of::<Reward>(), 16);
        assert_eq!(offset_of!(Token, advantage), 24);
        assert_eq!(offset_of!(Token, sequence_log_ratio), 40);
        assert_eq!(size_of::<Token>(), 56);
        assert_eq!(offset_of!(PerToken, entropy), 16);
        assert_eq!(size_of::<PerToken>(), 24);
    }
}
