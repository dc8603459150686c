//! Several models' logits as one.

use super::Logits;
use crate::element::DType;
use crate::error::{Error, Result};

/// Logits that a combination is made of, at most; MOST_PARTS in kernels/include/parts.cuh.
pub(crate) const MOST_PARTS: usize = 3;

/// `sum_i c_i z_i` of 1 to 3 models' `[tokens, vocab]` logits, each of any element type that the backend takes.
///
/// A column that one of the parts excludes is excluded: where a `c_i z_i` is -inf, so is the sum, also where
/// another part would make it NaN. A part of coefficient 0 excludes nothing and is not read.
#[derive(Clone, Copy, Debug)]
pub struct Combination<'a> {
    /// `(coefficient, logits)`: the first `count` of them.
    parts: [(f64, Logits<'a>); MOST_PARTS],
    count: usize,
}

impl<'a> Combination<'a> {
    /// Coefficients, and the logits that they multiply.
    ///
    /// # Errors
    /// None or more than 3, another number of tokens or entries than the first, or a coefficient that is
    /// neither 0 nor in the range of normal f32.
    pub fn new(parts: &[(f64, Logits<'a>)]) -> Result<Self> {
        let (what, got) = ("logits of a combination", parts.len());
        let Some(&first) = parts.first() else {
            return Err(Error::TooFew { what, expected: 1, got });
        };
        if got > MOST_PARTS {
            let (expected, got) = ("logits of 1 to 3 models", "those of more");
            return Err(Error::Selection { objective: "a combination", expected, got });
        }
        for (coefficient, logits) in parts {
            if *coefficient != 0.0 && !(*coefficient as f32).is_normal() {
                let (what, expected) = ("coefficient of a combination", "0 or a normal f32");
                return Err(Error::Scalar { what, expected, got: *coefficient });
            }
            let (expected, got) = (first.1.shape().size(), logits.shape().size());
            if expected != got {
                return Err(Error::Shape { what, expected, got });
            }
        }
        let mut all = [first; MOST_PARTS];
        all[..got].copy_from_slice(parts);
        Ok(Self { parts: all, count: got })
    }

    /// One model's, as they are.
    pub(crate) fn one(logits: Logits<'a>) -> Self {
        Self { parts: [(1.0, logits); MOST_PARTS], count: 1 }
    }

    /// Coefficients and logits, 1 to 3 of them.
    pub fn parts(&self) -> &[(f64, Logits<'a>)] {
        &self.parts[..self.count]
    }

    /// `[tokens, vocab]`.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.parts[0].1.shape().size()
    }

    /// The type of what is computed for each token: f64 where one of the parts is.
    pub(crate) fn per_token(&self) -> DType {
        let mut types = self.parts().iter().map(|(_, logits)| logits.dtype().per_token());
        if types.any(|dtype| dtype == DType::F64) { DType::F64 } else { DType::F32 }
    }
}
