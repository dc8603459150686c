//! Stage 3: every objective of the list, and the loop that runs it.

use std::sync::Arc;

use prefuse::batch::{Batch, Labels, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::{
    Objective, Pair, Response, Sequence, pair_objectives, sequence_objectives,
};
use prefuse::stages::{Objective as Stage, ObjectiveOutputs, Totals, UnitScale};
use prefuse::{Backend, Reference, Term};
use rand::RngExt;

use crate::backends::backends;
use crate::common::{Placed, rng};

/// `f`'s derivative by central differences, and how wrong they may be: `step^2 / 6` times the third
/// derivative, which for a logistic loss of slope 6 (SimPO's beta 2 times a pair's 3) is at most
/// `6^3 * 0.1`, and the rounding of `f` over the step.
fn derivative(f: impl Fn(f64) -> f64, x: f64) -> (f64, f64) {
    let step = 1e-4;
    let (above, below) = (f(x + step), f(x - step));
    let size = above.abs() + below.abs() + 1.0;
    ((above - below) / (2.0 * step), 4e-8 + 1e-12 * size / step)
}

pub fn random_pair(seed: u64, objective: &dyn Objective<Pair>) -> Pair {
    let mut rng = rng(seed);
    let mut response = || {
        let (policy, reference) = (-40.0 * rng.random::<f64>(), -40.0 * rng.random::<f64>());
        Response::new(policy, rng.random_range(0..30) as f64).with_reference(reference)
    };
    let (chosen, rejected) = (response(), response());
    let inputs = objective.inputs();
    let or = |used: bool, value: f64, neutral: f64| if used { value } else { neutral };
    Pair::new(chosen, rejected)
        .with_beta(or(inputs.beta, rng.random_range(0.3..3.0), 1.0))
        .with_margin(or(inputs.margin, rng.random_range(-1.0..1.0), 0.0))
        .with_soft_label(or(inputs.soft_label, rng.random(), 1.0))
}

#[test]
fn pair_gradients_are_finite_differences() {
    for objective in pair_objectives() {
        for seed in 0..2000 {
            let pair = random_pair(seed, &*objective);
            let evaluation = objective.evaluate(&pair);
            let loss = |pair: &Pair| objective.evaluate(pair).loss;
            let near_kink = objective.name() == "Hinge"
                && evaluation.loss.abs() < 1e-2
                && evaluation.loss > 0.0;
            if near_kink {
                continue;
            }
            let with_chosen = |policy| {
                let mut pair = pair;
                pair.chosen.policy = policy;
                pair
            };
            let with_rejected = |policy| {
                let mut pair = pair;
                pair.rejected.policy = policy;
                pair
            };
            let (chosen, bound) = derivative(|x| loss(&with_chosen(x)), pair.chosen.policy);
            assert!((evaluation.grad.chosen - chosen).abs() <= bound, "{objective:?} {pair:?}");
            let (rejected, bound) = derivative(|x| loss(&with_rejected(x)), pair.rejected.policy);
            assert!((evaluation.grad.rejected - rejected).abs() <= bound, "{objective:?} {pair:?}");
        }
    }
}

#[test]
fn sequence_gradients_are_finite_differences() {
    for objective in sequence_objectives() {
        for tokens in [0.0, 1.0, 17.0] {
            let at = |policy| Sequence::new(Response::new(policy, tokens));
            let (expected, bound) = derivative(|x| objective.evaluate(&at(x)).loss, -7.5);
            let got = objective.evaluate(&at(-7.5)).grad.response;
            assert!((got - expected).abs() <= bound, "{objective:?}");
        }
    }
}

/// Log-ratios of +-1000, identical responses, and responses of length 0 are finite.
#[test]
fn extremes_are_finite() {
    let values = [-1e3, -1.0, 0.0, 1.0, 1e3];
    for objective in pair_objectives() {
        let soft_labels: &[f64] =
            if objective.inputs().soft_label { &[0.0, 0.5, 1.0] } else { &[1.0] };
        for chosen in values {
            for rejected in values {
                for tokens in [0.0, 3.0] {
                    for &soft_label in soft_labels {
                        let response = |policy| Response::new(policy, tokens);
                        let pair = Pair::new(response(chosen), response(rejected))
                            .with_soft_label(soft_label);
                        let got = objective.evaluate(&pair);
                        let all = [got.loss, got.grad.chosen, got.grad.rejected];
                        assert!(all.iter().all(|x| x.is_finite()), "{objective:?} {pair:?}");
                    }
                }
            }
        }
    }
}

/// The stated value at the kink: `u == 1` has gradient 0, as torch's relu.
#[test]
fn hinge_at_its_kink() {
    let objective = prefuse::objectives::Hinge::new(1.0);
    let pair = Pair::new(Response::new(0.0, 1.0), Response::new(-1.0, 1.0));
    let got = objective.evaluate(&pair);
    assert_eq!((got.loss, got.grad.chosen, got.grad.rejected), (0.0, 0.0, 0.0));
}

/// The stage has the same bits on every run, for more units than one task takes, sequences that stand
/// in several pairs, and any number of threads; on the host those of the reference, gradients included.
#[test]
fn the_stage_has_the_same_bits_on_every_backend() {
    for objective in pair_objectives() {
        compare_stages(objective);
    }
}

pub fn compare_stages(objective: Arc<dyn Objective<Pair>>) {
    let expected = run_stage(&Reference::new(), objective.clone());
    assert!(expected.iter().flatten().all(|x| x.is_finite()));
    for backend in backends() {
        let runs = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run_stage(&*backend, objective.clone()))
        });
        let bits = |run: &[Vec<f64>; 4]| run.concat().iter().map(|x| x.to_bits()).collect();
        let [first, others @ ..] = runs.each_ref().map(bits) as [Vec<u64>; 3];
        assert!(others.iter().all(|run| *run == first), "{objective:?} {backend:?}");
        if backend.name() != "cuda" {
            assert_eq!(first, bits(&expected), "{objective:?} {backend:?}");
            continue;
        }
        for (got, expected) in runs[0].iter().zip(&expected) {
            // The device's exp and log1p are right to 2 ulp, so a loss or a slope is right to 8 ulps of
            // its largest part. A sequence's gradient is a sum of up to 125 slopes of both signs, which
            // cancel by less than 50: 400 ulps of the largest.
            let largest = expected.iter().fold(0.0_f64, |a, &b| a.max(b.abs()));
            for (got, expected) in got.iter().zip(expected) {
                let bound = 400.0 * f64::EPSILON * largest;
                assert!((got - expected).abs() <= bound, "{objective:?} {got} for {expected}");
            }
        }
    }
}

/// Losses, rewards, value and gradients.
fn run_stage(backend: &dyn Backend, objective: Arc<dyn Objective<Pair>>) -> [Vec<f64>; 4] {
    let (sequences, count) = (40, 2500);
    let mut rng = rng(3);
    let mut random = |scale: f64| (0..sequences).map(|_| scale * rng.random::<f64>()).collect();
    let [sums, reference, tokens]: [Vec<f64>; 3] = [random(-40.0), random(-40.0), random(30.0)];
    let pairs = (0..count).map(|pair| (pair % sequences, (pair * 7 + 1 + pair / 40) % sequences));
    let pairs: Vec<_> =
        pairs.map(|(c, r)| if c == r { (c, (r + 1) % 40) } else { (c, r) }).collect();
    let labels = Labels::new(vec![0; sequences]);
    let batch = Batch::new(labels, Packing::padded(sequences, 1).unwrap())
        .and_then(|batch| batch.with_pairs(Pairs::new(pairs).unwrap()))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(&reference)))
        .unwrap();
    let term = Term::shared_pairs(objective).with_weight(0.7).resolve(&batch).unwrap();
    let term = term.place(backend, &batch).unwrap();
    let poisoned = |len| Placed::poisoned::<f64>(backend, len);
    let (mut losses, mut rewards) = (poisoned(count), poisoned(2 * count));
    let (mut value, mut grads) = (poisoned(1), Placed::new(backend, &vec![0.25; sequences]));
    let mut scratch = poisoned(backend.objective_scratch(count));
    let outputs = ObjectiveOutputs {
        losses: losses.slice_mut(),
        rewards: rewards.slice_mut(),
        value: value.slice_mut(),
        grads: Some((grads.slice_mut(), UnitScale::Reduced(-1.5))),
    };
    let [sums, reference, tokens] =
        [sums, reference, tokens].map(|numbers| Placed::new(backend, &numbers));
    let totals = Totals { sums: sums.slice(), tokens: tokens.slice(), weights: tokens.slice() };
    let inputs = (totals, Some(reference.slice()));
    let stage = Stage::new(backend, &term, inputs, outputs, scratch.slice_mut()).unwrap();
    backend.objective(stage).unwrap();
    [losses, rewards, value, grads].map(|output| output.read())
}
