//! Losses of groups as losses of a reward model, by their formulas.

use prefuse::batch::{Batch, Groups};
use prefuse::objectives::{BradleyTerry, Ranking, RankingValue, Reduction, Slic};
use prefuse::{ScalarLoss, Slice, Term, Upstream};

use crate::backends::composed_backends;
use crate::ranking::softplus;

/// What is written for log-ratios and averages is as well a loss of rewards: each as its formula has it, with
/// the gradient of what it is summed from. Weights are those of the first rewards.
#[test]
fn on_rewards() {
    let rewards = [0.4, 1.5, -0.75, 0.1];
    let scores = [2.0, 1.0, 0.5, -1.0];
    let sum = |terms: &mut dyn Iterator<Item = f64>| terms.sum::<f64>();
    let log_sum = move |z: &[f64]| sum(&mut z.iter().map(|z| z.exp())).ln();
    let targets = |temperature: f64| {
        let all = sum(&mut scores.iter().map(|score| (score / temperature).exp()));
        scores.map(|score| (score / temperature).exp() / all)
    };
    let entropy = |scale: f64, q: [f64; 4], r: &[f64; 4]| {
        let z = r.map(|r| scale * r);
        sum(&mut (0..4).map(|i| q[i] * (log_sum(&z) - z[i])))
    };
    let pairs = || (0..4).flat_map(|i| (i + 1..4).map(move |j| (i, j)));
    type Formula<'a> = dyn Fn(&[f64; 4]) -> f64 + 'a;
    let written: [(Ranking, Box<Formula<'_>>); 7] = [
        (
            Ranking::plackett_luce(0.5),
            Box::new(|r| {
                let z = r.map(|r| 0.5 * r);
                sum(&mut (0..4).map(|k| log_sum(&z[k..]) - z[k]))
            }),
        ),
        (
            Ranking::pro(),
            Box::new(|r| {
                let stage = |k: usize| {
                    let own = r[k] * (scores[k] - scores[3]);
                    let others = (k + 1..4).map(|j| r[j] * (scores[k] - scores[j]));
                    log_sum(&[own].into_iter().chain(others).collect::<Vec<_>>()) - own
                };
                sum(&mut (0..3).map(stage))
            }),
        ),
        (Ranking::info_nca(0.5, 0.25), Box::new(|r| entropy(0.5, targets(0.25), r))),
        (Ranking::steer_lm(), Box::new(|r| entropy(1.0, targets(1.0), r))),
        (
            Ranking::nca(0.5, 0.25),
            Box::new(|r| {
                let q = targets(0.25);
                let term = |i: usize| q[i] * softplus(-0.5 * r[i]) + softplus(0.5 * r[i]) / 4.0;
                sum(&mut (0..4).map(term))
            }),
        ),
        (
            Ranking::know_pat(),
            Box::new(|r| {
                let weight = |i: usize| (rewards[i] + 0.75) / 2.25;
                let worse = |i: usize| sum(&mut r[i + 1..].iter().map(|&r| softplus(r)));
                sum(&mut (0..3).map(|i| weight(i) * (softplus(-r[i]) + worse(i)))) / 3.0
            }),
        ),
        (
            Ranking::lipo_lambda(0.5),
            Box::new(|r| {
                // By the rewards the responses are second, first, fourth and third.
                let discount = [2.0, 1.0, 4.0, 3.0].map(|rank: f64| 1.0 / (1.0 + rank).ln());
                let term = |(i, j): (usize, usize)| {
                    let gain = scores[i].exp2() - scores[j].exp2();
                    let weight = gain * (discount[i] - discount[j]).abs();
                    weight * softplus(0.5 * (r[j] - r[i]))
                };
                sum(&mut pairs().map(term))
            }),
        ),
    ];
    let groups = || Groups::consecutive(&[4]).unwrap();
    let batch = || Batch::of_sequences(4).unwrap();
    let scored = || batch().with_scores(&scores).unwrap();
    let mut cases: Vec<(ScalarLoss<'_>, &Formula<'_>)> = vec![];
    for (ranking, formula) in &written {
        let term = Term::groups(ranking.with_value(RankingValue::Sum));
        let batch = if ranking.inputs().score { scored() } else { batch() };
        let batch = batch.with_groups(groups()).unwrap();
        cases.push((ScalarLoss::new(batch, [term]).unwrap(), &**formula));
    }
    // All pairs: RRHF's hinge, and Bradley-Terry.
    let of_pairs = |term: Term| {
        let batch = batch().with_pairs(groups().pairs(&scores).unwrap()).unwrap();
        ScalarLoss::new(batch, [term.with_reduction(Reduction::Sum)])
    };
    let hinge = |r: &[f64; 4]| sum(&mut pairs().map(|(i, j)| (r[j] - r[i]).max(0.0)));
    cases.push((of_pairs(Term::pairs(Slic::new(0.0))).unwrap(), &hinge));
    let logistic = |r: &[f64; 4]| sum(&mut pairs().map(|(i, j)| softplus(r[j] - r[i])));
    cases.push((of_pairs(Term::reward_pairs(BradleyTerry::new())).unwrap(), &logistic));
    for (index, (loss, formula)) in cases.iter().enumerate() {
        for backend in composed_backends() {
            let forward = loss.forward(&*backend, Slice::new(&rewards), None).unwrap();
            let (got, expected) = (forward.loss(), formula(&rewards));
            approx::assert_relative_eq!(got, expected, max_relative = 1e-12);
            let grads = forward.grads(&*backend, Upstream::Loss(1.0)).unwrap();
            for (at, &grad) in grads.iter().enumerate() {
                let moved = |step: f64| {
                    let mut moved = rewards;
                    moved[at] += step;
                    formula(&moved)
                };
                let central = |step: f64| (moved(step) - moved(-step)) / (2.0 * step);
                let expected = (4.0 * central(5e-4) - central(1e-3)) / 3.0;
                // Differences of losses of up to 10 that are right to 1e-15, over 1e-3.
                assert!((grad - expected).abs() < 1e-10, "{index} {at}: {grad} for {expected}");
            }
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
    for backend in composed_backends() {
        let forward = loss.forward(&*backend, Slice::new(&rewards), None).unwrap();
        let grads = forward.grads(&*backend, Upstream::Loss(1.0)).unwrap();
        for i in 0..4 {
            let worse: f64 = (i + 1..4).map(|j| sigmoid(rewards[j] - rewards[i])).sum();
            let better: f64 = (0..i).map(|j| sigmoid(rewards[i] - rewards[j])).sum();
            approx::assert_relative_eq!(grads[i], (better - worse) / 6.0, max_relative = 1e-12);
        }
    }
}
