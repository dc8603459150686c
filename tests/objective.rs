//! Stage 3: every objective of the list, and the loop that runs it.

use prefuse::objectives::scalar::{posterior_log_odds, sigmoid};
use prefuse::objectives::{
    AnyObjective, DiscoPop, Divergence, Given, Importance, LogProbClip, MAX_RESPONSES, P3o,
    Response, objectives,
};
use prefuse::stages::{Objective as Stage, ObjectiveOutputs, Totals, UnitScale};
use prefuse::{Backend, Reference, Term};
use rand::RngExt;

use crate::backends::backends;
use crate::common::{Placed, rng};
use crate::units::{Unit, complete, exponent_rate, is_exponential, random_unit, single_tokens};

/// `f`'s derivative at 0 and how wrong it may be, by central differences of steps `h` and `h / 2`: the
/// extrapolation of the two is of order `h^4`, so that the difference between them bounds its error,
/// but for the rounding of `f`, a few of its digits over the step. `None` where the two differ as they
/// do only beside a kink, by a part of the slopes' jump.
fn derivative(f: impl Fn(f64) -> f64) -> Option<(f64, f64)> {
    let step = 1e-3;
    let central = |h: f64| (f(h) - f(-h)) / (2.0 * h);
    let (coarse, fine) = (central(step), central(step / 2.0));
    let size = f(step).abs() + f(-step).abs() + 1.0;
    let error = (coarse - fine).abs();
    let smooth = error <= 1e-4 * (1.0 + fine.abs());
    smooth.then_some(((4.0 * fine - coarse) / 3.0, error + 20.0 * f64::EPSILON * size / step))
}

/// What a response is evaluated at: `shift` further in the policy's sum.
fn shifted((responses, given): &Unit, response: usize, shift: f64) -> Unit {
    let mut responses = *responses;
    responses[response].policy += shift;
    (responses, *given)
}

/// Whose label is a posterior that is a constant for the gradient: see `posteriors_are_constants`.
fn has_posterior(objective: &AnyObjective) -> bool {
    objective.name().starts_with("Lcpo")
}

/// Whose ratio is a constant for the gradient: see `token_objective::constant_ratios`.
fn has_constant_ratio(objective: &AnyObjective) -> bool {
    let parameters = objective.parameters();
    let fixed = ("importance", f64::from(Importance::FixedToken as u8));
    ["Cispo", "Vespo"].contains(&objective.name()) || parameters.contains(&fixed)
}

/// Whether a response is a constant for the gradient.
fn is_detached(objective: &AnyObjective, response: usize) -> bool {
    let side = if response < 2 { "detach_pair" } else { "detach_verdicts" };
    objective.parameters().contains(&(side, 1.0))
}

#[test]
fn gradients_are_finite_differences() {
    for objective in objectives() {
        if has_constant_ratio(&objective) {
            continue;
        }
        let mut kinks = 0;
        for seed in 0..1000 {
            let mut unit = random_unit(seed, &objective);
            if has_posterior(&objective) {
                // A certain label is its own posterior.
                unit.1.soft_label = unit.1.soft_label.round();
            }
            let grads = objective.evaluate(&unit.0, unit.1).grads;
            for (response, got) in grads.into_iter().enumerate() {
                if is_detached(&objective, response) {
                    assert_eq!(got, 0.0, "{objective:?}");
                    continue;
                }
                let loss = |shift: f64| {
                    let (responses, given) = shifted(&unit, response, shift);
                    objective.evaluate(&responses, given).loss
                };
                let Some((expected, bound)) = derivative(loss) else {
                    kinks += 1;
                    continue;
                };
                assert!(
                    (got - expected).abs() <= bound,
                    "{objective:?} {unit:?} response {response}: {got} for {expected} +- {bound}"
                );
            }
        }
        // Odds are infinite at a log-prob of 0, and a step may not resolve what is beside that.
        let may = match objective.name() {
            "Hinge" | "Slic" => 50,
            "PpoClip" | "Gspo" | "Rloo" | "LogProbClip" => 50,
            "P3o" => 5,
            "Orpo" => 5,
            _ => 0,
        };
        assert!(kinks <= may, "{objective:?}: {kinks} kinks");
    }
}

/// The gradient under a posterior is that of its two certain labels, mixed by it.
#[test]
fn posteriors_are_constants() {
    for objective in objectives().iter().filter(|objective| has_posterior(objective)) {
        for seed in 0..200 {
            let (responses, given) = random_unit(seed, objective);
            let at = |soft_label| objective.evaluate(&responses, Given { soft_label, ..given });
            let (right, wrong, got) = (at(1.0), at(0.0), at(given.soft_label));
            let log_odds = wrong.loss - right.loss;
            let label = sigmoid(posterior_log_odds(log_odds, given.soft_label));
            let mix = |right: f64, wrong: f64| label * right + (1.0 - label) * wrong;
            let close = |a: f64, b: f64| {
                approx::assert_relative_eq!(a, b, max_relative = 1e-12, epsilon = 1e-12);
            };
            close(got.loss, mix(right.loss, wrong.loss));
            for response in 0..2 {
                close(got.grads[response], mix(right.grads[response], wrong.grads[response]));
            }
        }
    }
}

/// Log-ratios of +-1000, average log-probs of exactly 0, identical responses, and responses of length 0
/// are finite wherever the mathematics is, and never NaN.
#[test]
fn extremes_are_finite() {
    for objective in objectives() {
        let count = objective.responses().len();
        if objective.unit()[0] == "Token" {
            // A ratio is an exponential; see `token_objective`.
            continue;
        }
        let rewards = objective.unit()[0].starts_with("Reward");
        let values: &[f64] = if rewards { &[-1e3, 0.0, 1e3] } else { &[-1e3, -1.0, 0.0] };
        let labels: &[f64] = if objective.inputs().soft_label { &[0.0, 0.5, 1.0] } else { &[1.0] };
        let references: &[f64] = if objective.inputs().reference { values } else { &[0.0] };
        for code in 0..values.len().pow(count as u32) * references.len().pow(2) {
            let digit = |place: u32| code / values.len().pow(place);
            let policy = |response: usize| values[digit(response as u32) % values.len()];
            let reference = |response: usize| {
                let digit = code / values.len().pow(count as u32);
                references[digit / references.len().pow(response.min(1) as u32) % references.len()]
            };
            for tokens in [[0.0, 0.0], [3.0, 3.0], [0.0, 3.0], [3.0, 0.0]] {
                for &soft_label in labels {
                    let responses: [Response; MAX_RESPONSES] = std::array::from_fn(|response| {
                        if response >= count {
                            return Response::default();
                        }
                        // A sequence without tokens has a sum of 0.
                        let counted = tokens[response % 2];
                        let of = |value: f64| if counted == 0.0 && !rewards { 0.0 } else { value };
                        Response::new(of(policy(response)), counted)
                            .with_reference(of(reference(response)))
                            .with_score(0.25)
                    });
                    let given = Given { soft_label, ..Given::NEUTRAL };
                    check_extreme(&objective, &responses, given);
                }
            }
        }
    }
}

fn check_extreme(objective: &AnyObjective, responses: &[Response; MAX_RESPONSES], given: Given) {
    let got = objective.evaluate(responses, given);
    let all = || got.grads.iter().chain(&got.rewards).chain([&got.loss]);
    assert!(all().all(|x| !x.is_nan()), "{objective:?} {responses:?} {got:?}");
    // The odds of a probability of 1 are infinite, and a rejected response of infinite odds is an infinite
    // loss.
    let [chosen, rejected, ..] = responses;
    let certain = objective.name() == "Orpo"
        && rejected.policy == 0.0
        && chosen.tokens > 0.0
        && rejected.tokens > 0.0;
    // So is a score that is an exponential beyond f64, and its slope.
    let rate = exponent_rate(objective);
    let beyond = [chosen, rejected].iter().any(|response| {
        rate.is_some_and(|rate| rate * (response.policy - response.reference) > f64::MAX.ln())
    });
    let finite = all().all(|x| x.is_finite());
    assert!(finite || beyond || certain, "{objective:?} {responses:?} {got:?}");
}

/// What DiscoPOP is where its margin is infinite, as it is against an exponential beyond f64.
#[test]
fn disco_pop_at_infinite_margins() {
    let none = Response::default();
    let at = |temperature: f64, chosen: f64, rejected: f64| {
        let disco_pop = DiscoPop::new(0.1).with_divergence(Divergence::ForwardKl);
        let objective = AnyObjective::new(disco_pop.with_temperature(temperature));
        let responses = [chosen, rejected].map(|sum| Response::new(sum, 1.0).with_reference(0.0));
        objective.evaluate(&[responses[0], responses[1], none, none], Given::NEUTRAL)
    };
    for temperature in [0.05, 1.0, 20.0] {
        // -log sigmoid(u) is -u there; exp(-u) grows faster where the temperature is above 1.
        let lost = at(temperature, -1000.0, 0.0);
        assert_eq!(lost.loss, f64::INFINITY, "{temperature}");
        assert_eq!(lost.grads[0], f64::NEG_INFINITY, "{temperature}");
        let slope = if temperature > 1.0 { f64::INFINITY } else { 0.1 };
        assert_eq!(lost.grads[1], slope, "{temperature}");
        let won = at(temperature, 0.0, -1000.0);
        assert_eq!((won.loss, won.grads), (0.0, [0.0; 4]), "{temperature}");
    }
}

/// The stated value at the kink: at no slack the gradient is 0, as torch's relu has it.
#[test]
fn hinges_at_their_kinks() {
    let responses = [0.0, -1.0, 0.0, 0.0].map(|policy| Response::new(policy, 1.0));
    let hinge = AnyObjective::new(prefuse::objectives::Hinge::new(1.0));
    let slic = AnyObjective::new(prefuse::objectives::Slic::new(1.0));
    for objective in [hinge, slic] {
        let got = objective.evaluate(&responses, Given::NEUTRAL);
        assert_eq!((got.loss, got.grads), (0.0, [0.0; 4]), "{objective:?}");
    }
}

/// At the edges of P3O's clips the gradient is the full one, as torch's clamp has it, and beyond the far
/// edge there is none.
#[test]
fn clips_at_their_edges() {
    let pair = |u: f64| {
        let responses =
            [u, 0.0, 0.0, 0.0].map(|policy| Response::new(policy, 1.0).with_reference(0.0));
        let given = Given { margin: 1.0, ..Given::NEUTRAL };
        AnyObjective::new(P3o::new(0.5)).evaluate(&responses, given)
    };
    for (u, loss, slope) in
        [(-1.0, 0.5, -0.5), (0.5, -0.25, -0.5), (1.5, -0.75, -0.5), (1.75, -0.75, 0.0)]
    {
        let got = pair(u);
        assert_eq!((got.loss, got.grads[0], got.grads[1]), (loss, slope, -slope), "{u}");
    }
    let token = |policy: f64, advantage: f64| {
        let token = Response::new(policy, 1.0).with_old(-2.0).with_score(advantage);
        let responses = [token, Response::new(0.0, 1.0), Response::new(0.0, 1.0), token];
        let got = AnyObjective::new(LogProbClip::new(0.5)).evaluate(&responses, Given::NEUTRAL);
        (got.loss, got.grads[0])
    };
    assert_eq!([token(-3.0, 2.0), token(-1.5, 2.0)], [(6.0, -2.0), (3.0, -2.0)]);
    assert_eq!([token(-1.0, 2.0), token(-1.0, -2.0)], [(3.0, 0.0), (-2.0, 2.0)]);
    assert_eq!([token(-2.5, -2.0), token(-3.0, -2.0)], [(-5.0, 2.0), (-5.0, 0.0)]);
    assert_eq!(token(f64::NEG_INFINITY, -2.0), (-5.0, 0.0));
}

/// A side of the consistency loss that is detached has no gradient, and the other keeps its own.
#[test]
fn detached_sides() {
    let scir = prefuse::objectives::Scir::new(0.1, 0.2);
    let (responses, given) = random_unit(1, &AnyObjective::new(scir));
    let grads = |scir| AnyObjective::new(scir).evaluate(&responses, given).grads;
    let [chosen, rejected, for_chosen, for_rejected] = grads(scir);
    assert!(chosen != 0.0 && for_chosen != 0.0);
    assert_eq!(grads(scir.with_detach_pair(true)), [0.0, 0.0, for_chosen, for_rejected]);
    assert_eq!(grads(scir.with_detach_verdicts(true)), [chosen, rejected, 0.0, 0.0]);
}

/// The stage has the same bits on every run, for more units than one task takes, sequences that stand
/// in several units, and any number of threads; on the host those of the reference, gradients included.
#[test]
fn the_stage_has_the_same_bits_on_every_backend() {
    for objective in objectives().iter().filter(|objective| objective.unit()[0] != "Token") {
        compare_stages(objective);
    }
}

pub fn compare_stages(objective: &AnyObjective) {
    for backend in backends() {
        // More units than a task takes, or two rounds of a block.
        let count = if backend.name() == "cuda" { 300 } else { 2500 };
        compare_stage(&*backend, objective, count);
    }
}

/// More units than a device's block evaluates in a few rounds.
#[test]
fn many_units() {
    for objective in objectives().iter().filter(|o| ["Dpo", "Nll", "Scir"].contains(&o.name())) {
        for backend in backends() {
            compare_stage(&*backend, objective, 1300);
        }
    }
}

fn compare_stage(backend: &dyn Backend, objective: &AnyObjective, count: usize) {
    let expected = run_stage(&Reference::new(), objective, count);
    assert!(expected.iter().flatten().all(|x| x.is_finite()), "{objective:?}");
    let runs = [1, 2, 5].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run_stage(backend, objective, count))
    });
    let bits = |run: &[Vec<f64>; 4]| run.concat().iter().map(|x| x.to_bits()).collect();
    let [first, others @ ..] = runs.each_ref().map(bits) as [Vec<u64>; 3];
    assert!(others.iter().all(|run| *run == first), "{objective:?} {backend:?}");
    if backend.name() != "cuda" {
        assert_eq!(first, bits(&expected), "{objective:?} {backend:?}");
        return;
    }
    for (got, expected) in runs[0].iter().zip(&expected) {
        // The device's exp, expm1, log and log1p are right to 2 ulp, so a loss or a slope is right
        // to 8 ulps of its largest part; a score that is an exponential of up to 4 multiplies that
        // of its log-ratio by 4. A sequence's gradient is a sum of up to 125 slopes of both signs,
        // which cancel by less than 50: 400 ulps of the largest.
        let largest = expected.iter().fold(0.0_f64, |a, &b| a.max(b.abs()));
        for (got, expected) in got.iter().zip(expected) {
            let bound = 400.0 * f64::EPSILON * largest;
            assert!((got - expected).abs() <= bound, "{objective:?} {got} for {expected}");
        }
    }
}

/// Losses, rewards, value and gradients.
fn run_stage(backend: &dyn Backend, objective: &AnyObjective, count: usize) -> [Vec<f64>; 4] {
    let sequences = 40;
    let mut rng = rng(3);
    let scale = if is_exponential(objective) { -4.0 } else { -40.0 };
    let mut random = |scale: f64| (0..sequences).map(|_| scale * rng.random::<f64>()).collect();
    let [sums, reference, tokens]: [Vec<f64>; 3] = [random(scale), random(scale), random(30.0)];
    let tokens: Vec<f64> = tokens.iter().map(|tokens| tokens.floor()).collect();
    let pairs = (0..count).map(|pair| (pair % sequences, (pair * 7 + 1 + pair / 40) % sequences));
    let pairs: Vec<_> =
        pairs.map(|(c, r)| if c == r { (c, (r + 1) % 40) } else { (c, r) }).collect();
    let batch = complete(single_tokens(sequences, &reference), pairs.clone(), objective, 5);
    let mut term = Term::new(objective.clone()).with_weight(0.7);
    if objective.responses().len() == 1 {
        let indices = pairs.into_iter().map(|(chosen, _)| chosen).collect();
        term = term.with_sequences(prefuse::Sequences::Indices(indices));
    }
    let term = term.resolve(&batch).unwrap().place(backend, &batch).unwrap();
    let poisoned = |len| Placed::poisoned::<f64>(backend, len);
    let (mut losses, mut rewards) = (poisoned(count), poisoned(2 * count));
    let (mut value, mut grads) = (poisoned(1), Placed::new(backend, &vec![0.25; sequences]));
    let members = count * objective.responses().len();
    let mut scratch = poisoned(backend.objective_scratch(members));
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
