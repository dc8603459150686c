//! Stage 3 over tokens: the objectives of policy gradients, and the loop that runs them.

use prefuse::batch::{Advantages, Batch, Labels, Packing, ReferenceLogProbs, Weights};
use prefuse::objectives::{
    AnyObjective, Cispo, EntropyBonus, Given, Gmpo, Gspo, Importance, KlEstimator, KlPenalty,
    PpoClip, Reduction, Reinforce, Response, Rloo, TrustRegion, Vespo, objectives,
};
use prefuse::stages::{
    TokenAdvantages, TokenInputs, TokenObjective, TokenObjectiveGrads, TokenObjectiveOutputs,
    Tokens, UnitScale,
};
use prefuse::{Backend, DType, Loss, Reference, Sequences, Term, Upstream};
use rand::RngExt;

use crate::backends::backends;
use crate::common::{Placed, forward, gradient, labels, logits, refused, rng};
use crate::units::random_unit;

fn on_tokens() -> Vec<AnyObjective> {
    objectives().into_iter().filter(|objective| objective.unit()[0] == "Token").collect()
}

/// Sequences of 700, 0, 1, 40 and 59 tokens: more than one round of a block's threads.
const OFFSETS: [i64; 6] = [0, 700, 700, 701, 741, 800];
const TOKENS: usize = 800;

/// What is given for a run of the stage.
#[derive(Clone, Copy)]
struct Case {
    old: bool,
    by_token: bool,
    reduction: Reduction,
    given_scale: bool,
}

/// Losses, and gradients by log-prob and entropy, f32 as every fast backend has them.
fn run(backend: &dyn Backend, objective: &AnyObjective, case: Case) -> [Vec<f64>; 3] {
    let mut rng = rng(7);
    let mut random = |count: usize, low: f64, high: f64| -> Vec<f64> {
        (0..count).map(|_| f64::from(rng.random_range(low..high) as f32)).collect()
    };
    let log_probs = random(TOKENS, -3.0, 0.0);
    let old: Vec<f64> =
        log_probs.iter().zip(random(TOKENS, -0.6, 0.6)).map(|(x, d)| x + d).collect();
    let reference = random(TOKENS, -3.0, 0.0);
    let entropy = random(TOKENS, 0.0, 5.0);
    let advantages = random(if case.by_token { TOKENS } else { 5 }, -2.0, 2.0);
    let ids: Vec<i64> = (0..TOKENS as i64).map(|t| if t % 5 == 3 { -100 } else { t }).collect();
    let weights: Vec<f32> = (0..TOKENS).map(|t| [1.0, 0.5, 0.0, 2.0][t % 4]).collect();
    let counted = |t: usize| ids[t] != -100 && weights[t] != 0.0;
    let counts: Vec<f64> = OFFSETS
        .windows(2)
        .map(|w| (w[0] as usize..w[1] as usize).filter(|&t| counted(t)).count() as f64)
        .collect();
    let given = if case.by_token {
        Advantages::per_token(&advantages)
    } else {
        Advantages::per_sequence(advantages.clone()).unwrap()
    };
    let batch = Batch::new(Labels::new(&ids[..]), Packing::new(&OFFSETS).unwrap())
        .and_then(|batch| batch.with_weights(Weights::new(&weights[..])?))
        .and_then(|batch| batch.with_old(ReferenceLogProbs::per_token(&old)))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&reference)))
        .and_then(|batch| batch.with_advantages(given))
        .and_then(|batch| batch.with_sequence_weights(&[1.0, 1.0, -0.5, 2.0, 0.0]))
        .unwrap();
    let term = Term::new(objective.clone())
        .with_sequences(Sequences::Indices(vec![3, 0, 4, 1, 2]))
        .with_weight(0.7)
        .with_reduction(case.reduction);
    let term = term.resolve(&batch).unwrap().place(backend, &batch).unwrap();
    let packing = batch.packing().place(backend).unwrap();
    let place = |values: &[f64]| Placed::floats(backend, DType::F32, values);
    let (log_probs, entropy) = (place(&log_probs), place(&entropy));
    let (old, reference) = (Placed::new(backend, &old), place(&reference));
    let (advantages, counts) = (Placed::new(backend, &advantages), Placed::new(backend, &counts));
    let (ids, weights) = (Placed::new(backend, &ids), Placed::new(backend, &weights));
    let upstream = Placed::new(backend, &[0.5, -1.0, 2.0, 1.0, 0.0]);
    let mut losses = Placed::poisoned::<f64>(backend, 5);
    let mut grads = [(); 2].map(|()| Placed::new(backend, &[0.25_f32; TOKENS]));
    let [by_log_prob, by_entropy] = grads.each_mut().map(Placed::slice_mut);
    let outputs = TokenObjectiveOutputs {
        losses: losses.slice_mut(),
        grads: Some((
            TokenObjectiveGrads { log_probs: by_log_prob, entropy: Some(by_entropy) },
            match case.given_scale {
                true => UnitScale::Given(upstream.slice()),
                false => UnitScale::Reduced(-1.5),
            },
        )),
    };
    let inputs = TokenInputs {
        log_probs: log_probs.slice(),
        old: case.old.then(|| old.slice()),
        reference: Some(reference.slice()),
        entropy: Some(entropy.slice()),
        advantages: Some(match case.by_token {
            true => TokenAdvantages::Tokens(advantages.slice()),
            false => TokenAdvantages::Sequences(advantages.slice()),
        }),
    };
    let labels = Labels::from_slice(ids.slice()).unwrap();
    let weights = Weights::from_slice(weights.slice()).unwrap();
    let tokens = (Tokens::new(&labels, Some(&weights)).unwrap(), &packing);
    let stage = TokenObjective::new(backend, &term, tokens, (inputs, counts.slice()), outputs);
    backend.token_objective(stage.unwrap()).unwrap();
    let [by_log_prob, by_entropy] = grads.map(|grads| grads.slice().to_vec().unwrap());
    [losses.read(), by_log_prob, by_entropy]
}

/// The fast backends have the reference's numbers: on the CPU its bits, on a device as far as the order
/// of f64 sums and 2 ulp of the exponential allow; gradients are rounded to f32 twice.
#[test]
fn every_backend_has_the_numbers_of_the_reference() {
    let cases = [
        (true, false, Reduction::SequenceMean, false),
        (false, true, Reduction::TokenMean, false),
        (true, true, Reduction::Divisor(50.0), false),
        (true, false, Reduction::Sum, true),
    ];
    for objective in on_tokens() {
        for (old, by_token, reduction, given_scale) in cases {
            let case = Case { old, by_token, reduction, given_scale };
            let expected = run(&Reference::new(), &objective, case);
            assert!(expected.iter().flatten().all(|x| x.is_finite()), "{objective:?}");
            for backend in backends() {
                let got = run(&*backend, &objective, case);
                assert_eq!(run(&*backend, &objective, case), got, "{objective:?} {backend:?}");
                if backend.name() != "cuda" {
                    assert_eq!(got, expected, "{objective:?} {backend:?}");
                    continue;
                }
                for (what, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    let largest = expected.iter().fold(0.0_f64, |a, &b| a.max(b.abs()));
                    // A sum of 700 terms in another order, whose exponent carries a sum of 700 too.
                    let bound = if what == 0 { 1e-12 } else { 2f64.powi(-22) } * largest;
                    for (got, expected) in got.iter().zip(expected) {
                        let error = (got - expected).abs();
                        assert!(error <= bound, "{objective:?} {what}: {got} for {expected}");
                    }
                }
            }
        }
    }
}

/// CISPO and VESPO are REINFORCE whose advantage has a factor of the ratio, a constant for the gradient, and
/// so is the factor of a penalty that is corrected by a fixed ratio.
#[test]
fn constant_ratios() {
    let cispo = Cispo::new(1.2).with_floor(0.9);
    let vespo = Vespo::new().with_k_negative(1.5).with_lambda_negative(0.5);
    for seed in 0..100 {
        let check = |objective: AnyObjective, factor: &dyn Fn(&[Response]) -> f64| {
            let (responses, given) = random_unit(seed, &objective);
            let got = objective.evaluate(&responses, given);
            let slope = -factor(&responses) * responses[0].score;
            approx::assert_relative_eq!(got.grads[0], slope, max_relative = 1e-12);
            approx::assert_relative_eq!(
                got.loss,
                slope * responses[0].policy,
                max_relative = 1e-12
            );
            assert_eq!(got.grads[1..], [0.0; 3]);
        };
        check(AnyObjective::new(cispo), &|responses| {
            (responses[0].policy - responses[0].old).exp().clamp(0.9, 1.2)
        });
        check(AnyObjective::new(vespo), &|responses| {
            let ratio = responses[1].policy.exp();
            let (k, lambda) = if responses[0].score < 0.0 { (1.5, 0.5) } else { (2.0, 3.0) };
            ratio.powf(k) * (lambda * (1.0 - ratio)).exp()
        });
        let kl = KlPenalty::new().with_input_limit(2.0);
        let fixed = AnyObjective::new(kl.with_importance(Importance::FixedToken));
        let (responses, given) = random_unit(seed, &fixed);
        let [got, free] = [fixed, AnyObjective::new(kl)].map(|kl| kl.evaluate(&responses, given));
        let ratio = (responses[0].policy - responses[0].old).exp();
        approx::assert_relative_eq!(got.loss, ratio * free.loss, max_relative = 1e-12);
        approx::assert_relative_eq!(got.grads[0], ratio * free.grads[0], max_relative = 1e-12);
        assert_eq!(got.grads[1..], [0.0; 3]);
    }
}

/// TRL's bounds of the ratio, and an advantage of 0 counts as positive.
#[test]
fn vespo_at_its_bounds() {
    let weight = |log_ratio: f64, advantage: f64| {
        let token = Response::new(-1.0, 1.0).with_old(-1.0).with_score(advantage);
        let responses = [token, Response::new(log_ratio, 3.0), token, token];
        let objective = AnyObjective::new(Vespo::new());
        -objective.evaluate(&responses, Given::NEUTRAL).grads[0] / advantage
    };
    assert_eq!(weight(0.0, 2.0), 1.0);
    assert_eq!(weight(0.0, -2.0), 1.0);
    assert_eq!(weight(f64::INFINITY, 1.0), 0.0);
    let least = weight(f64::NEG_INFINITY, 1.0);
    approx::assert_relative_eq!(least, 1e-16 * 3.0_f64.exp(), max_relative = 1e-7);
    assert_eq!(weight(-19.0, 1.0), least);
}

/// A ratio on the clip's edge has the gradient of the inside, torch's, whichever sign its advantage has; one
/// beyond it has none where the advantage asks for more.
#[test]
fn at_the_edges_of_the_clip() {
    let at = |objective: AnyObjective, log_ratio: f64, advantage: f64| {
        let token = Response::new(-1.0, 1.0).with_old(-1.0 - log_ratio).with_score(advantage);
        let (unused, tokens) = (Response::default(), 4.0);
        // GSPO's ratio is of the mean, RLOO's of the sum.
        let sum = if objective.name() == "Gspo" { tokens * log_ratio } else { log_ratio };
        let responses = [token, Response::new(sum, tokens), unused, unused];
        let got = objective.evaluate(&responses, Given::NEUTRAL);
        let slopes = if objective.name() == "Gspo" { tokens } else { 1.0 };
        (got.loss, got.grads[0] + got.grads[1] * slopes)
    };
    for log_ratio in [0.25, -0.25] {
        let (ratio, _) = at(AnyObjective::new(PpoClip::new(0.9, 9.0)), log_ratio, -1.0);
        let edge = (ratio - 1.0).abs();
        assert!(1.0 - edge == ratio || 1.0 + edge == ratio);
        let clips = |epsilon: f64| {
            [
                AnyObjective::new(PpoClip::new(epsilon, epsilon)),
                AnyObjective::new(Gspo::new(epsilon, epsilon)),
                AnyObjective::new(Rloo::new(epsilon)),
            ]
        };
        for advantage in [2.0, -2.0] {
            let full = -ratio * advantage;
            for objective in clips(edge) {
                assert_eq!(
                    at(objective.clone(), log_ratio, advantage),
                    (full, full),
                    "{objective:?}"
                );
            }
            for objective in clips(0.99 * edge) {
                let beyond = if log_ratio * advantage > 0.0 { 0.0 } else { full };
                assert_eq!(at(objective.clone(), log_ratio, advantage).1, beyond, "{objective:?}");
            }
        }
    }
    // TRL's delta within the clip holds the ratio beside it alone.
    let capped = || AnyObjective::new(PpoClip::new(0.2, 0.5).with_ratio_cap(1.125));
    let (ratio, _) = at(AnyObjective::new(PpoClip::new(0.9, 9.0)), 0.25, -1.0);
    assert_eq!(at(capped(), 0.25, -1.0), (ratio, ratio));
    assert_eq!(at(capped(), 0.25, 1.0), (-1.125, 0.0));
}

/// An estimate that just reaches its limit is not held; beyond it there is no gradient.
#[test]
fn at_the_limits_of_an_estimate() {
    for difference in [0.25, -0.25] {
        let at = |objective: AnyObjective| {
            let other = -1.0 - difference;
            let token = Response::new(-1.0, 1.0).with_old(other).with_reference(other);
            let responses = [token, Response::default(), Response::default(), Response::default()];
            let got = objective.evaluate(&responses, Given::NEUTRAL);
            (got.loss, got.grads[0])
        };
        let check = |limited: &dyn Fn(f64) -> AnyObjective, limit: f64| {
            let (free, edge) = (at(limited(10.0 * limit)), at(limited(limit)));
            assert!(edge == free && free.1 != 0.0, "{:?}: {edge:?} {free:?}", limited(limit));
            assert_eq!(at(limited(0.99 * limit)).1, 0.0);
        };
        for estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
            let kl = KlPenalty::new().with_estimator(estimator);
            check(&|limit| AnyObjective::new(kl.with_input_limit(limit)), 0.25);
            let estimate = at(AnyObjective::new(kl)).0.abs();
            check(&|limit| AnyObjective::new(kl.with_output_limit(limit)), estimate);
        }
        let estimate = at(AnyObjective::new(TrustRegion::new())).0;
        check(&|limit| AnyObjective::new(TrustRegion::new().with_limit(limit)), estimate);
    }
}

/// A log-ratio on GMPO's edge has the gradient of the inside.
#[test]
fn at_the_edge_of_a_geometric_mean() {
    let (data, labels) = ([0.5, -1.0, 2.0], Labels::new(&[1]));
    for sign in [1.0, -1.0] {
        let run = |epsilon: f64, old: f64| {
            let batch = Batch::new(labels.clone(), Packing::new(&[0, 1]).unwrap())
                .and_then(|batch| batch.with_old(ReferenceLogProbs::per_token(&[old])))
                .and_then(|batch| batch.with_advantages(Advantages::per_sequence(vec![sign])?));
            let term = Term::tokens(Gmpo::new(epsilon), Sequences::All);
            let loss = Loss::new(batch.unwrap(), [term]).unwrap();
            let found = forward(&loss, &Reference::new(), &data);
            let grads = gradient(&loss, &Reference::new(), &found, &data, Upstream::Loss(1.0));
            (found.tokens().log_probs().to_vec().unwrap()[0], found.loss(), grads)
        };
        let old = run(1.0, 0.0).0 - sign * 0.25;
        let (log_prob, free, full) = run(1.0, old);
        let edge = (log_prob - old).abs();
        assert_eq!(run(edge, old), (log_prob, free, full.clone()));
        assert!(full.iter().all(|&grad| grad != 0.0));
        assert_eq!(run(0.99 * edge, old).2, [0.0; 3]);
    }
}

/// Log-ratios of +-1000 saturate where the loss is clipped, and are never NaN.
#[test]
fn extremes() {
    for objective in on_tokens() {
        for (policy, old) in [(-1e3, 0.0), (0.0, -1e3), (-1.0, -1.0), (0.0, 0.0)] {
            for advantage in [-1.0, 0.0, 1.0] {
                let token = Response::new(policy, 1.0)
                    .with_old(old)
                    .with_reference(old)
                    .with_score(advantage);
                let sequence = Response::new(policy - old, 1.0);
                let responses = [token, sequence, Response::new(0.0, 1.0), Response::default()];
                let got = objective.evaluate(&responses, Given::NEUTRAL);
                let all = got.grads.iter().chain([&got.loss]);
                let what = format!("{objective:?} {policy} {old} {advantage} {got:?}");
                assert!(all.clone().all(|x| !x.is_nan()), "{what}");
                // An unclipped ratio of exp(1000) is beyond f64.
                let finite = policy <= old || objective.name() == "PpoClip" && advantage >= 0.0;
                assert!(!finite || all.clone().all(|x| x.is_finite()), "{what}");
            }
        }
    }
}

/// The gradient by the logits against differences of the whole loss: token ratios, sequence ratios with
/// and without clipped terms, KL with importance, entropy, weights and masks, all at once.
#[test]
fn from_logits_to_gradient() {
    let (tokens, vocab) = (24, 5);
    let data: Vec<f64> =
        logits::<f32>(3, tokens, vocab).iter().map(|&x| f64::from(x) / 8.0).collect();
    let ids = labels(3, &data, vocab);
    let packing = Packing::new(&[0, 5, 5, 13, 17, 23, 24]).unwrap();
    let weights: Vec<f32> = (0..tokens).map(|t| [1.0, 0.5, 0.0, 2.0][t % 4]).collect();
    let near =
        |shift: f64| (0..tokens).map(|t| -1.6 + shift * (t as f64).sin()).collect::<Vec<_>>();
    let batch = Batch::new(Labels::new(&ids[..]), packing)
        .and_then(|batch| batch.with_weights(Weights::new(&weights[..])?))
        .and_then(|batch| batch.with_old(ReferenceLogProbs::per_token(&near(0.3))))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&near(-0.5))))
        .and_then(|batch| {
            batch.with_advantages(Advantages::per_sequence(&[1.0, 0.5, -1.5, 0.7, -0.2, 2.0])?)
        })
        .unwrap();
    let all = || Sequences::All;
    let terms = [
        Term::tokens(PpoClip::new(0.2, 0.28), all()).with_reduction(Reduction::SequenceMean),
        Term::tokens(Gspo::new(0.4, 0.5), Sequences::Indices(vec![2, 0])).with_weight(0.5),
        Term::tokens(Gmpo::new(0.4), all()).with_reduction(Reduction::TokenMean),
        Term::tokens(Rloo::new(0.9), all()).with_reduction(Reduction::Divisor(6.0)),
        Term::tokens(KlPenalty::new().with_importance(Importance::Sequence), all())
            .with_weight(0.04),
        Term::tokens(EntropyBonus::new(), all()).with_weight(0.3),
        Term::sequences(prefuse::objectives::Nll::new(), all()).with_weight(0.01),
    ];
    let loss = Loss::new(batch, terms).unwrap();
    let value = |data: &[f64]| forward(&loss, &Reference::new(), data).loss();
    let truth = forward(&loss, &Reference::new(), &data);
    let grads = gradient(&loss, &Reference::new(), &truth, &data, Upstream::Loss(1.0));
    let mut kinks = 0;
    for (index, &got) in grads.iter().enumerate() {
        let at = |shift: f64| {
            let mut data = data.clone();
            data[index] += shift;
            value(&data)
        };
        let step = 1e-4;
        let central = |h: f64| (at(h) - at(-h)) / (2.0 * h);
        let (coarse, fine) = (central(step), central(step / 2.0));
        if (coarse - fine).abs() > 1e-6 {
            kinks += 1;
            continue;
        }
        approx::assert_relative_eq!(got, fine, epsilon = 2e-8, max_relative = 1e-6);
    }
    assert!(kinks < 4, "{kinks}");
    // Every backend has these numbers.
    for backend in backends().iter().filter(|b| b.dtypes().contains(&DType::F32)) {
        // Loss and gradients of some 100: an ulp each of the upstream gradient, the exponential, the log-sum's and
        // the product.
        let relative = 4.0 * f64::from(f32::EPSILON);
        let narrow: Vec<f32> = data.iter().map(|&x| x as f32).collect();
        let got = forward(&loss, &**backend, &narrow);
        let (value, true_value) = (got.loss(), truth.loss());
        approx::assert_relative_eq!(value, true_value, epsilon = 1e-5, max_relative = relative);
        let ours = gradient(&loss, &**backend, &got, &narrow, Upstream::Loss(1.0));
        for (got, expected) in ours.iter().zip(&grads) {
            approx::assert_relative_eq!(
                f64::from(*got),
                expected,
                epsilon = 1e-5,
                max_relative = relative
            );
        }
    }
}

#[test]
fn bad_calls() {
    let ready =
        || Batch::new(Labels::new(&[1, 2, 0, 1]), Packing::new(&[0, 2, 4]).unwrap()).unwrap();
    let advantages = || Advantages::per_sequence(&[1.0, -1.0]).unwrap();
    let one = |batch, term| Loss::new(batch, [term]);
    let ppo = || Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All);
    refused(one(ready(), ppo()), "PpoClip: expected a batch with advantages, got none");
    refused(
        Advantages::per_sequence(&[1.0, f64::NAN]),
        "advantage of sequence 1: expected a finite number, got NaN",
    );
    refused(
        ready().with_advantages(Advantages::per_sequence(&[1.0]).unwrap()),
        "advantages: expected length 2, got 1",
    );
    refused(
        ready().with_advantages(Advantages::per_token(&[1.0; 3])),
        "advantages: expected length 4, got 3",
    );
    refused(
        ready().with_old(ReferenceLogProbs::per_token(&[1.0; 3])),
        "old log-probs: expected length 4, got 3",
    );
    refused(
        ready().with_old(ReferenceLogProbs::per_sequence(&[1.0; 2])),
        "batch: expected old log-probs per token, got sums per sequence",
    );
    let with = || ready().with_advantages(advantages()).unwrap();
    let twice = Sequences::Indices(vec![1, 0, 1]);
    refused(
        one(with(), Term::tokens(PpoClip::new(0.2, 0.2), twice)),
        "PpoClip: expected each sequence once, got sequence 1 again at 2",
    );
    refused(
        one(with(), Term::tokens(KlPenalty::new(), Sequences::All)),
        "KlPenalty: expected a batch with reference log-probs, got none",
    );
    let sums = ready().with_reference(ReferenceLogProbs::per_sequence(&[-1.0; 2])).unwrap();
    refused(
        one(sums, Term::tokens(KlPenalty::new(), Sequences::All)),
        "KlPenalty: expected reference log-probs per token, got sums per sequence",
    );
    let old = with().with_old(ReferenceLogProbs::per_token(&[-1.0; 4])).unwrap();
    refused(
        one(old, Term::tokens(Reinforce::new(), Sequences::All)),
        "old log-probs: expected a term that uses them, got none",
    );
    refused(
        one(with(), Term::tokens(EntropyBonus::new(), Sequences::All)),
        "advantages: expected a term that uses them, got none",
    );
    let scalars = Batch::of_sequences(2).unwrap().with_advantages(advantages()).unwrap();
    refused(
        prefuse::ScalarLoss::new(scalars, [ppo()]),
        "PpoClip: expected a batch with tokens, got none",
    );
}
