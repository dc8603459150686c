//! What an objective is, and the macro that writes one for Rust and for CUDA at once.

use super::units::Unit;

/// A loss on one unit, with its derivative by the policy log-prob sum of each response.
///
/// Those of this crate are written with [`objective!`](crate::objective); a loss of your own may
/// use the macro too, or implement the trait by hand.
#[diagnostic::on_unimplemented(
    note = "objectives on pairs go in `Term::pairs`, those on sequences in `Term::sequences`"
)]
pub trait Objective<U: Unit>: std::fmt::Debug + Send + Sync {
    /// The objective's name.
    fn name(&self) -> &'static str;

    /// Parameter names and values, in the order of declaration.
    fn parameters(&self) -> Vec<(&'static str, f64)>;

    /// # Errors
    /// The first parameter outside its domain.
    fn check(&self) -> Result<(), ParameterError>;

    /// Which inputs beside the policy's sums and counts it looks at.
    fn inputs(&self) -> Inputs;

    /// Loss, gradient and rewards of one unit.
    fn evaluate(&self, unit: &U) -> Evaluation<U>;

    /// The text of [`evaluate`](Self::evaluate), if it is also CUDA C++.
    fn source(&self) -> Option<Source> {
        None
    }
}

/// What an objective says about one unit.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<U: Unit> {
    /// The loss.
    pub loss: f64,
    /// The derivative of the loss by the policy's sum, for each response.
    pub grad: U::PerResponse,
    /// The implicit reward that trainers log, for each response.
    pub reward: U::PerResponse,
}

/// The optional inputs of a unit; true where an objective uses one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// The reference model's sums.
    pub reference: bool,
    /// The factor of beta.
    pub beta: bool,
    /// The margin.
    pub margin: bool,
    /// The soft label.
    pub soft_label: bool,
}

impl Inputs {
    /// Uses none.
    pub const NONE: Self = Self { reference: false, beta: false, margin: false, soft_label: false };
}

/// A body that Rust and CUDA C++ read alike, and the names that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// What the objective, the unit, the loss, the gradient and the rewards are called.
    pub names: [&'static str; 5],
    /// Statements.
    pub body: &'static str,
}

impl Source {
    /// A struct of the parameters and a function `evaluate` on it, in CUDA C++ over
    /// `kernels/include`, for objectives of the same type.
    pub fn cuda<U: Unit>(&self, objective: &dyn Objective<U>) -> String {
        let [this, unit, loss, grad, reward] = self.names;
        let ([unit_type, per_response], name, body) = (U::NAMES, objective.name(), self.body);
        let parameters = objective.parameters().into_iter();
        let fields: String = parameters.map(|(field, _)| format!("  double {field};\n")).collect();
        format!(
            "struct {name} {{\n{fields}}};\n\n\
             __device__ inline void evaluate(const {name} &{this}, const {unit_type} &{unit}, \
             double &{loss}, {per_response} &{grad}, {per_response} &{reward}) {{\n{body}\n}}\n"
        )
    }
}

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

/// On or off.
pub const SWITCH: Domain =
    Domain { expected: "true or false", contains: |value| value == 0.0 || value == 1.0 };

/// A type that a parameter may have: `f64` or `bool`.
pub trait Parameter: Copy {
    /// The value as the kernels get it.
    fn value(self) -> f64;
}

impl Parameter for f64 {
    fn value(self) -> f64 {
        self
    }
}

impl Parameter for bool {
    fn value(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// Defines an objective. Its body is compiled as Rust and kept as text that is CUDA C++.
///
/// Rules of the body, so that both languages read it alike: statements only (`let name = value;`,
/// assignments, `if (condition) { .. } else { .. }`); `let mut` and `let x = if ..` read
/// differently in C++; numbers have a decimal point; functions come from
/// [`scalar`](crate::objectives::scalar). `loss`, `grad` and `reward` start at 0. The domain of a
/// parameter is any [`Domain`](crate::objectives::Domain), your own or one of
/// [`objectives`](crate::objectives). Every optional input that the body reads has to stand in `uses`:
/// others are checked to be neutral, and an undeclared reference is NaN.
///
/// ```
/// use prefuse::objectives::{Dpo, Objective, Pair};
///
/// prefuse::objective! {
///     /// The margin itself.
///     pub struct Linear {
///         required {
///             /// Scale.
///             beta: f64 in POSITIVE,
///         }
///         optional {}
///     }
///     uses(reference)
///     fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
///         reward.chosen = self.beta * (pair.chosen.policy - pair.chosen.reference);
///         reward.rejected = self.beta * (pair.rejected.policy - pair.rejected.reference);
///         loss = reward.rejected - reward.chosen;
///         grad.chosen = -self.beta;
///         grad.rejected = self.beta;
///     }
/// }
/// assert_eq!(Linear::new(0.1).name(), "Linear");
/// assert!(Linear::new(-1.0).check().is_err());
/// ```
#[macro_export]
macro_rules! objective {
    (
        $(#[$meta:meta])*
        pub struct $Name:ident {
            required { $($(#[$required_doc:meta])* $required:ident: $RequiredType:ident in $required_domain:expr,)* }
            optional { $($(#[$optional_doc:meta])* $optional:ident: $OptionalType:ident = $default:expr,
                in $optional_domain:expr, set by $with:ident;)* }
        }
        uses($($input:ident),*)
        fn evaluate($this:ident, $unit:ident: $Unit:ident) -> ($loss:ident, $grad:ident, $reward:ident) {
            $($body:tt)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct $Name {
            $($(#[$required_doc])* pub $required: $RequiredType,)*
            $($(#[$optional_doc])* pub $optional: $OptionalType,)*
        }

        #[allow(clippy::new_without_default)]
        impl $Name {
            /// The objective with its required parameters; all others at their defaults.
            pub fn new($($required: $RequiredType),*) -> Self {
                Self { $($required,)* $($optional: $default,)* }
            }

            $(
                $(#[$optional_doc])*
                #[must_use]
                pub fn $with(mut self, $optional: $OptionalType) -> Self {
                    self.$optional = $optional;
                    self
                }
            )*
        }

        impl $crate::objectives::Objective<$crate::objectives::$Unit> for $Name {
            fn name(&self) -> &'static str {
                stringify!($Name)
            }

            fn parameters(&self) -> Vec<(&'static str, f64)> {
                #[allow(unused_imports)]
                use $crate::objectives::Parameter;
                vec![
                    $((stringify!($required), self.$required.value()),)*
                    $((stringify!($optional), self.$optional.value()),)*
                ]
            }

            fn check(&self) -> Result<(), $crate::objectives::ParameterError> {
                #[allow(unused_imports)]
                use $crate::objectives::{
                    BELOW_HALF, Domain, FINITE, POSITIVE, Parameter, SWITCH, UP_TO_HALF,
                };
                $(Domain::check($required_domain, stringify!($required), self.$required.value())?;)*
                $(Domain::check($optional_domain, stringify!($optional), self.$optional.value())?;)*
                Ok(())
            }

            #[allow(clippy::needless_update)]
            fn inputs(&self) -> $crate::objectives::Inputs {
                $crate::objectives::Inputs { $($input: true,)* ..$crate::objectives::Inputs::NONE }
            }

            #[allow(unused_parens, unused_imports, unused_assignments, unused_mut)]
            fn evaluate(
                &$this,
                $unit: &$crate::objectives::$Unit,
            ) -> $crate::objectives::Evaluation<$crate::objectives::$Unit> {
                use $crate::objectives::scalar::*;
                type PerResponse =
                    <$crate::objectives::$Unit as $crate::objectives::Unit>::PerResponse;
                let mut $loss = 0.0_f64;
                let mut $grad = PerResponse::default();
                let mut $reward = PerResponse::default();
                $($body)*
                $crate::objectives::Evaluation { loss: $loss, grad: $grad, reward: $reward }
            }

            fn source(&self) -> Option<$crate::objectives::Source> {
                Some($crate::objectives::Source {
                    names: [
                        stringify!($this),
                        stringify!($unit),
                        stringify!($loss),
                        stringify!($grad),
                        stringify!($reward),
                    ],
                    body: stringify!($($body)*),
                })
            }
        }
    };
}
