//! Terms beyond plain pairs, on every backend: scores, labels and weights of sequences, selections,
//! verdicts, losses of scalars, and log-probs that are computed before the loss is made.

use std::sync::Arc;

use prefuse::batch::{Advantages, Batch, Labels, Packing, Pairs, ReferenceLogProbs, Weights};
use prefuse::objectives::{
    AnyObjective, BradleyTerry, Cpo, Dpo, EntropyBonus, Eurus, Given, KlPenalty, Kto, Nll,
    PointwiseLogistic, Reduction, Reinforce, Response, RewardRegression, RewardTie, Scir, SimPo,
    Sppo,
};
use prefuse::{
    Backend, Error, Loss, Reference, RowOptions, ScalarLoss, Sequences, Slice, Term, Upstream,
    token_log_probs,
};

use crate::backends::composed_backends;
use crate::common::{Placed, forward, gradient, labels, logits, refused};

const TOKENS: usize = 24;
const VOCAB: usize = 33;

/// Sequences of 5, 0, 8, 4, 6 and 1 tokens.
fn packing() -> Packing {
    Packing::new(&[0, 5, 5, 13, 17, 23, 24]).unwrap()
}

fn batch(ids: &[i64]) -> Batch<'_> {
    Batch::new(Labels::new(ids), packing())
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&[-3.0; TOKENS])))
        .unwrap()
}

/// Loss, losses of each term and gradient, on every backend against the reference in f64.
fn compare(loss: &Loss<'_>, data: &[f32]) {
    let exact: Vec<f64> = data.iter().map(|&x| f64::from(x)).collect();
    let reference = Reference::new();
    let truth = forward(loss, &reference, &exact);
    let expected = gradient(loss, &reference, &truth, &exact, Upstream::Loss(-2.0));
    assert!(expected.iter().any(|&x| x.abs() > 1e-3));
    for backend in
        composed_backends().iter().filter(|backend| backend.dtypes().contains(&prefuse::DType::F32))
    {
        let got = forward(loss, &**backend, data);
        for (got, expected) in got.terms().iter().zip(truth.terms()) {
            for (got, expected) in got.losses.iter().zip(&expected.losses) {
                // Sums of 8 log-probs of size 20 that are right to 2e-6 each, and slopes up to 10.
                approx::assert_relative_eq!(got, expected, epsilon = 2e-4, max_relative = 1e-6);
            }
        }
        approx::assert_relative_eq!(got.loss(), truth.loss(), epsilon = 2e-4, max_relative = 1e-6);
        let grads = gradient(loss, &**backend, &got, data, Upstream::Loss(-2.0));
        for (got, expected) in grads.iter().zip(&expected) {
            approx::assert_relative_eq!(f64::from(*got), expected, epsilon = 1e-4);
        }
    }
}

#[test]
fn sequences_with_labels_and_weights() {
    let data: Vec<f32> = logits(1, TOKENS, VOCAB);
    let ids = labels(1, &data, VOCAB);
    let batch = batch(&ids)
        .with_soft_labels(&[1.0, 0.0, 0.0, 1.0, 0.25, 1.0])
        .and_then(|batch| batch.with_sequence_weights(&[1.0, 0.5, -1.0, 0.0, 2.0, 1.0]))
        .unwrap();
    let kto = Term::sequences(Kto::new(0.1).with_baseline(0.3), Sequences::All);
    let logistic = PointwiseLogistic::new(0.1).with_shift(-0.2).with_length_normalized(true);
    let logistic = Term::sequences(logistic, Sequences::Indices(vec![4, 0, 4])).with_weight(0.5);
    let loss = Loss::new(batch, [kto, logistic]).unwrap();
    compare(&loss, &data);
    let truth =
        forward(&loss, &Reference::new(), &data.iter().map(|&x| x.into()).collect::<Vec<f64>>());
    let (sums, terms) = (truth.totals().sums.to_vec().unwrap(), truth.terms());
    let reference = truth.reference_sums().unwrap().to_vec().unwrap();
    let rewards: Vec<f64> = sums.iter().zip(&reference).map(|(s, r)| 0.1 * (s - r)).collect();
    // By hand: u = 0.1 (d - 0.3), the third sequence undesirable with weight -1.
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    approx::assert_relative_eq!(
        terms[0].losses[2],
        -sigmoid(rewards[2] - 0.03),
        max_relative = 1e-12
    );
    assert_eq!(terms[0].losses[3], 0.0);
    let metrics = truth.sequence_metrics().unwrap();
    assert_eq!((metrics.desirable, metrics.undesirable), (3, 3));
    let mean = |of: [usize; 3]| of.iter().map(|&s| rewards[s]).sum::<f64>() / 3.0;
    approx::assert_relative_eq!(metrics.rewards_desirable, mean([0, 3, 5]), max_relative = 1e-12);
    approx::assert_relative_eq!(metrics.rewards_undesirable, mean([1, 2, 4]), max_relative = 1e-12);
    assert_eq!(metrics.rewards_margin, metrics.rewards_desirable - metrics.rewards_undesirable);
    assert!(truth.metrics().is_none());
}

/// Scores of sequences reach the pairs that they stand in; a term over selected pairs is the mean over
/// them, and takes their own numbers.
#[test]
fn scores_and_selected_pairs() {
    let data: Vec<f32> = logits(2, TOKENS, VOCAB);
    let ids = labels(2, &data, VOCAB);
    let pairs = || Pairs::new(vec![(0, 2), (3, 4), (5, 1)]).unwrap();
    let given = || pairs().with_weight(&[1.0, 2.0, 3.0]).unwrap();
    let scores = [0.9, 0.5, 0.1, 0.7, 0.3, 0.6];
    let batch =
        |pairs| batch(&ids).with_pairs(pairs).and_then(|batch| batch.with_scores(&scores)).unwrap();
    let selected = Term::pairs(Sppo::new(0.5)).with_pairs([2, 0]);
    let loss = Loss::new(batch(given()), [selected, Term::pairs(Dpo::new(0.1))]).unwrap();
    compare(&loss, &data);
    let some = forward(&loss, &Reference::new(), &exact(&data));
    let all = Loss::new(batch(pairs()), [Term::pairs(Sppo::new(0.5))]).unwrap();
    let all = forward(&all, &Reference::new(), &exact(&data));
    let losses = &all.terms()[0].losses;
    assert_eq!(some.terms()[0].losses, [3.0 * losses[2], losses[0]]);
    assert_eq!(some.terms()[0].value, (3.0 * losses[2] + losses[0]) / 2.0);
    // Metrics are those of the first term over pairs, so of the selected ones.
    let sums = some.totals().sums.to_vec().unwrap();
    assert_eq!(some.metrics().unwrap().log_probs_chosen, (sums[5] + sums[0]) / 2.0);
}

fn exact(data: &[f32]) -> Vec<f64> {
    data.iter().map(|&x| f64::from(x)).collect()
}

/// The verdicts on a pair are sequences of the pack like any other, here of one token and of six.
#[test]
fn judged_pairs() {
    let data: Vec<f32> = logits(3, TOKENS, VOCAB);
    let ids = labels(3, &data, VOCAB);
    let pairs = Pairs::new(vec![(0, 2), (2, 3)])
        .and_then(|pairs| pairs.with_verdicts(vec![(5, 4), (4, 5)]))
        .unwrap();
    let batch = batch(&ids).with_pairs(pairs).unwrap();
    let scir = Scir::new(0.1, 0.1).with_weight(0.5);
    let terms = [Term::judged_pairs(scir), Term::pairs(Dpo::new(0.1)).with_pairs([1])];
    let loss = Loss::new(batch, terms).unwrap();
    compare(&loss, &data);
    let got = forward(&loss, &Reference::new(), &exact(&data));
    let sums = got.totals().sums.to_vec().unwrap();
    let reference = got.reference_sums().unwrap().to_vec().unwrap();
    let response = |s: usize| Response::new(sums[s], 1.0).with_reference(reference[s]);
    let expected = AnyObjective::new(scir).evaluate(&[0, 2, 5, 4].map(response), Given::NEUTRAL);
    approx::assert_relative_eq!(got.terms()[0].losses[0], expected.loss, max_relative = 1e-12);
    assert_eq!(got.terms()[0].rewards[0], [expected.rewards[0], expected.rewards[1]]);
}

/// TPO: a pair term beside the likelihood of a third response, by the token mean.
#[test]
fn three_responses() {
    let data: Vec<f32> = logits(4, TOKENS, VOCAB);
    let ids = labels(4, &data, VOCAB);
    let batch = batch(&ids).with_pairs(Pairs::new(vec![(0, 2)]).unwrap()).unwrap();
    let gold = Term::sequences(Nll::new(), Sequences::Indices(vec![4]))
        .with_reduction(Reduction::TokenMean);
    let loss = Loss::new(batch, [Term::pairs(Cpo::new(0.1).with_nll_weight(0.0)), gold]).unwrap();
    compare(&loss, &data);
    let got = forward(&loss, &Reference::new(), &exact(&data));
    let sums = got.totals().sums.to_vec().unwrap();
    let tokens = got.totals().tokens.to_vec().unwrap();
    let pair = (1.0 + (-0.1 * (sums[0] - sums[2])).exp()).ln();
    approx::assert_relative_eq!(got.loss(), pair - sums[4] / tokens[4], max_relative = 1e-12);
}

/// Rewards: margins, weights, centering, ties, absolute terms and regression, in f32 and f64, against
/// the formulas, and with the gradients of finite differences.
#[test]
fn losses_of_scalars() {
    let rewards = [1.5, -0.25, 0.5, 2.0, 0.25, -1.0];
    let pairs = Pairs::new(vec![(0, 1), (2, 3), (4, 5)])
        .and_then(|pairs| pairs.with_weight(&[1.0, 1.0, 3.0]))
        .and_then(|pairs| pairs.with_margin(&[0.5, 0.0, -0.5]))
        .unwrap();
    let batch = Batch::of_sequences(6)
        .and_then(|batch| batch.with_pairs(pairs))
        .and_then(|batch| batch.with_scores(&[1.0, 0.0, 2.0, 3.0, 1.0, -4.0]))
        .unwrap();
    let terms = [
        Term::reward_pairs(BradleyTerry::new().with_centering(0.01)),
        Term::reward_pairs(RewardTie::new()).with_pairs([1]).with_weight(0.5),
        Term::reward_pairs(Eurus::new()).with_pairs([1]),
        Term::rewards(RewardRegression::new(), Sequences::Indices(vec![0, 3])),
    ];
    let loss = ScalarLoss::new(batch, terms).unwrap();
    let softplus = |x: f64| x.exp().ln_1p();
    let value = |r: &[f64]| {
        let bt = |c: f64, l: f64, margin: f64| softplus(l - c + margin) + 0.01 * (c + l) * (c + l);
        let pairs = bt(r[0], r[1], 0.5) + bt(r[2], r[3], 0.0) + 3.0 * bt(r[4], r[5], -0.5);
        let tie = (r[2] - r[3]).powi(2);
        let eurus = softplus(r[3] - r[2]) + softplus(-r[2]) + softplus(r[3]);
        let regression = ((r[0] - 1.0).powi(2) + (r[3] - 3.0).powi(2)) / 2.0;
        pairs / 3.0 + 0.5 * tie + eurus + regression
    };
    for backend in composed_backends() {
        let backend = &*backend;
        let narrow: Vec<f32> = rewards.iter().map(|&x| x as f32).collect();
        let (wide, narrow) = (Placed::new(backend, &rewards), Placed::new(backend, &narrow));
        for values in [wide.slice(), narrow.slice(), Slice::new(&rewards)] {
            let forward = loss.forward(backend, values, None).unwrap();
            approx::assert_relative_eq!(forward.loss(), value(&rewards), max_relative = 1e-12);
            let grads = forward.grads(backend, Upstream::Loss(2.0)).unwrap();
            for (i, got) in grads.iter().enumerate() {
                let at = |shift: f64| {
                    let mut rewards = rewards;
                    rewards[i] += shift;
                    value(&rewards)
                };
                let expected = 2.0 * (at(1e-6) - at(-1e-6)) / 2e-6;
                approx::assert_relative_eq!(*got, expected, epsilon = 1e-8);
            }
            let metrics = forward.metrics().unwrap();
            assert_eq!((metrics.rewards_min, metrics.rewards_max), (-1.0, 2.0));
            approx::assert_relative_eq!(metrics.rewards_accuracy, 2.0 / 3.0);
            approx::assert_relative_eq!(metrics.rewards_margin, 1.5 / 3.0);
        }
        let error = loss.forward(backend, Slice::new(&rewards[..5]), None);
        refused(error, "values: expected length 6, got 5");
    }
}

/// Sums of log-probs that are known give the loss and the gradient by them, as the whole loss has them.
#[test]
fn sums_that_are_known() {
    let data: Vec<f32> = logits(5, TOKENS, VOCAB);
    let ids = labels(5, &data, VOCAB);
    let pairs = || Pairs::new(vec![(0, 2), (3, 4)]).unwrap();
    let terms = || [Term::pairs(SimPo::new(2.0, 0.5)), Term::pairs(Dpo::new(0.1))];
    let whole = Loss::new(batch(&ids).with_pairs(pairs()).unwrap(), terms()).unwrap();
    for backend in composed_backends() {
        let backend: &dyn Backend = &*backend;
        let whole = forward(&whole, backend, &data);
        let reference = whole.reference_sums().unwrap().to_vec().unwrap();
        let batch = Batch::of_sequences(6)
            .and_then(|batch| batch.with_pairs(pairs()))
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(&reference)))
            .unwrap();
        let loss = ScalarLoss::new(batch, terms()).unwrap();
        let totals = whole.totals();
        let got = loss.forward(backend, totals.sums, Some(totals.tokens)).unwrap();
        assert_eq!(got.loss(), whole.loss());
        assert_eq!(got.terms(), whole.terms());
        let upstream = [&[1.0, 0.0][..], &[0.0, -2.0]];
        let grads = got.grads(backend, Upstream::Units(&upstream)).unwrap();
        assert!(grads[0] < 0.0 && grads[2] > 0.0 && grads[3] > 0.0 && grads[4] == -grads[3]);
        assert_eq!((grads[1], grads[5]), (0.0, 0.0));
    }
}

/// Log-probs that were computed before give the bits of the whole loss, in value and gradient, and
/// weights that follow from them may come in between.
#[test]
fn log_probs_before_the_loss() {
    let data: Vec<f32> = logits(6, TOKENS, VOCAB);
    let ids = labels(6, &data, VOCAB);
    let pairs = || Pairs::new(vec![(0, 2), (3, 4)]).unwrap();
    let terms = || [Term::pairs(Dpo::new(0.1))];
    for backend in composed_backends() {
        let backend: &dyn Backend = &*backend;
        let placed = Placed::new(backend, &data);
        let compute = |labels: &Labels<'_>, weights: Option<&Weights<'_>>| {
            let logits = placed.logits(TOKENS, VOCAB);
            token_log_probs(backend, logits, labels, weights, RowOptions::default()).unwrap()
        };
        let labels = Labels::new(&ids[..]);
        let loss = Loss::new(batch(&ids).with_pairs(pairs()).unwrap(), terms()).unwrap();
        let whole = forward(&loss, backend, &data);
        let apart = loss.evaluate(backend, compute(&labels, None)).unwrap();
        assert_eq!(apart.terms(), whole.terms());
        let grads = |forward| gradient(&loss, backend, forward, &data, Upstream::Loss(1.0));
        assert_eq!(grads(&apart), grads(&whole));

        // Weights from the log-probs: here their probabilities, with one token masked.
        let tokens = compute(&labels, None);
        let mut weights: Vec<f32> =
            tokens.log_probs().to_vec().unwrap().iter().map(|x| x.exp() as f32).collect();
        weights[1] = 0.0;
        let weights = Weights::new(weights).unwrap();
        let weighted = || batch(&ids).with_weights(weights.clone()).unwrap();
        let loss = Loss::new(weighted().with_pairs(pairs()).unwrap(), terms()).unwrap();
        let apart = loss.evaluate(backend, tokens).unwrap();
        let whole = forward(&loss, backend, &data);
        assert_eq!(apart.terms(), whole.terms());
        let grads = |forward| gradient(&loss, backend, forward, &data, Upstream::Loss(1.0));
        assert_eq!(grads(&apart), grads(&whole));

        // Tokens that were masked have no log-probs, wherever the mask is; other labels have others.
        let unmasked = Loss::new(batch(&ids).with_pairs(pairs()).unwrap(), terms()).unwrap();
        let on_device = Placed::new(backend, weights.host().unwrap());
        for mask in [weights.clone(), Weights::from_slice(on_device.slice()).unwrap()] {
            refused(
                unmasked.evaluate(backend, compute(&labels, Some(&mask))),
                "batch: expected tokens that counted when the log-probs were computed, got a token \
                 that did not",
            );
            assert!(loss.evaluate(backend, compute(&labels, Some(&mask))).is_ok());
        }
        // A part of the mask, weights without zeros then and none now, and a label ignored now.
        let mut first = vec![1.0; TOKENS];
        first[1] = 0.0;
        let first = Weights::new(first).unwrap();
        let twice = Weights::new(vec![2.0; TOKENS]).unwrap();
        let mut fewer = ids.clone();
        fewer[4] = -100;
        let fewer = Loss::new(batch(&fewer).with_pairs(pairs()).unwrap(), terms()).unwrap();
        for (loss, tokens) in [
            (&loss, compute(&labels, Some(&first))),
            (&unmasked, compute(&labels, Some(&twice))),
            (&fewer, compute(&labels, None)),
        ] {
            let apart = loss.evaluate(backend, tokens).unwrap();
            let whole = forward(loss, backend, &data);
            assert_eq!(apart.terms(), whole.terms());
            let grads = |forward| gradient(loss, backend, forward, &data, Upstream::Loss(1.0));
            assert_eq!(grads(&apart), grads(&whole));
        }
        let mut others = ids.clone();
        others[2] = (others[2] + 1) % VOCAB as i64;
        let others = compute(&Labels::new(&others[..]), None);
        refused(
            loss.evaluate(backend, others),
            "batch: expected the labels that the log-probs were computed with, got other labels",
        );
    }
}

/// A loss that was told how to read rows takes log-probs that were read so; log-probs stay the caller's.
#[test]
fn row_options_of_log_probs() {
    let data: Vec<f32> = logits(9, TOKENS, VOCAB);
    let ids = labels(9, &data, VOCAB);
    for backend in &composed_backends() {
        let backend = &**backend;
        let placed = Placed::new(backend, &data);
        let compute = |options: RowOptions| {
            let (logits, labels) = (placed.logits(TOKENS, VOCAB), Labels::new(&ids[..]));
            token_log_probs(backend, logits, &labels, None, options).unwrap()
        };
        let nll = || Term::sequences(Nll::new(), Sequences::All);
        let (plain, half) = (RowOptions::default(), RowOptions::default().with_temperature(0.5));
        let loss = Loss::new(batch(&ids), [nll()]).unwrap();
        assert!(loss.evaluate(backend, compute(half)).is_ok());
        let told = loss.clone().with_rows(half.with_argmax());
        for got in [plain.with_argmax(), half, half.with_entropy()] {
            let error = told.evaluate(backend, compute(got)).unwrap_err();
            assert_eq!(error, Error::RowOptions { expected: half.with_argmax(), got });
        }
        let tokens = Arc::new(compute(half.with_argmax().with_entropy()));
        let [first, second] =
            [(); 2].map(|()| told.evaluate(backend, Arc::clone(&tokens)).unwrap());
        assert_eq!(first.terms(), second.terms());
        assert_eq!(first.terms(), forward(&told, backend, &data).terms());
        let bonus = Term::tokens(EntropyBonus::new(), Sequences::All);
        let entropy = Loss::new(batch(&ids), [bonus]).unwrap();
        refused(
            entropy.evaluate(backend, compute(plain)),
            "EntropyBonus: expected log-probs computed with RowOptions::with_entropy, got some \
             without entropies",
        );
        assert!(entropy.evaluate(backend, compute(plain.with_entropy())).is_ok());

        let (labels, weights) = (Labels::new(&ids[..]), Weights::new(vec![0.5; TOKENS]).unwrap());
        let totals = tokens.sums(backend, (&labels, Some(&weights)), &packing()).unwrap();
        let weighted = batch(&ids).with_weights(weights).unwrap();
        let weighted = Loss::new(weighted, [nll()]).unwrap();
        let forward = weighted.evaluate(backend, tokens.clone()).unwrap();
        let expected = forward.totals();
        assert_eq!(totals.sums, expected.sums.to_vec().unwrap());
        assert_eq!(totals.tokens, expected.tokens.to_vec().unwrap());
        assert_eq!(totals.weights, expected.weights.to_vec().unwrap());
        refused(
            tokens.sums(backend, (&labels, None), &Packing::padded(5, 5).unwrap()),
            "packed tokens: expected length 24, got 25",
        );
    }
}

/// A selection that happens to be empty adds nothing: a value and a gradient of 0.
#[test]
fn empty_selections() {
    let data: Vec<f32> = logits(11, TOKENS, VOCAB);
    let ids = labels(11, &data, VOCAB);
    let with = |terms: Vec<Term>| {
        let batch = batch(&ids)
            .with_pairs(Pairs::new(vec![(0, 2), (4, 3)]).unwrap())
            .and_then(|batch| batch.with_advantages(Advantages::per_sequence(vec![1.0; 6])?))
            .unwrap();
        let all = Term::tokens(Reinforce::new(), Sequences::All);
        Loss::new(batch, [vec![all], terms].concat())
    };
    let none = || Sequences::Indices(vec![]);
    let empty = |reduction: Reduction| {
        let terms = [
            Term::pairs(Dpo::new(0.1)).with_pairs([]),
            Term::sequences(Nll::new(), none()),
            Term::tokens(Reinforce::new(), none()),
            Term::tokens(KlPenalty::new(), none()),
            Term::pairs(OfTests::new()).with_pairs([]),
        ];
        terms.map(|term| term.with_reduction(reduction)).to_vec()
    };
    for backend in &composed_backends() {
        let backend = &**backend;
        let alone = with(vec![]).unwrap();
        let expected = forward(&alone, backend, &data);
        let expected = gradient(&alone, backend, &expected, &data, Upstream::Loss(1.0));
        for reduction in [Reduction::Sum, Reduction::Divisor(3.0), Reduction::TokenMean] {
            let loss = with(empty(reduction)).unwrap();
            let got = forward(&loss, backend, &data);
            for term in &got.terms()[1..] {
                assert_eq!((term.value, &term.losses[..]), (0.0, &[][..]));
            }
            assert!(got.metrics().is_none() && got.sequence_metrics().is_none());
            let none: &[f64] = &[];
            let upstream = [&[1.0; 6][..], none, none, none, none, none];
            gradient(&loss, backend, &got, &data, Upstream::Units(&upstream));
            let grads = gradient(&loss, backend, &got, &data, Upstream::Loss(1.0));
            assert_eq!(grads, expected, "{reduction:?}");
        }
        let by_sequence = Term::tokens(Reinforce::new(), none());
        let by_sequence = by_sequence.with_reduction(Reduction::SequenceMean);
        for term in empty(Reduction::Mean).into_iter().chain([by_sequence]) {
            let error = with(vec![term]).unwrap_err();
            assert!(matches!(error, Error::NoUnits { .. }), "{error}");
        }
    }
}

prefuse::objective! {
    /// One that has no kernel.
    pub struct OfTests {
        required {}
        optional {}
    }
    uses()
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        loss = pair.rejected.policy - pair.chosen.policy;
        grad.chosen = -1.0;
        grad.rejected = 1.0;
    }
}
