//! Objectives from outside of the crate, by macro and by hand, on every backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prefuse::batch::{Batch, Labels, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::{
    self, AnyObjective, Evaluation, Inputs, Objective, Pair, ParameterError, PerPair, PerSequence,
    Sequence, Source,
};
use prefuse::{Element, Loss, Reference, Sequences, Term, Upstream};

use crate::backends::composed_backends;
use crate::common::{forward, gradient, logits};
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
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// An objective's parameters may be others the next time, so that they are asked for once: what a kernel
/// is chosen by is what it gets.
#[test]
fn parameters_are_asked_for_once() {
    #[derive(Debug, Default)]
    struct Shifting(Arc<AtomicUsize>);

    impl Objective<Pair> for Shifting {
        fn name(&self) -> &'static str {
            "Dpo"
        }

        fn parameters(&self) -> Vec<(&'static str, f64)> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Objective::parameters(&objectives::Dpo::new(0.1)),
                _ => vec![],
            }
        }

        fn check(&self) -> Result<(), ParameterError> {
            Ok(())
        }

        fn inputs(&self) -> Inputs {
            Inputs::NONE
        }

        fn evaluate(&self, pair: &Pair) -> Evaluation<Pair> {
            Dpo.evaluate(pair)
        }

        fn source(&self) -> Option<Source> {
            Objective::source(&objectives::Dpo::new(0.1))
        }
    }

    for backend in composed_backends() {
        let asked = Arc::new(AtomicUsize::new(0));
        let batch = Batch::new(Labels::new(&[1, 0]), Packing::padded(2, 1).unwrap())
            .and_then(|batch| batch.with_pairs(Pairs::halves(1)?))
            .unwrap();
        let loss = Loss::new(batch, [Term::pairs(Shifting(asked.clone()))]).unwrap();
        forward(&loss, &*backend, &[0.5_f32, 0.25, 1.0, 0.0]);
        assert!(asked.load(Ordering::Relaxed) <= 1, "{}", backend.name());
    }
}
