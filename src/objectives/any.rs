//! An objective whose unit is known at run time.

use std::any::Any;
use std::sync::Arc;

use super::columns::{Columns, Evaluated};
use super::objective::{Clipped, Evaluation, Inputs, Objective, Source};
use super::parameter::{Description, Domain, ParameterError};
use super::units::{Given, Layout, MAX_RESPONSES, Response, Token, Unit};

/// Any [`Objective`], on whatever unit. Copies share it.
#[derive(Clone, Debug)]
pub struct AnyObjective(Arc<dyn OnResponses>);

/// What an objective says about one unit, in the order of its responses, then zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnyEvaluation {
    /// The loss.
    pub loss: f64,
    /// The derivative of the loss by the policy's sum, or by the reward, of each response.
    pub grads: [f64; MAX_RESPONSES],
    /// The implicit rewards.
    pub rewards: [f64; MAX_RESPONSES],
}

impl AnyObjective {
    /// An objective on units of type `U`.
    pub fn new<U: Unit>(objective: impl Objective<U> + 'static) -> Self {
        Self::shared(Arc::new(objective))
    }

    /// The same for one that is shared.
    pub fn shared<U: Unit>(objective: Arc<dyn Objective<U>>) -> Self {
        Self(Arc::new(On(objective)))
    }

    /// The objective's name.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// The type names, here and in CUDA C++, of its unit and of one number for each response.
    pub fn unit(&self) -> [&'static str; 2] {
        self.0.unit()
    }

    /// What the responses of its unit are called, in the order in which a batch lists them.
    pub fn responses(&self) -> &'static [&'static str] {
        self.0.responses()
    }

    /// What its unit is.
    pub(crate) fn layout(&self) -> Layout {
        self.0.layout()
    }

    /// Parameter names and values, in the order of declaration.
    pub fn parameters(&self) -> Vec<(&'static str, f64)> {
        self.0.parameters()
    }

    /// # Errors
    /// The first parameter outside its domain.
    pub fn check(&self) -> Result<(), ParameterError> {
        self.0.check()
    }

    /// Which inputs beside the policy's sums and counts it looks at.
    pub fn inputs(&self) -> Inputs {
        self.0.inputs()
    }

    /// Which of them have to be given for pairs.
    pub fn required(&self) -> Inputs {
        self.0.required()
    }

    /// What scores it takes.
    pub fn score_domain(&self) -> Domain {
        self.0.score_domain()
    }

    /// Loss, gradient and rewards of the unit of these responses.
    pub fn evaluate(&self, responses: &[Response; MAX_RESPONSES], given: Given) -> AnyEvaluation {
        self.0.evaluate(responses, given)
    }

    /// The same of as many units as there are losses, from the first on.
    pub(crate) fn evaluate_all(&self, units: &Columns<'_>, first: usize, to: Evaluated<'_>) {
        self.0.evaluate_all(units, first, to);
    }

    /// Loss and gradient of each of these tokens, into as many places.
    pub(crate) fn evaluate_tokens(&self, tokens: &[Token], to: &mut [Evaluation<Token>]) {
        self.0.evaluate_tokens(tokens, to);
    }

    /// Which sides of its clip hold at a unit of these responses, if it has one.
    pub(crate) fn clipped(&self, responses: &[Response; MAX_RESPONSES]) -> Option<Clipped> {
        self.0.clipped(responses)
    }

    /// Where an objective on tokens clips the terms of a sequence's log-ratio.
    pub fn log_ratio_bound(&self) -> f64 {
        self.0.log_ratio_bound()
    }

    /// Its text, if it has one that is also CUDA C++.
    pub fn source(&self) -> Option<Source> {
        self.0.source()
    }

    /// The text as CUDA C++: a struct of the parameters and a function `evaluate` on it.
    pub fn cuda(&self) -> Option<String> {
        self.0.cuda()
    }

    /// What is written about it.
    pub fn description(&self) -> Option<Description> {
        self.0.description()
    }
}

trait OnResponses: std::fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;
    fn unit(&self) -> [&'static str; 2];
    fn responses(&self) -> &'static [&'static str];
    fn layout(&self) -> Layout;
    fn parameters(&self) -> Vec<(&'static str, f64)>;
    fn check(&self) -> Result<(), ParameterError>;
    fn inputs(&self) -> Inputs;
    fn required(&self) -> Inputs;
    fn score_domain(&self) -> Domain;
    fn evaluate(&self, responses: &[Response; MAX_RESPONSES], given: Given) -> AnyEvaluation;
    fn evaluate_all(&self, units: &Columns<'_>, first: usize, to: Evaluated<'_>);
    fn evaluate_tokens(&self, tokens: &[Token], to: &mut [Evaluation<Token>]);
    fn clipped(&self, responses: &[Response; MAX_RESPONSES]) -> Option<Clipped>;
    fn log_ratio_bound(&self) -> f64;
    fn source(&self) -> Option<Source>;
    fn cuda(&self) -> Option<String>;
    fn description(&self) -> Option<Description>;
}

/// An objective on units of type `U`.
#[derive(Debug)]
struct On<U: Unit>(Arc<dyn Objective<U>>);

impl<U: Unit> OnResponses for On<U> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn unit(&self) -> [&'static str; 2] {
        U::NAMES
    }

    fn responses(&self) -> &'static [&'static str] {
        U::RESPONSES
    }

    fn layout(&self) -> Layout {
        U::LAYOUT
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        self.0.parameters()
    }

    fn check(&self) -> Result<(), ParameterError> {
        self.0.check()
    }

    fn inputs(&self) -> Inputs {
        self.0.inputs()
    }

    fn required(&self) -> Inputs {
        self.0.required()
    }

    fn score_domain(&self) -> Domain {
        self.0.score_domain()
    }

    fn evaluate(&self, responses: &[Response; MAX_RESPONSES], given: Given) -> AnyEvaluation {
        let evaluation = self.0.evaluate(&U::new_unit(responses, given));
        AnyEvaluation {
            loss: evaluation.loss,
            grads: U::spread(evaluation.grad),
            rewards: U::spread(evaluation.reward),
        }
    }

    fn evaluate_all(&self, units: &Columns<'_>, first: usize, to: Evaluated<'_>) {
        units.evaluate(&*self.0, first, to);
    }

    fn evaluate_tokens(&self, tokens: &[Token], to: &mut [Evaluation<Token>]) {
        let objective: &dyn Any = &self.0;
        match objective.downcast_ref::<Arc<dyn Objective<Token>>>() {
            Some(objective) => objective.evaluate_all(tokens, to),
            None => unreachable!("a term over tokens has an objective on them"),
        }
    }

    fn clipped(&self, responses: &[Response; MAX_RESPONSES]) -> Option<Clipped> {
        self.0.clipped(&U::new_unit(responses, Given::NEUTRAL))
    }

    fn log_ratio_bound(&self) -> f64 {
        self.0.log_ratio_bound()
    }

    fn source(&self) -> Option<Source> {
        self.0.source()
    }

    fn cuda(&self) -> Option<String> {
        self.0.source().map(|source| source.cuda(&*self.0))
    }

    fn description(&self) -> Option<Description> {
        self.0.description()
    }
}
