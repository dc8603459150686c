//! Stage 3: every objective of the list, and the loop that runs it.

use std::sync::Arc;

use prefuse::batch::{Batch, Labels, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::{
    Objective, Pair, Response, Sequence, pair_objectives, sequence_objectives,
};
use prefuse::stages::{Objective as Stage, ObjectiveOutputs, Totals, UnitScale};
use prefuse::{Backend, Reference, Slice, SliceMut, Term};
use rand::RngExt;

use crate::common::{backends, rng};

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

/// The stage on every backend has the bits of the reference, gradients included, for more units than
/// one task takes, sequences that stand in several pairs, and any number of threads.
#[test]
fn the_stage_has_the_same_bits_on_every_backend() {
    for objective in pair_objectives() {
        let expected = run_stage(&Reference::new(), objective.clone());
        assert!(expected.iter().all(|x| f64::from_bits(*x).is_finite()));
        for backend in backends() {
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let got = pool.install(|| run_stage(&*backend, objective.clone()));
                assert_eq!(got, expected, "{objective:?} {} {threads}", backend.name());
            }
        }
    }
}

fn run_stage(backend: &dyn Backend, objective: Arc<dyn Objective<Pair>>) -> Vec<u64> {
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
    let (mut losses, mut rewards) = (vec![f64::NAN; count], vec![f64::NAN; 2 * count]);
    let (mut value, mut grads) = ([f64::NAN], vec![0.25; sequences]);
    let mut scratch = vec![f64::NAN; backend.objective_scratch(count)];
    let outputs = ObjectiveOutputs {
        losses: SliceMut::new(&mut losses),
        rewards: SliceMut::new(&mut rewards),
        value: SliceMut::new(&mut value),
        grads: Some((SliceMut::new(&mut grads), UnitScale::Reduced(-1.5))),
    };
    let totals = Totals {
        sums: Slice::new(&sums),
        tokens: Slice::new(&tokens),
        weights: Slice::new(&tokens),
    };
    let inputs = (totals, Some(Slice::new(&reference)));
    let scratch = SliceMut::new(&mut scratch);
    let stage = Stage::new(backend, &batch, &term, inputs, outputs, scratch).unwrap();
    backend.objective(stage).unwrap();
    [losses, rewards, value.to_vec(), grads].concat().into_iter().map(f64::to_bits).collect()
}

/// The objectives of the list check themselves, and have names, parameters and a text.
#[test]
fn the_list_is_complete() {
    let mut files: Vec<String> = std::fs::read_dir(crate::common::root().join("src/objectives"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            !["mod.rs", "objective.rs", "scalar.rs", "units.rs", "reduction.rs"]
                .contains(&name.as_str())
        })
        .map(|name| name.trim_end_matches(".rs").replace('_', ""))
        .collect();
    let pairs = pair_objectives();
    let sequences = sequence_objectives();
    for (name, parameters, checked, source) in pairs
        .iter()
        .map(|o| (o.name(), o.parameters(), o.check(), o.source()))
        .chain(sequences.iter().map(|o| (o.name(), o.parameters(), o.check(), o.source())))
    {
        assert!(checked.is_ok(), "{name}");
        assert!(parameters.iter().all(|(_, value)| value.is_finite()), "{name}");
        assert!(source.is_some(), "{name}");
        files.retain(|file| *file != name.to_lowercase());
    }
    assert_eq!(files, Vec::<String>::new(), "files without an entry in the list");
}
