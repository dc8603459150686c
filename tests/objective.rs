//! Stage 3: every objective of the list, and the loop that runs it.

use prefuse::objectives::{
    Objective, Pair, Response, Sequence, pair_objectives, sequence_objectives,
};
use rand::RngExt;

use crate::common::rng;

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
    let mut response = || Response {
        policy: -40.0 * rng.random::<f64>(),
        reference: -40.0 * rng.random::<f64>(),
        tokens: rng.random_range(0..30) as f64,
        weights: 1.0,
    };
    let (chosen, rejected) = (response(), response());
    let inputs = objective.inputs();
    let or = |used: bool, value: f64, neutral: f64| if used { value } else { neutral };
    Pair {
        chosen,
        rejected,
        beta: or(inputs.beta, rng.random_range(0.3..3.0), 1.0),
        margin: or(inputs.margin, rng.random_range(-1.0..1.0), 0.0),
        soft_label: or(inputs.soft_label, rng.random(), 1.0),
    }
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
            let with_chosen = |policy| Pair { chosen: Response { policy, ..pair.chosen }, ..pair };
            let with_rejected =
                |policy| Pair { rejected: Response { policy, ..pair.rejected }, ..pair };
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
            let at = |policy| Sequence {
                response: Response { policy, reference: 0.0, tokens, weights: tokens },
            };
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
                        let response = |policy| Response { policy, tokens, ..Response::default() };
                        let pair = Pair {
                            chosen: response(chosen),
                            rejected: response(rejected),
                            beta: 1.0,
                            margin: 0.0,
                            soft_label,
                        };
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
    let response = |policy| Response { policy, tokens: 1.0, weights: 1.0, reference: 0.0 };
    let (chosen, rejected) = (response(0.0), response(-1.0));
    let pair = Pair { chosen, rejected, beta: 1.0, margin: 0.0, soft_label: 1.0 };
    let got = objective.evaluate(&pair);
    assert_eq!((got.loss, got.grad.chosen, got.grad.rejected), (0.0, 0.0, 0.0));
}

/// The objectives of the list check themselves, and have names, parameters and a text.
#[test]
fn the_list_is_complete() {
    let mut files: Vec<String> =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/objectives"))
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
