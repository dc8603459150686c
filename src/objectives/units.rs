//! What one evaluation of an objective looks at. The layouts are those of `kernels/include/units.cuh`.

/// What an objective is a function of: a pair or a sequence.
pub trait Unit: Copy + Send + Sync + 'static {
    /// One number for each response of the unit.
    type PerResponse: Copy + Default + Send + Sync + std::fmt::Debug;
    /// The type names, here and in CUDA C++, of the unit and of one number for each response.
    const NAMES: [&'static str; 2];
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
}

impl Response {
    /// A response of `tokens` counted tokens of weight 1, without a reference.
    pub fn new(policy: f64, tokens: f64) -> Self {
        Self { policy, reference: 0.0, tokens, weights: tokens }
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

impl Unit for Pair {
    type PerResponse = PerPair;
    const NAMES: [&'static str; 2] = ["Pair", "PerPair"];
}

/// One response by itself.
#[repr(C)]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequence {
    /// The response.
    pub response: Response,
}

impl Sequence {
    /// The unit of a response.
    pub fn new(response: Response) -> Self {
        Self { response }
    }
}

/// One number for a sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerSequence {
    /// Of the response.
    pub response: f64,
}

impl Unit for Sequence {
    type PerResponse = PerSequence;
    const NAMES: [&'static str; 2] = ["Sequence", "PerSequence"];
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
        assert_eq!(size_of::<Response>(), 32);
        assert_eq!(offset_of!(Pair, chosen), 0);
        assert_eq!(offset_of!(Pair, rejected), 32);
        assert_eq!(offset_of!(Pair, beta), 64);
        assert_eq!(offset_of!(Pair, margin), 72);
        assert_eq!(offset_of!(Pair, soft_label), 80);
        assert_eq!(size_of::<Pair>(), 88);
        assert_eq!(offset_of!(PerPair, rejected), 8);
        assert_eq!(size_of::<PerPair>(), 16);
        assert_eq!(size_of::<Sequence>(), 32);
        assert_eq!(size_of::<PerSequence>(), 8);
    }
}
