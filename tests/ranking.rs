//! Stage 3 over groups: softmaxes over ranked responses, and pairs within groups.

use prefuse::batch::{Batch, Groups, Labels, Packing, ReferenceLogProbs};
use prefuse::objectives::{
    AnyObjective, BradleyTerry, Dpo, Given, Ranking, RankingValue, Reduction, Response,
};
use prefuse::stages::{Ranking as Stage, RankingOutputs, Totals, UnitScale};
use prefuse::{Backend, Loss, Reference, ScalarLoss, Slice, Term, Upstream};
use rand::RngExt;

use crate::backends::backends;
use crate::common::{Placed, forward, gradient, labels, logits, refused, rng};
use crate::units::single_tokens;

fn rankings() -> [Ranking; 6] {
    [
        Ranking::plackett_luce(0.1),
        Ranking::plackett_luce(1.0).with_value(RankingValue::Sum),
        Ranking::pro(),
        Ranking::pro().with_value(RankingValue::Sum).with_scale(0.5),
        Ranking::info_nca(0.1, 0.5),
        Ranking::steer_lm().with_value(RankingValue::Average),
    ]
}

fn group(seed: u64, count: usize) -> Vec<Response> {
    let mut rng = rng(seed);
    let mut score = 2.0;
    (0..count)
        .map(|_| {
            score -= rng.random::<f64>() * if count > 50 { 0.02 } else { 1.0 };
            let (policy, reference) = (-20.0 * rng.random::<f64>(), -20.0 * rng.random::<f64>());
            Response::new(policy, rng.random_range(1..30) as f64)
                .with_reference(reference)
                .with_score(score)
        })
        .collect()
}

#[test]
fn gradients_are_finite_differences() {
    for ranking in rankings() {
        for seed in 0..200 {
            let group = group(seed, 2 + seed as usize % 7);
            let mut grads = vec![f64::NAN; group.len()];
            let loss = ranking.evaluate(&group, &mut grads);
            assert!(loss >= -1e-12, "{ranking:?}");
            for (index, &got) in grads.iter().enumerate() {
                let at = |shift: f64| {
                    let mut group = group.clone();
                    group[index].policy += shift;
                    ranking.evaluate(&group, &mut vec![0.0; group.len()])
                };
                let central = |h: f64| (at(h) - at(-h)) / (2.0 * h);
                let (coarse, fine) = (central(1e-3), central(5e-4));
                let bound = (coarse - fine).abs() + 1e-11 * (1.0 + loss);
                let expected = (4.0 * fine - coarse) / 3.0;
                assert!((got - expected).abs() <= bound, "{ranking:?} {got} for {expected}");
            }
        }
    }
}

/// Of two responses Plackett-Luce is DPO, PRO logistic in the gap, and InfoNCA with a certain target DPO.
#[test]
fn two_responses() {
    for seed in 0..50 {
        let pair = group(seed, 2);
        let responses = [pair[0], pair[1], Response::default(), Response::default()];
        let dpo = AnyObjective::new(Dpo::new(0.3)).evaluate(&responses, Given::NEUTRAL);
        let mut grads = [0.0; 2];
        let close = |a: f64, b: f64| approx::assert_relative_eq!(a, b, max_relative = 1e-12);
        close(Ranking::plackett_luce(0.3).evaluate(&pair, &mut grads), dpo.loss);
        close(grads[0], dpo.grads[0]);
        close(grads[1], dpo.grads[1]);
        close(Ranking::info_nca(0.3, 1e-6).evaluate(&pair, &mut grads), dpo.loss);
        let average = |r: &Response| r.policy / r.tokens;
        let gap = pair[0].score - pair[1].score;
        let u = gap * (average(&pair[0]) - average(&pair[1]));
        close(Ranking::pro().evaluate(&pair, &mut grads), (-u).exp().ln_1p());
    }
}

/// Values of +-1000, scores of +-1000, ties, responses without tokens.
#[test]
fn extremes_are_finite() {
    for ranking in rankings() {
        for values in [[-1e3, 0.0, -1e3], [0.0, -1e3, -1e3], [0.0; 3]] {
            for scores in [[1e3, 0.0, -1e3], [1.0; 3]] {
                for tokens in [0.0, 3.0] {
                    let group: Vec<Response> = values
                        .iter()
                        .zip(scores)
                        .map(|(&policy, score)| Response::new(policy, tokens).with_score(score))
                        .collect();
                    let mut grads = [f64::NAN; 3];
                    let loss = ranking.evaluate(&group, &mut grads);
                    let all = grads.iter().chain([&loss]);
                    assert!(all.clone().all(|x| x.is_finite()), "{ranking:?} {group:?} {grads:?}");
                }
            }
        }
    }
}

/// The kernel's groups of 2 to 1024: on the CPU the reference's bits, on a device its numbers. The long
/// ones, whose choices are half a million, once for each kind.
#[test]
fn the_stage_on_every_backend() {
    for (index, ranking) in rankings().into_iter().enumerate() {
        for reduction in [Reduction::Mean, Reduction::TokenMean, Reduction::Sum] {
            compare(ranking, reduction, &[2, 3, 33, 70, 2, 5]);
        }
        if index % 2 == 0 {
            compare(ranking, Reduction::Mean, &[2, 1024, 3]);
        }
    }
}

fn compare(ranking: Ranking, reduction: Reduction, sizes: &[usize]) {
    let expected = run(&Reference::new(), ranking, reduction, sizes);
    assert!(expected.iter().flatten().all(|x| x.is_finite()), "{ranking:?}");
    for backend in backends() {
        let got = run(&*backend, ranking, reduction, sizes);
        if sizes.len() > 3 {
            let again = run(&*backend, ranking, reduction, sizes);
            assert_eq!(again, got, "{ranking:?} {backend:?}");
        }
        if backend.name() != "cuda" {
            assert_eq!(got, expected, "{ranking:?} {backend:?}");
            continue;
        }
        for (got, expected) in got.iter().zip(&expected) {
            // Exponentials right to 2 ulp, summed over up to 1024 in another order.
            let largest = expected.iter().fold(0.0_f64, |a, &b| a.max(b.abs()));
            for (got, expected) in got.iter().zip(expected) {
                let bound = 1e-12 * largest;
                assert!((got - expected).abs() <= bound, "{ranking:?} {got} {expected}");
            }
        }
    }
}

/// Losses and gradients of ragged groups, out of the pack's order.
fn run(
    backend: &dyn Backend,
    ranking: Ranking,
    reduction: Reduction,
    sizes: &[usize],
) -> [Vec<f64>; 2] {
    let sequences: usize = sizes.iter().sum::<usize>() + 1;
    let responses: Vec<Response> =
        sizes.iter().enumerate().flat_map(|(seed, &size)| group(seed as u64, size)).collect();
    // The first sequence is in no group, the others stand backwards.
    let members: Vec<usize> = (1..sequences).rev().collect();
    let mut by_sequence = vec![Response::new(-1.0, 1.0); sequences];
    members.iter().zip(&responses).for_each(|(&sequence, &r)| by_sequence[sequence] = r);
    let column = |of: fn(&Response) -> f64| by_sequence.iter().map(of).collect::<Vec<f64>>();
    let weights = [1.0, 0.5, -1.0, 2.0, 0.0, 1.0][..sizes.len()].to_vec();
    let groups =
        Groups::new(members, sizes).and_then(|groups| groups.with_weight(weights)).unwrap();
    let reference = column(|r| r.reference);
    let batch = single_tokens(sequences, &reference)
        .with_scores(column(|r| r.score))
        .and_then(|batch| batch.with_groups(groups))
        .unwrap();
    let term = Term::groups(ranking).with_weight(0.7).with_reduction(reduction);
    let term = term.resolve(&batch).unwrap().place(backend, &batch).unwrap();
    let [sums, tokens, reference] =
        [column(|r| r.policy), column(|r| r.tokens), reference].map(|x| Placed::new(backend, &x));
    let mut losses = Placed::poisoned::<f64>(backend, sizes.len());
    let mut grads = Placed::new(backend, &vec![0.25; sequences]);
    let mut scratch = Placed::poisoned::<f64>(backend, backend.ranking_scratch(sequences - 1));
    let outputs = RankingOutputs {
        losses: losses.slice_mut(),
        grads: Some((grads.slice_mut(), UnitScale::Reduced(-1.5))),
    };
    let totals = Totals { sums: sums.slice(), tokens: tokens.slice(), weights: tokens.slice() };
    let inputs = (totals, Some(reference.slice()));
    let stage = Stage::new(backend, &term, inputs, outputs, scratch.slice_mut()).unwrap();
    backend.ranking(stage).unwrap();
    [losses.read(), grads.read()]
}

/// From logits to gradient: a ranking beside a likelihood and pairs of the same groups.
#[test]
fn in_a_loss() {
    let (tokens, vocab) = (24, 33);
    let data: Vec<f32> = logits(3, tokens, vocab);
    let ids = labels(3, &data, vocab);
    let scores = [1.0, 0.5, 3.0, 2.0, 0.0, 0.25];
    let groups = || Groups::new(vec![2, 3, 4, 0, 1], &[3, 2]).unwrap();
    let batch =
        Batch::new(Labels::new(&ids[..]), Packing::new(&[0, 5, 5, 13, 17, 23, 24]).unwrap())
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&[-3.0; 24])))
            .and_then(|batch| batch.with_scores(&scores))
            .and_then(|batch| batch.with_groups(groups()))
            .and_then(|batch| batch.with_pairs(groups().pairs(&scores)?))
            .unwrap();
    let terms = [
        Term::groups(Ranking::pro()),
        Term::groups(Ranking::plackett_luce(0.1)).with_weight(0.5),
        Term::pairs(Dpo::new(0.1)).with_weight(0.1),
    ];
    let loss = Loss::new(batch, terms).unwrap();
    let exact: Vec<f64> = data.iter().map(|&x| f64::from(x)).collect();
    let truth = forward(&loss, &Reference::new(), &exact);
    let expected = gradient(&loss, &Reference::new(), &truth, &exact, Upstream::Loss(1.0));
    assert_eq!(truth.terms()[0].losses.len(), 2);
    for backend in backends().iter().filter(|b| b.dtypes().contains(&prefuse::DType::F32)) {
        let got = forward(&loss, &**backend, &data);
        // Average log-probs are right to 2e-6, times gaps of 3.
        approx::assert_relative_eq!(got.loss(), truth.loss(), epsilon = 1e-4);
        let upstream = [&[1.0, -1.0][..], &[0.5, 0.0], &[0.0, 0.0, 1.0, 2.0]];
        gradient(&loss, &**backend, &got, &data, Upstream::Units(&upstream));
        let grads = gradient(&loss, &**backend, &got, &data, Upstream::Loss(1.0));
        for (got, expected) in grads.iter().zip(&expected) {
            approx::assert_relative_eq!(f64::from(*got), expected, epsilon = 1e-4);
        }
    }
}

/// All pairs of a ranked list under Bradley-Terry, on rewards: the gradient that the papers state.
#[test]
fn all_pairs_of_a_list() {
    let rewards = [0.3, -1.0, 2.0, 0.5];
    let ranks = [3.0, 2.0, 1.0, 0.0];
    let groups = Groups::consecutive(&[4]).unwrap();
    let batch =
        Batch::of_sequences(4).and_then(|batch| batch.with_pairs(groups.pairs(&ranks)?)).unwrap();
    let loss = ScalarLoss::new(batch, [Term::reward_pairs(BradleyTerry::new())]).unwrap();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for backend in backends() {
        let forward = loss.forward(&*backend, Slice::new(&rewards), None).unwrap();
        let grads = forward.grads(&*backend, Upstream::Loss(1.0)).unwrap();
        for i in 0..4 {
            let worse: f64 = (i + 1..4).map(|j| sigmoid(rewards[j] - rewards[i])).sum();
            let better: f64 = (0..i).map(|j| sigmoid(rewards[i] - rewards[j])).sum();
            approx::assert_relative_eq!(grads[i], (better - worse) / 6.0, max_relative = 1e-12);
        }
    }
}

#[test]
fn bad_groups() {
    refused(Groups::new(vec![], &[]), "groups: expected at least 1, got 0");
    refused(Groups::consecutive(&[2, 1]), "group 1: expected at least 2 sequences, got 1");
    refused(Groups::consecutive(&[2, 0]), "group 1: expected at least 2 sequences, got 0");
    refused(Groups::new(vec![0, 1, 2], &[2]), "group members: expected length 2, got 3");
    refused(
        Groups::new(vec![0, 1, 2, 1], &[2, 2]),
        "group member 3: expected each sequence once, got 1 again",
    );
    let most = usize::MAX;
    refused(
        Groups::consecutive(&[most, most]),
        &format!("group members: expected a number that fits in memory, got {most}"),
    );
    let groups = || Groups::consecutive(&[2, 2]).unwrap();
    refused(groups().with_weight(&[1.0]), "weight: expected length 2, got 1");
    refused(
        groups().with_weight(&[1.0, f64::NAN]),
        "weight of group 1: expected a finite number, got NaN",
    );
    refused(groups().pairs(&[1.0; 3]), "sequence of group member 3: expected below 3, got 3");
    refused(groups().pairs(&[1.0; 4]), "pairs: expected at least 1, got 0");
    refused(
        groups().pairs(&[1.0, f64::NAN, 0.0, 0.0]),
        "score of sequence 1: expected a number, got NaN",
    );
    let batch = |sequences| Batch::of_sequences(sequences).unwrap();
    refused(batch(3).with_groups(groups()), "sequence of group member 3: expected below 3, got 3");
    let with = || batch(4).with_groups(groups()).unwrap();
    let pro = || Term::groups(Ranking::pro().with_value(RankingValue::Sum));
    refused(ScalarLoss::new(batch(4), [pro()]), "Pro: expected a batch with scores, got none");
    let scored = |scores: &'static [f64]| with().with_scores(scores).unwrap();
    refused(
        ScalarLoss::new(batch(4).with_scores(&[1.0; 4]).unwrap(), [pro()]),
        "Pro: expected a batch with groups, got none",
    );
    refused(
        ScalarLoss::new(scored(&[1.0, 0.0, 0.5, 0.75]), [pro()]),
        "Pro: expected the scores of group 1 best first, got 0.75 after 0.5 at 1",
    );
    assert!(ScalarLoss::new(scored(&[1.0, 0.0, 0.5, 0.5]), [pro()]).is_ok());
    refused(
        ScalarLoss::new(scored(&[1.0; 4]), [pro().with_pairs([0])]),
        "Pro: expected all groups, got a selection",
    );
    let listed = Term::groups(Ranking::info_nca(0.1, 0.0));
    refused(
        ScalarLoss::new(scored(&[1.0; 4]), [listed]),
        "temperature of ListCrossEntropy: expected a number from 1e-30 to 1e30, got 0.0",
    );
    refused(
        ScalarLoss::new(scored(&[1.0; 4]), [Term::groups(Ranking::info_nca(0.1, 1.0))]),
        "ListCrossEntropy: expected a batch with reference log-probs, got none",
    );
}
