//! The numbers that an objective is made with, and what may be said about them.

/// A parameter outside its domain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParameterError {
    /// The parameter.
    pub parameter: &'static str,
    /// The domain.
    pub expected: &'static str,
    /// The value found.
    pub got: f64,
}

/// The values that a parameter may take.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// What to tell a caller who is outside.
    pub expected: &'static str,
    /// Whether a value is inside.
    pub contains: fn(f64) -> bool,
}

impl Domain {
    /// # Errors
    /// A value outside.
    pub fn check(self, parameter: &'static str, got: f64) -> Result<(), ParameterError> {
        if (self.contains)(got) {
            Ok(())
        } else {
            Err(ParameterError { parameter, expected: self.expected, got })
        }
    }
}

/// Numbers above 0 whose products with each other, squares and inverses are finite.
pub const POSITIVE: Domain = Domain {
    expected: "a number from 1e-30 to 1e30",
    contains: |value| (1e-30..=1e30).contains(&value),
};

/// Weights: 0, or numbers above it whose products are finite.
pub const NOT_NEGATIVE: Domain =
    Domain { expected: "a number from 0 to 1e30", contains: |value| (0.0..=1e30).contains(&value) };

/// Finite numbers.
pub const FINITE: Domain = Domain { expected: "a finite number", contains: f64::is_finite };

/// Label smoothing that leaves the label at least as probable as its opposite.
pub const UP_TO_HALF: Domain =
    Domain { expected: "a number from 0 to 0.5", contains: |value| (0.0..=0.5).contains(&value) };

/// Label smoothing that leaves the label more probable than its opposite.
pub const BELOW_HALF: Domain = Domain {
    expected: "a number from 0 to below 0.5",
    contains: |value| (0.0..0.5).contains(&value),
};

/// Probabilities whose logarithm, and that of their complement, is finite.
pub const INSIDE_UNIT: Domain = Domain {
    expected: "a number above 0 and below 1",
    contains: |value| value > 0.0 && value < 1.0,
};

/// On or off.
pub const SWITCH: Domain =
    Domain { expected: "true or false", contains: |value| value == 0.0 || value == 1.0 };

/// One variant of an enum made with [`choice!`](crate::choice), which takes no other value.
pub const CHOICE: Domain = Domain { expected: "a variant", contains: |_| true };

/// A type that a parameter may have: `f64`, `bool`, or an enum made with
/// [`choice!`](crate::choice).
pub trait Parameter: Copy {
    /// Which of them.
    const KIND: ParameterKind;

    /// The value as the kernels get it.
    fn value(self) -> f64;
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// An `f64`.
    Number,
    /// A `bool`.
    Switch,
    /// An enum; a variant's value is its position.
    OneOf {
        /// The enum's name.
        name: &'static str,
        /// Its variants.
        variants: &'static [&'static str],
    },
}

impl Parameter for f64 {
    const KIND: ParameterKind = ParameterKind::Number;

    fn value(self) -> f64 {
        self
    }
}

impl Parameter for bool {
    const KIND: ParameterKind = ParameterKind::Switch;

    fn value(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// Defines an enum that an objective may have as a parameter. In the objective's text a variant is
/// written `Name::Variant`, which both languages read.
#[macro_export]
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $Name:ident { $($(#[$variant_meta:meta])* $Variant:ident,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Name { $($(#[$variant_meta])* $Variant,)* }

        impl $crate::objectives::Parameter for $Name {
            const KIND: $crate::objectives::ParameterKind =
                $crate::objectives::ParameterKind::OneOf {
                    name: stringify!($Name),
                    variants: &[$(stringify!($Variant),)*],
                };

            fn value(self) -> f64 {
                f64::from(self as u8)
            }
        }
    };
}

/// What is written about an objective, for tables and bindings.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The doc comment.
    pub doc: &'static str,
    /// The parameters, in the order of declaration.
    pub parameters: Vec<ParameterDescription>,
}

/// What is written about a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParameterDescription {
    /// Its name.
    pub name: &'static str,
    /// The doc comment.
    pub doc: &'static str,
    /// What it is.
    pub kind: ParameterKind,
    /// The domain.
    pub expected: &'static str,
    /// The default of an optional parameter.
    pub default: Option<f64>,
}
