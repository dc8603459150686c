//! Stage 3 over groups: losses of ranked responses, and pairs within groups.

use prefuse::batch::{Batch, Groups, Labels, Packing, ReferenceLogProbs};
use prefuse::objectives::{
    AnyObjective, Constants, Dpo, Given, NcaPair, Ranking, RankingKind, RankingValue, Reduction,
    Response, ranking_from_named, rankings as listed,
};
use prefuse::stages::{Ranking as Stage, RankingOutputs, Totals, UnitScale};
use prefuse::{Backend, Loss, Reference, ScalarLoss, Term, Upstream};
use rand::RngExt;

use crate::backends::{backends, composed_backends, long_groups_sizes};
use crate::common::{Placed, forward, gradient, labels, logits, refused, rng};
use crate::units::single_tokens;

/// Those of the list, and some with other values.
fn rankings() -> Vec<Ranking> {
    let mut rankings: Vec<_> = listed().iter().map(|listed| listed.example).collect();
    rankings.extend([
        Ranking::plackett_luce(1.0).with_value(RankingValue::Sum),
        Ranking::pro().with_value(RankingValue::Sum).with_scale(0.5),
        Ranking::steer_lm().with_value(RankingValue::Average),
        Ranking::know_pat_released().with_value(RankingValue::Sum).with_scale(0.1),
        Ranking::lipo_lambda_rax(2.0).with_value(RankingValue::Average),
        Ranking::nca(1.0, 0.3).with_value(RankingValue::Sum),
    ]);
    rankings
}

/// The list makes what its functions make, and says what is wrong with a name.
#[test]
fn by_name() {
    for listed in listed() {
        let example = listed.example;
        let all = [("beta", example.scale), ("temperature", example.temperature)];
        let given: Vec<_> =
            all.into_iter().filter(|(name, _)| listed.call.contains(name)).collect();
        assert_eq!(ranking_from_named(listed.name, &given), Ok(example));
    }
    for listed in listed() {
        let made = [("beta", 0.5), ("temperature", 0.5)];
        let made = made.into_iter().filter(|(name, _)| listed.call.contains(name));
        let made: Vec<_> = made.collect();
        for place in 0..made.len() {
            for got in [f64::NAN, f64::INFINITY, 0.0, -0.5, 1e30_f64.next_up()] {
                let mut given = made.clone();
                given[place].1 = got;
                let error = ranking_from_named(listed.name, &given).unwrap_err().to_string();
                let ends = format!("expected a number from 1e-30 to 1e30, got {got:?}");
                assert!(error.contains(given[place].0) && error.ends_with(&ends), "{error}");
            }
        }
    }
    let message = |name, parameters| ranking_from_named(name, parameters).unwrap_err().to_string();
    assert_eq!(
        message("plackett_luce", &[]),
        "objective: expected one of [\"PlackettLuce\"], got plackett_luce"
    );
    assert_eq!(
        message("Nca", &[("beta", 0.1)]),
        "parameter temperature: expected a value, got none"
    );
    assert_eq!(
        message("LipoLambda", &[("beta", 0.0)]),
        "scale (beta): expected a number from 1e-30 to 1e30, got 0.0"
    );
}

/// Best first, where the ranking wants that.
fn group_for(ranking: &Ranking, seed: u64, count: usize) -> Vec<Response> {
    let mut group = group(seed, count);
    if !ranking.is_ordered() {
        group.rotate_left(seed as usize % count);
    }
    group
}

pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The loss of a group that has moved, as its formula is written, with the weights of where it was.
fn with_weights_of(was: &[Response], ranking: &Ranking, moved: &[Response]) -> f64 {
    let count = was.len();
    let values =
        |group: &[Response]| -> Vec<f64> { group.iter().map(|r| ranking.value(r)).collect() };
    let (at, z) = (values(was), values(moved));
    match ranking.kind {
        RankingKind::KnowPat(constants) => {
            let (min, max) =
                at.iter().fold((f64::MAX, f64::MIN), |(min, max), &x| (min.min(x), max.max(x)));
            let term = |i: usize| {
                let worse: f64 = z[i + 1..].iter().map(|&z| softplus(z)).sum();
                let shares = if constants == Constants::Code { count - i - 1 } else { 1 };
                (at[i] - min) / (max - min) * (softplus(-z[i]) + worse / shares as f64)
            };
            let divisor = if constants == Constants::Code { 3 } else { count - 1 };
            (0..count - 1).map(term).sum::<f64>() / divisor as f64
        }
        RankingKind::LipoLambda(constants) => {
            let discount = |i: usize| {
                let rank = 1.0 + at.iter().filter(|&&other| other > at[i]).count() as f64;
                match constants {
                    Constants::Paper => 1.0 / (1.0 + rank).ln(),
                    Constants::Code => count as f64 / (1.0 + rank).log2(),
                }
            };
            let gain = |i: usize| 2.0_f64.powf(was[i].score);
            let pairs = (0..count).flat_map(|i| (0..count).map(move |j| (i, j)));
            pairs
                .filter(|&(i, j)| was[i].score > was[j].score)
                .map(|(i, j)| {
                    let weight = (gain(i) - gain(j)).abs() * (discount(i) - discount(j)).abs();
                    weight * softplus(z[j] - z[i])
                })
                .sum()
        }
        _ => ranking.evaluate(moved, &mut vec![]),
    }
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
            let group = group_for(&ranking, seed, 2 + seed as usize % 7);
            let mut grads = vec![];
            let loss = ranking.evaluate(&group, &mut grads);
            assert!(loss >= -1e-12, "{ranking:?}");
            let written = with_weights_of(&group, &ranking, &group);
            approx::assert_relative_eq!(loss, written, max_relative = 1e-12, epsilon = 1e-12);
            for (index, &got) in grads.iter().enumerate() {
                let at = |shift: f64| {
                    let mut moved = group.clone();
                    moved[index].policy += shift;
                    with_weights_of(&group, &ranking, &moved)
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

/// Of two responses Plackett-Luce is DPO, PRO logistic in the gap, InfoNCA with a certain target DPO, NCA
/// with one its loss of a pair, LiPO-lambda DPO with a weight, and KnowPAT two losses of one response each if the policy ranks them
/// right, and nothing if it does not.
#[test]
fn two_responses() {
    for seed in 0..50 {
        let pair = group(seed, 2);
        let responses = [pair[0], pair[1], Response::default(), Response::default()];
        let dpo = AnyObjective::new(Dpo::new(0.3)).evaluate(&responses, Given::NEUTRAL);
        let mut grads = vec![];
        let close = |a: f64, b: f64| approx::assert_relative_eq!(a, b, max_relative = 1e-12);
        close(Ranking::plackett_luce(0.3).evaluate(&pair, &mut grads), dpo.loss);
        close(grads[0], dpo.grads[0]);
        close(grads[1], dpo.grads[1]);
        close(Ranking::info_nca(0.3, 1e-6).evaluate(&pair, &mut grads), dpo.loss);
        let nca = AnyObjective::new(NcaPair::new(0.3)).evaluate(&responses, Given::NEUTRAL);
        close(Ranking::nca(0.3, 1e-6).evaluate(&pair, &mut grads), nca.loss);
        close(grads[0], nca.grads[0]);
        close(grads[1], nca.grads[1]);
        let average = |r: &Response| r.policy / r.tokens;
        let gap = pair[0].score - pair[1].score;
        let u = gap * (average(&pair[0]) - average(&pair[1]));
        close(Ranking::pro().evaluate(&pair, &mut grads), (-u).exp().ln_1p());
        let gain = pair[0].score.exp2() - pair[1].score.exp2();
        let weight = gain * (1.0 / 2.0_f64.ln() - 1.0 / 3.0_f64.ln());
        close(Ranking::lipo_lambda(0.3).evaluate(&pair, &mut grads), weight * dpo.loss);
        close(grads[0], weight * dpo.grads[0]);
        let right = average(&pair[0]) > average(&pair[1]);
        let both = softplus(-average(&pair[0])) + softplus(average(&pair[1]));
        let expected = if right { both } else { 0.0 };
        close(Ranking::know_pat().evaluate(&pair, &mut grads), expected);
        close(Ranking::know_pat_released().evaluate(&pair, &mut grads), expected / 3.0);
    }
}

/// What is stated of groups in which nothing differs, and of an impossible response: it takes the least
/// weight, and all others the same.
#[test]
fn stated_weights() {
    let with = |values: [f64; 3], scores: [f64; 3]| {
        [0, 1, 2].map(|i| Response::new(values[i], 1.0).with_score(scores[i]))
    };
    let mut grads = vec![];
    let ranked = [2.0, 1.0, 0.0];
    for ranking in [Ranking::know_pat(), Ranking::know_pat_released()] {
        let loss = ranking.evaluate(&with([-0.1; 3], ranked), &mut grads);
        assert_eq!((loss, &grads[..]), (0.0, &[0.0; 3][..]), "{ranking:?}");
    }
    let impossible = with([-0.5, f64::NEG_INFINITY, -0.25], ranked);
    let loss = Ranking::know_pat().evaluate(&impossible, &mut grads);
    approx::assert_relative_eq!(loss, (softplus(0.5) + softplus(-0.25)) / 2.0);
    assert!(grads[1] == 0.0 && grads.iter().all(|grad| grad.is_finite()));
    for ranking in [Ranking::lipo_lambda(0.5), Ranking::lipo_lambda_rax(0.5)] {
        let loss = ranking.evaluate(&with([-0.5, -1.0, -0.25], [1.5; 3]), &mut grads);
        assert_eq!((loss, &grads[..]), (0.0, &[0.0; 3][..]), "{ranking:?}");
    }
    // Equal values have ranks 1, 2, 3 as they stand.
    let loss = Ranking::lipo_lambda(0.5).evaluate(&with([-1.0; 3], [0.0, 2.0, 0.0]), &mut grads);
    let discount = |rank: f64| 1.0 / (1.0 + rank).ln();
    let differences = discount(1.0) - discount(2.0) + discount(2.0) - discount(3.0);
    approx::assert_relative_eq!(loss, 3.0 * differences * 2.0_f64.ln(), max_relative = 1e-15);
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
                    let mut grads = vec![];
                    let loss = ranking.evaluate(&group, &mut grads);
                    let all = grads.iter().chain([&loss]);
                    assert!(all.clone().all(|x| x.is_finite()), "{ranking:?} {group:?} {grads:?}");
                }
            }
        }
    }
}

/// Scores of any size that has a softmax, and the tail of a response that is all but certain.
#[test]
fn nothing_is_lost_far_out() {
    let mut grads = vec![];
    let pair = |values: [f64; 2], scores: [f64; 2]| {
        [0, 1].map(|i| Response::new(values[i], 1.0).with_score(scores[i]))
    };
    let info_nca = Ranking::info_nca(1.0, 1e-30);
    let loss = info_nca.evaluate(&pair([-1.0, -2.0], [1e300, 0.0]), &mut grads);
    approx::assert_relative_eq!(loss, softplus(-1.0), max_relative = 1e-15);
    let loss = info_nca.evaluate(&pair([-1.0, -2.0], [f64::MAX, f64::MIN]), &mut grads);
    approx::assert_relative_eq!(loss, softplus(-1.0), max_relative = 1e-15);
    assert!(!(Ranking::pro().scores().contains)(1.7e308));
    for (values, slope) in [([0.0, -40.0], 1.0), ([-40.0, 0.0], -1.0)] {
        let loss = Ranking::plackett_luce(1.0).evaluate(&pair(values, [0.0; 2]), &mut grads);
        let expected = softplus(values[1] - values[0]);
        approx::assert_relative_eq!(loss, expected, max_relative = 1e-15);
        let share = 1.0 / (1.0 + f64::exp(40.0 * slope));
        approx::assert_relative_eq!(grads[0], -share, max_relative = 1e-15);
        approx::assert_relative_eq!(grads[1], share, max_relative = 1e-15);
        assert!(loss > 4e-18);
    }
}

/// On the CPU the reference's bits, on a device its numbers.
#[test]
fn the_stage_on_every_backend() {
    for ranking in rankings() {
        for reduction in [Reduction::Mean, Reduction::TokenMean, Reduction::Sum] {
            compare(&backends(), ranking, reduction, &[2, 3, 33, 70, 2, 5]);
        }
    }
}

/// Groups with more responses than a kernel has threads, once for each kind and its constants.
#[test]
fn long_groups() {
    let mut kinds = vec![];
    for ranking in listed().into_iter().map(|listed| listed.example) {
        if !kinds.contains(&ranking.kind) {
            for sizes in long_groups_sizes() {
                compare(&composed_backends(), ranking, Reduction::Mean, sizes);
            }
            kinds.push(ranking.kind);
        }
    }
    assert_eq!(kinds.len(), 8);
}

fn compare(backends: &[Box<dyn Backend>], ranking: Ranking, reduction: Reduction, sizes: &[usize]) {
    let expected = run(&Reference::new(), ranking, reduction, sizes);
    assert!(expected.iter().flatten().all(|x| x.is_finite()), "{ranking:?}");
    for backend in backends {
        let got = run(&**backend, ranking, reduction, sizes);
        if sizes.len() > 3 {
            let again = run(&**backend, ranking, reduction, sizes);
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
        sizes.iter().zip(0..).flat_map(|(&size, seed)| group_for(&ranking, seed, size)).collect();
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
        Term::groups(Ranking::know_pat()),
        Term::groups(Ranking::lipo_lambda(0.1)).with_weight(0.1),
        Term::groups(Ranking::nca(0.1, 1.0)),
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
        let groups = [[1.0, -1.0], [0.5, 0.0], [-1.0, 0.0], [0.0, 2.0], [1.0, 1.0]];
        let mut upstream: Vec<&[f64]> = groups.iter().map(|group| &group[..]).collect();
        upstream.push(&[0.0, 0.0, 1.0, 2.0]);
        gradient(&loss, &**backend, &got, &data, Upstream::Units(&upstream));
        let grads = gradient(&loss, &**backend, &got, &data, Upstream::Loss(1.0));
        for (got, expected) in grads.iter().zip(&expected) {
            approx::assert_relative_eq!(f64::from(*got), expected, epsilon = 1e-4);
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
    let know_pat = || Term::groups(Ranking::know_pat());
    // Another term's scores may not contradict an order, though they are not looked at.
    let info_nca = || Term::groups(Ranking::info_nca(1.0, 1.0).with_value(RankingValue::Sum));
    let plackett_luce = Ranking::plackett_luce(1.0).with_value(RankingValue::Sum);
    for (name, ordered) in [("KnowPat", know_pat()), ("PlackettLuce", Term::groups(plackett_luce))]
    {
        let with = |scores| ScalarLoss::new(scored(scores), [ordered.clone(), info_nca()]);
        let message = "expected the scores of group 1 best first, got 0.75 after 0.5 at 1";
        refused(with(&[1.0, 0.0, 0.5, 0.75]), &format!("{name}: {message}"));
        assert!(with(&[1.0, 1.0, 0.75, 0.5]).is_ok());
    }
    refused(
        ScalarLoss::new(batch(4), [know_pat()]),
        "KnowPat: expected a batch with groups, got none",
    );
    let lipo = || Term::groups(Ranking::lipo_lambda(0.1).with_value(RankingValue::Sum));
    refused(
        ScalarLoss::new(with(), [lipo()]),
        "LipoLambda: expected a batch with scores, got none",
    );
    assert!(ScalarLoss::new(scored(&[0.0, 1.0, 500.0, -1e300]), [lipo()]).is_ok());
    refused(
        ScalarLoss::new(scored(&[0.0, 1.0, 0.0, 501.0]), [lipo()]),
        "score of sequence 3: expected a number up to 500, got 501.0",
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
