//! The element types of logits and of the numbers computed from them.

use bytemuck::Pod;
use half::{bf16, f16};

/// The type of one element, as a run-time fact.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary64; logits of this type are for the [`Reference`](crate::Reference) backend.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    BF16,
    /// 64-bit integers, for indices.
    I64,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The type of everything computed for each token: f32, and f64 for f64 logits.
    pub fn per_token(self) -> Self {
        if self == Self::F64 { Self::F64 } else { Self::F32 }
    }

    /// The type's usual short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I64 => "i64",
        }
    }
}

impl std::fmt::Debug for DType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A number type that a buffer may hold: `f64`, `f32`, [`half::f16`], [`half::bf16`] or `i64`.
pub trait Element: Pod + Send + Sync + sealed::Sealed {
    /// The run-time tag.
    const DTYPE: DType;
    /// The exact value; of an integer, if it is below 2^53.
    fn to_f64(self) -> f64;
    /// The nearest element, ties to even; an integer is truncated.
    fn from_f64(value: f64) -> Self;
}

macro_rules! element {
    ($($Type:ty, $tag:ident, $to:expr, $from:expr;)*) => {$(
        impl sealed::Sealed for $Type {}
        impl Element for $Type {
            const DTYPE: DType = DType::$tag;
            fn to_f64(self) -> f64 {
                $to(self)
            }
            fn from_f64(value: f64) -> Self {
                $from(value)
            }
        }
    )*};
}

element! {
    f64, F64, |value| value, |value| value;
    f32, F32, f64::from, |value: f64| value as f32;
    f16, F16, f16::to_f64, f16::from_f64;
    bf16, BF16, bf16::to_f64, bf16::from_f64;
    i64, I64, |value| value as f64, |value: f64| value as i64;
}
