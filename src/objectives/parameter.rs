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

/// Numbers of either sign whose products with each other and squares are finite.
pub const BOUNDED: Domain = Domain {
    expected: "a number from -1e30 to 1e30",
    contains: |value| (-1e30..=1e30).contains(&value),
};

/// The order of an exponential of log-ratios; published ones are between -1 and 2, and log-ratios of a
/// hundred are beyond f64 at 10.
pub const ORDER: Domain = Domain {
    expected: "a number from -10 to 10",
    contains: |value| (-10.0..=10.0).contains(&value),
};

/// Averages of log-probs, which are not above 0 but for the rounding of bf16 logits; it tells them from
/// probabilities and rewards.
pub const AVERAGE: Domain = Domain {
    expected: "an average log-prob, at most 0",
    contains: |value| (f64::MIN..=1e-2).contains(&value),
};

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

/// Label smoothing that leaves the label at least as probable as its opposite, and its opposite possible.
pub const INSIDE_HALF: Domain = Domain {
    expected: "a number above 0 and up to 0.5",
    contains: |value| value > 0.0 && value <= 0.5,
};

/// Probabilities whose logarithm, and that of their complement, is finite.
pub const INSIDE_UNIT: Domain = Domain {
    expected: "a number above 0 and below 1",
    contains: |value| value > 0.0 && value < 1.0,
};

/// Probabilities.
pub const PROBABILITY: Domain =
    Domain { expected: "a number from 0 to 1", contains: |value| (0.0..=1.0).contains(&value) };

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

    /// The parameter of this value, if it has one.
    fn of(value: f64) -> Option<Self>;

    /// The variant at this place of a choice, if the parameter is that one.
    #[inline(always)]
    fn if_variant(self, _place: usize) -> Option<Self> {
        None
    }
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

    fn of(value: f64) -> Option<Self> {
        Some(value)
    }
}

impl Parameter for bool {
    const KIND: ParameterKind = ParameterKind::Switch;

    fn value(self) -> f64 {
        f64::from(u8::from(self))
    }

    fn of(value: f64) -> Option<Self> {
        [false, true].into_iter().find(|switch| switch.value() == value)
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

            fn of(value: f64) -> Option<Self> {
                [$(Self::$Variant,)*].into_iter().find(|variant| variant.value() == value)
            }

            #[inline(always)]
            fn if_variant(self, place: usize) -> Option<Self> {
                let variant = *[$(Self::$Variant,)*].get(place)?;
                if self == variant { Some(variant) } else { None }
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

/// Parameters by name, as a binding or a configuration file has them.
#[derive(Debug)]
pub struct Named<'a> {
    values: &'a [(&'a str, f64)],
}

/// What is wrong with an objective that is given by names.
#[derive(Clone, Debug, PartialEq)]
pub enum NamedError {
    /// No objective of the list has this name.
    UnknownObjective {
        /// Those whose names are the same but for case and underscores; if there are none, all.
        expected: Vec<&'static str>,
        /// The name found.
        got: String,
    },
    /// The objective has no parameter of this name.
    UnknownParameter {
        /// Those that it has.
        expected: Vec<&'static str>,
        /// The name found.
        got: String,
    },
    /// A parameter stands twice.
    Twice {
        /// Its name.
        got: String,
    },
    /// A parameter without a default is not given.
    Missing {
        /// Its name.
        expected: &'static str,
    },
    /// A number that is no variant's position.
    Variant {
        /// The parameter.
        parameter: &'static str,
        /// The variants, of which a value is the position.
        expected: &'static [&'static str],
        /// The value found.
        got: f64,
    },
    /// A value outside its domain.
    Parameter(ParameterError),
}

impl std::fmt::Display for NamedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownObjective { expected, got } => {
                write!(f, "objective: expected one of {expected:?}, got {got}")
            }
            Self::UnknownParameter { expected, got } => {
                write!(f, "parameter: expected one of {expected:?}, got {got}")
            }
            Self::Twice { got } => write!(f, "parameter {got}: expected once, got twice"),
            Self::Missing { expected } => {
                write!(f, "parameter {expected}: expected a value, got none")
            }
            Self::Variant { parameter, expected, got } => {
                write!(f, "{parameter}: expected a position in {expected:?}, got {got:?}")
            }
            Self::Parameter(ParameterError { parameter, expected, got }) => {
                write!(f, "{parameter}: expected {expected}, got {got:?}")
            }
        }
    }
}

impl std::error::Error for NamedError {}

impl NamedError {
    /// Of a name that is none of the list's.
    pub(super) fn of_unknown(got: &str, list: &[&'static str]) -> Self {
        let bare = |name: &str| name.replace(['_', '-', ' '], "").to_lowercase();
        let alike = list.iter().copied().filter(|name| bare(name) == bare(got));
        let alike: Vec<_> = alike.collect();
        let expected = if alike.is_empty() { list.to_vec() } else { alike };
        Self::UnknownObjective { expected, got: got.to_owned() }
    }
}

impl<'a> Named<'a> {
    /// Of an objective with these parameters.
    ///
    /// # Errors
    /// A name that is not among them, or one that stands twice.
    pub fn new(
        values: &'a [(&'a str, f64)],
        expected: impl IntoIterator<Item = &'static str>,
    ) -> Result<Self, NamedError> {
        let expected: Vec<_> = expected.into_iter().collect();
        for (position, &(name, _)) in values.iter().enumerate() {
            let got = name.to_owned();
            if !expected.contains(&name) {
                return Err(NamedError::UnknownParameter { expected, got });
            }
            if values[..position].iter().any(|&(earlier, _)| earlier == name) {
                return Err(NamedError::Twice { got });
            }
        }
        Ok(Self { values })
    }

    /// The value of a parameter, or its default.
    ///
    /// # Errors
    /// Neither, or a value that the parameter's type does not have.
    pub fn get<P: Parameter>(
        &self,
        name: &'static str,
        default: Option<P>,
        domain: Domain,
    ) -> Result<P, NamedError> {
        let Some(&(_, got)) = self.values.iter().find(|&&(given, _)| given == name) else {
            return default.ok_or(NamedError::Missing { expected: name });
        };
        P::of(got).ok_or(match P::KIND {
            ParameterKind::OneOf { variants, .. } => {
                NamedError::Variant { parameter: name, expected: variants, got }
            }
            _ => {
                let (parameter, expected) = (name, domain.expected);
                NamedError::Parameter(ParameterError { parameter, expected, got })
            }
        })
    }
}
