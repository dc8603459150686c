//! What an objective is, and the macro that writes one for Rust and for CUDA at once.

use super::parameter::{Description, Domain, FINITE, ParameterError, ParameterKind};
use super::units::Unit;

/// A loss on one unit, with its derivative by the policy log-prob sum of each response.
///
/// Those of this crate are written with [`objective!`](crate::objective); a loss of your own may
/// use the macro too, or implement the trait by hand.
#[diagnostic::on_unimplemented(
    note = "objectives on pairs go in `Term::pairs` and `Term::judged_pairs`, those on sequences in \
            `Term::sequences`, those on tokens in `Term::tokens`, those on rewards in \
            `Term::reward_pairs` and `Term::rewards`"
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

    /// Those of the numbers that a pair may be given (beta, margin, soft label) without which it is
    /// another loss, so that a batch has to have them.
    fn required(&self) -> Inputs {
        Inputs::NONE
    }

    /// What scores it takes.
    fn score_domain(&self) -> Domain {
        FINITE
    }

    /// Loss, gradient and rewards of one unit.
    fn evaluate(&self, unit: &U) -> Evaluation<U>;

    /// The same of each of these units, into as many places. [`objective!`](crate::objective) evaluates some
    /// units at a time.
    fn evaluate_all(&self, units: &[U], evaluations: &mut [Evaluation<U>]) {
        evaluate_each(self, units, evaluations);
    }

    /// Of an objective on tokens: where the terms of
    /// [`sequence_log_ratio`](crate::objectives::Token::sequence_log_ratio) are clipped.
    fn log_ratio_bound(&self) -> f64 {
        f64::INFINITY
    }

    /// Of an objective on tokens that clips a ratio: which sides of the clip hold at this token.
    fn clipped(&self, _unit: &U) -> Option<Clipped> {
        None
    }

    /// The text of [`evaluate`](Self::evaluate), if it is also CUDA C++.
    fn source(&self) -> Option<Source> {
        None
    }

    /// What is written about it.
    fn description(&self) -> Option<Description> {
        None
    }
}

/// One unit after another.
#[doc(hidden)]
#[inline(always)]
pub fn evaluate_each<U: Unit>(
    objective: &(impl Objective<U> + ?Sized),
    units: &[U],
    evaluations: &mut [Evaluation<U>],
) {
    for (unit, evaluation) in units.iter().zip(evaluations) {
        *evaluation = objective.evaluate(unit);
    }
}

/// Which sides of a clip hold at a token, as trainers count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clipped {
    /// The ratio is below its range, and the advantage negative.
    pub low: bool,
    /// The ratio is above its range, and the advantage positive.
    pub high: bool,
    /// The advantage is negative, and the dual clip is its loss.
    pub dual: bool,
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

impl<U: Unit> Default for Evaluation<U> {
    /// No loss.
    fn default() -> Self {
        let none = U::PerResponse::default();
        Self { loss: 0.0, grad: none, reward: none }
    }
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
    /// The scores of the responses.
    pub score: bool,
    /// The log-probs of the policy that sampled the tokens.
    pub old: bool,
    /// The advantages of the tokens.
    pub advantage: bool,
    /// The entropies of the tokens.
    pub entropy: bool,
    /// Of an objective on tokens: the log-ratio of the token's sequence, its number of tokens, or a
    /// gradient by them. Where it is false, each token is by itself.
    pub sequence: bool,
}

impl Inputs {
    /// Uses none.
    pub const NONE: Self = Self {
        reference: false,
        beta: false,
        margin: false,
        soft_label: false,
        score: false,
        old: false,
        advantage: false,
        entropy: false,
        sequence: false,
    };
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
        let described =
            objective.description().map_or(vec![], |description| description.parameters);
        let mut choices: Vec<String> = described
            .iter()
            .filter_map(|parameter| match parameter.kind {
                ParameterKind::OneOf { name, variants } => {
                    Some(format!("  enum {name} {{ {} }};\n", variants.join(", ")))
                }
                _ => None,
            })
            .collect();
        choices.dedup();
        let choices = choices.concat();
        format!(
            "struct {name} {{\n{fields}}};\n\n\
             __device__ inline void evaluate(const {name} &{this}, const {unit_type} &{unit}, \
             double &{loss}, {per_response} &{grad}, {per_response} &{reward}) {{\n\
             {choices}{body}\n}}\n"
        )
    }
}

/// Defines an objective. Its body is compiled as Rust and kept as text that is CUDA C++.
///
/// Rules of the body, so that both languages read it alike: statements only (`let name = value;`,
/// assignments, `if (condition) { .. } else { .. }`); `let mut` and `let x = if ..` read
/// differently in C++; numbers have a decimal point; functions come from
/// [`scalar`](crate::objectives::scalar). `loss`, `grad` and `reward` start at 0. A parameter is
/// `f64`, `bool` or an enum made with [`choice!`](crate::choice), and its domain any
/// [`Domain`](crate::objectives::Domain), your own or one of [`objectives`](crate::objectives). Every
/// optional input that the body reads has to stand in `uses`, with ` if ` and a condition on the
/// parameters where it is not always read: others are checked to be neutral, and an undeclared
/// reference, score or sequence is NaN. Lines that may follow, in this order: `requires(margin)`, what has
/// to be given for pairs, not only may be; `score in PROBABILITY`, the scores' domain; `ordered(floor <=
/// cap)` of two parameters; `clips log_ratio at parameter`, for an objective on tokens (see
/// [`Token`](crate::objectives::Token)), which may also say which sides of its clip hold, for logs, in a
/// function `clipped` that is Rust alone. `examples` may be left out; the list of this crate's objectives
/// takes them, and the tests iterate over that.
///
/// The struct is `pub` and has doc comments, no other attributes; its body is `required {}` and `optional
/// {}`, both, if empty too. Counts of tokens may be 0: divide by `length(tokens)`.
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
///     examples [Linear::new(0.1)]
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
        $(#[doc = $doc:literal])*
        pub struct $Name:ident {
            required { $($(#[doc = $required_doc:literal])* $required:ident: $RequiredType:ident
                in $required_domain:expr,)* }
            optional { $($(#[doc = $optional_doc:literal])* $optional:ident: $OptionalType:ident
                = $default:expr, in $optional_domain:expr, set by $with:ident;)* }
        }
        uses($($input:ident $(if $condition:expr)?),*)
        $(requires($($required_input:ident),*))?
        $(score in $score_domain:ident)?
        $(ordered($lower:ident <= $upper:ident))?
        $(clips log_ratio at $bound:ident)?
        $(examples [$($example:expr),* $(,)?])?
        fn evaluate($this:ident, $unit:ident: $Unit:ident) -> ($loss:ident, $grad:ident, $reward:ident) {
            $($body:tt)*
        }
        $(fn clipped($clip:ident, $token:ident) -> ($low:ident, $high:ident, $dual:ident) {
            $($clipped:tt)*
        })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct $Name {
            $($(#[doc = $required_doc])* pub $required: $RequiredType,)*
            $($(#[doc = $optional_doc])* pub $optional: $OptionalType,)*
        }

        #[allow(clippy::new_without_default)]
        impl $Name {
            /// The objective with its required parameters; all others at their defaults.
            pub fn new($($required: $RequiredType),*) -> Self {
                Self { $($required,)* $($optional: $default,)* }
            }

            $(
                $(#[doc = $optional_doc])*
                #[must_use]
                pub fn $with(mut self, $optional: $OptionalType) -> Self {
                    self.$optional = $optional;
                    self
                }
            )*

            /// The objective with parameters given by name, in any order; those with a default may be
            /// left out. A variant of an enum is its position, a switch 0 or 1.
            ///
            /// # Errors
            /// A name that is unknown, stands twice or is missing, or a value outside its domain.
            pub fn from_named(
                values: &[(&str, f64)],
            ) -> Result<Self, $crate::objectives::NamedError> {
                #[allow(unused_imports)]
                use $crate::objectives::domains::*;
                #[allow(unused_imports)]
                use $crate::objectives::{Named, NamedError, Objective};
                let names = [$(stringify!($required),)* $(stringify!($optional),)*];
                #[allow(unused_variables)]
                let named = Named::new(values, names)?;
                let objective = Self {
                    $($required: named.get(stringify!($required), None, $required_domain)?,)*
                    $($optional: named.get(
                        stringify!($optional), Some($default), $optional_domain)?,)*
                };
                objective.check().map_err(NamedError::Parameter)?;
                Ok(objective)
            }

            $(
                /// With each of its options in use.
                pub fn examples() -> Vec<Self> {
                    vec![$($example),*]
                }
            )?
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
                use $crate::objectives::domains::*;
                $(Domain::check($required_domain, stringify!($required), self.$required.value())?;)*
                $(Domain::check($optional_domain, stringify!($optional), self.$optional.value())?;)*
                $(
                    if self.$lower > self.$upper {
                        let expected = concat!("a number up to ", stringify!($upper));
                        let (parameter, got) = (stringify!($lower), self.$lower);
                        return Err($crate::objectives::ParameterError { parameter, expected, got });
                    }
                )?
                Ok(())
            }

            #[allow(clippy::needless_update)]
            fn inputs(&$this) -> $crate::objectives::Inputs {
                $crate::objectives::Inputs {
                    $($input: true $(&& $condition)?,)*
                    ..$crate::objectives::Inputs::NONE
                }
            }

            $(
                fn required(&self) -> $crate::objectives::Inputs {
                    $crate::objectives::Inputs {
                        $($required_input: true,)*
                        ..$crate::objectives::Inputs::NONE
                    }
                }
            )?

            $(
                fn score_domain(&self) -> $crate::objectives::Domain {
                    use $crate::objectives::domains::*;
                    $score_domain
                }
            )?

            $(
                fn log_ratio_bound(&self) -> f64 {
                    self.$bound
                }
            )?

            #[allow(unused_parens, unused_imports, unused_assignments, unused_mut)]
            #[allow(clippy::assign_op_pattern, clippy::collapsible_else_if)]
            #[inline(always)]
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
                // All of it is read, also what only one side of an `if` looks at: a loop over units can
                // then take both sides of some units at a time.
                let $unit = *$unit;
                $($body)*
                $crate::objectives::Evaluation { loss: $loss, grad: $grad, reward: $reward }
            }

            fn evaluate_all(
                &self,
                units: &[$crate::objectives::$Unit],
                evaluations: &mut [$crate::objectives::Evaluation<$crate::objectives::$Unit>],
            ) {
                #[allow(unused_imports)]
                use $crate::objectives::Parameter;
                #[allow(clippy::needless_update)]
                #[inline(always)]
                fn of_any_variant(
                    objective: &$Name,
                    units: &[$crate::objectives::$Unit],
                    evaluations: &mut [$crate::objectives::Evaluation<$crate::objectives::$Unit>],
                ) {
                    // A loop for each variant of a choice, in which it is a constant.
                    $($crate::each_variant!(objective, $required, units, evaluations);)*
                    $($crate::each_variant!(objective, $optional, units, evaluations);)*
                    $crate::objectives::evaluate_each(objective, units, evaluations);
                }
                $crate::evaluate_vectorized(self, units, evaluations, of_any_variant);
            }

            $(
                #[allow(unused_parens, unused_imports, unused_assignments, unused_mut)]
                fn clipped(
                    &$clip,
                    $token: &$crate::objectives::$Unit,
                ) -> Option<$crate::objectives::Clipped> {
                    use $crate::objectives::scalar::*;
                    let [mut $low, mut $high, mut $dual] = [false; 3];
                    $($clipped)*
                    Some($crate::objectives::Clipped { low: $low, high: $high, dual: $dual })
                }
            )?

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

            fn description(&self) -> Option<$crate::objectives::Description> {
                #[allow(unused_imports)]
                use $crate::objectives::domains::*;
                Some($crate::objectives::Description {
                    doc: concat!($($doc, "\n",)*),
                    parameters: vec![
                        $(ParameterDescription {
                            name: stringify!($required),
                            doc: concat!($($required_doc, "\n",)*),
                            kind: <$RequiredType as Parameter>::KIND,
                            expected: $required_domain.expected,
                            default: None,
                        },)*
                        $(ParameterDescription {
                            name: stringify!($optional),
                            doc: concat!($($optional_doc, "\n",)*),
                            kind: <$OptionalType as Parameter>::KIND,
                            expected: $optional_domain.expected,
                            default: Some($default.value()),
                        },)*
                    ],
                })
            }
        }
    };
}

/// Evaluates units and returns, if the parameter is one of up to 4 variants.
#[doc(hidden)]
#[macro_export]
macro_rules! each_variant {
    ($objective:ident, $parameter:ident, $units:ident, $evaluations:ident) => {
        $crate::each_variant!($objective, $parameter, $units, $evaluations, 0 1 2 3)
    };
    ($objective:ident, $parameter:ident, $units:ident, $evaluations:ident, $($place:literal)*) => {
        $(
            if let Some($parameter) = $objective.$parameter.if_variant($place) {
                let mut of_variant = *$objective;
                of_variant.$parameter = $parameter;
                return $crate::objectives::evaluate_each(&of_variant, $units, $evaluations);
            }
        )*
    };
}
