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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Response {
    /// Sum of token weight times log-prob under the policy.
    pub policy: f64,
    /// The same under the reference; 0 if the batch has none.
    pub reference: f64,
    /// Labels that are not ignored and whose weight is not 0.
    pub tokens: f64,
    /// Sum of the weights of those labels.
    pub weights: f64,
}

/// A preferred and a dispreferred response, and what the dataset says about the pair.
#[repr(C)]
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequence {
    /// The response.
    pub response: Response,
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
