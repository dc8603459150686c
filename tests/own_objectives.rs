//! Objectives from outside of the crate, by macro and by hand, on every backend.

use prefuse::batch::{Advantages, Batch, Labels, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::{
    AnyObjective, Evaluation, Given, Importance, Inputs, KlPenalty, MAX_RESPONSES, Objective, Pair,
    ParameterError, PerPair, PerSequence, PerToken, PpoClip, Response, Sequence, Token, Unit,
};
use prefuse::{Element, Loss, Reference, Sequences, Term, Upstream};

use crate::backends::backends;
use crate::common::{exact, forward, gradient, labels, logits};
use crate::each_dtype;
use crate::objective::compare_stages;

prefuse::objective! {
    /// The margin itself, squared.
    pub struct Square {
        required {
            /// Scale.
            beta: f64 in POSITIVE,
        }
        optional {}
    }
    uses(reference, margin)
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        reward.chosen = self.beta * (pair.chosen.policy - pair.chosen.reference);
        reward.rejected = self.beta * (pair.rejected.policy - pair.rejected.reference);
        let u = reward.chosen - reward.rejected - pair.margin;
        loss = u * u;
        grad.chosen = 2.0 * self.beta * u;
        grad.rejected = -2.0 * self.beta * u;
    }
}

/// By hand, under the name of an objective of the crate, whose kernel must not run for it.
#[derive(Debug)]
struct Dpo;

impl Objective<Pair> for Dpo {
    fn name(&self) -> &'static str {
        "Dpo"
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![]
    }

    fn check(&self) -> Result<(), ParameterError> {
        Ok(())
    }

    fn inputs(&self) -> Inputs {
        Inputs::NONE
    }

    fn evaluate(&self, pair: &Pair) -> Evaluation<Pair> {
        let loss = pair.rejected.policy - pair.chosen.policy;
        let grad = PerPair { chosen: -1.0, rejected: 1.0 };
        Evaluation { loss, grad, reward: PerPair { chosen: 0.0, rejected: loss } }
    }
}

/// By hand, on sequences: the mean's square.
#[derive(Debug)]
struct Mean;

impl Objective<Sequence> for Mean {
    fn name(&self) -> &'static str {
        "Mean"
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![]
    }

    fn check(&self) -> Result<(), ParameterError> {
        Ok(())
    }

    fn inputs(&self) -> Inputs {
        Inputs::NONE
    }

    fn evaluate(&self, sequence: &Sequence) -> Evaluation<Sequence> {
        let tokens = sequence.response.tokens.max(1.0);
        let mean = sequence.response.policy / tokens;
        let grad = PerSequence { response: 2.0 * mean / tokens };
        Evaluation { loss: mean * mean, grad, reward: PerSequence { response: mean } }
    }
}

#[test]
fn on_stage_3() {
    compare_stages(&AnyObjective::new(Square::new(0.5)));
    compare_stages(&AnyObjective::new(Dpo));
    compare_stages(&AnyObjective::new(Mean));
}

/// Beside an objective of the crate, from logits to gradient.
#[test]
fn in_a_loss() {
    fn body<T: Element>(backend: &dyn prefuse::Backend) {
        let data: Vec<T> = logits::<T>(1, 1, 8 * 9);
        let pairs = Pairs::halves(2).unwrap().with_margin(&[0.5, -1.0]).unwrap();
        let batch =
            Batch::new(Labels::new(&[1, 2, 0, 8, 3, 3, -100, 5]), Packing::padded(4, 2).unwrap())
                .and_then(|batch| batch.with_pairs(pairs))
                .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&[-2.0; 8])))
                .unwrap();
        let nll = Term::sequences(prefuse::objectives::Nll::new(), Sequences::Chosen);
        let own = Term::sequences(Mean, Sequences::Indices(vec![3, 0, 3])).with_weight(-0.5);
        let terms = [Term::pairs(Square::new(0.5)), nll, own];
        let loss = Loss::new(batch, terms).unwrap();
        let run = |backend: &dyn prefuse::Backend| {
            let forward = forward(&loss, backend, &data);
            let grads = gradient(&loss, backend, &forward, &data, Upstream::Loss(2.0));
            (forward.loss(), grads)
        };
        let ((got, grads), (expected, truth)) = (run(backend), run(&Reference::new()));
        // Log-probs are right to 1e-6 of 20, and the losses' slopes are below 20.
        approx::assert_relative_eq!(got, expected, epsilon = 1e-3);
        let (rounding, _) = crate::common::rounding::<T>();
        for (got, expected) in grads.iter().zip(truth) {
            let (got, expected) = (got.to_f64(), expected.to_f64());
            // Each is rounded once, and the two sides may round to neighbours.
            let bound = (2.0 * rounding + 1e-5) * expected.abs() + 1e-4;
            assert!((got - expected).abs() <= bound, "{got} for {expected}");
        }
    }
    for backend in backends() {
        each_dtype!(&*backend, body);
    }
}

/// A token under another name.
#[derive(Clone, Copy, Debug)]
struct OwnToken(Token);

impl Unit for OwnToken {
    type PerResponse = PerToken;
    const NAMES: [&'static str; 2] = ["OwnToken", "PerToken"];
    const RESPONSES: &'static [&'static str] = Token::RESPONSES;

    fn new_unit(responses: &[Response; MAX_RESPONSES], given: Given) -> Self {
        Self(Token::new_unit(responses, given))
    }

    fn spread(of: PerToken) -> [f64; MAX_RESPONSES] {
        Token::spread(of)
    }
}

#[derive(Debug)]
struct OnOwnToken<O>(O);

impl<O: Objective<Token>> Objective<OwnToken> for OnOwnToken<O> {
    fn name(&self) -> &'static str {
        "OnOwnToken"
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

    fn evaluate(&self, unit: &OwnToken) -> Evaluation<OwnToken> {
        let Evaluation { loss, grad, reward } = self.0.evaluate(&unit.0);
        Evaluation { loss, grad, reward }
    }
}

/// Units of another type than the crate's go another way to the same numbers.
#[test]
fn units_of_ones_own_over_tokens() {
    let (tokens, vocab) = (80, 5);
    let data: Vec<f64> = exact(&logits::<f32>(3, tokens, vocab));
    let ids = labels(3, &data, vocab);
    let values = |shift: f64| (0..tokens).map(|t| -1.6 + shift * (t as f64).sin()).collect();
    let (old, reference): (Vec<f64>, Vec<f64>) = (values(0.3), values(-0.5));
    let run = |objective: AnyObjective| {
        let batch = Batch::new(Labels::new(&ids[..]), Packing::new(&[0, 70, 80]).unwrap())
            .and_then(|batch| batch.with_old(ReferenceLogProbs::per_token(&old)))
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&reference)))
            .unwrap();
        let batch = match objective.inputs().advantage {
            true => batch.with_advantages(Advantages::per_sequence(&[1.5, -0.5]).unwrap()),
            false => Ok(batch),
        };
        let loss = Loss::new(batch.unwrap(), [Term::new(objective)]).unwrap();
        let result = forward(&loss, &Reference::new(), &data);
        let grads = gradient(&loss, &Reference::new(), &result, &data, Upstream::Loss(1.0));
        (result.terms()[0].losses.clone(), grads)
    };
    let kl = KlPenalty::new().with_importance(Importance::Sequence);
    assert_eq!(run(AnyObjective::new(OnOwnToken(kl))), run(AnyObjective::new(kl)));
    let clip = PpoClip::new(0.2, 0.2);
    assert_eq!(run(AnyObjective::new(OnOwnToken(clip))), run(AnyObjective::new(clip)));
}
