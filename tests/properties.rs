//! What must hold for any input: invariances, and the same bits.

use prefuse::batch::{Batch, Groups, Labels, Logits, Packing, Pairs, ReferenceLogProbs, Weights};
use prefuse::objectives::{Dpo, Hinge, Ipo, Nll, Ranking, RankingValue, Robust, SimPo, objectives};
use prefuse::{
    Backend, Element, Loss, MaskedRows, Reference, RowOptions, ScalarLoss, Sequences, Slice, Term,
    Upstream, token_log_probs,
};

use crate::alignment::row_bits;
use crate::backends::composed_backends;
use crate::common::{Placed, exact, forward, gradient, labels, logits, normal, rng, rows};
use crate::each_dtype;
use crate::units::{complete, is_exponential};

/// A constant added to a row changes its log-probs by no more than the rounding of its logits, and the integers used
/// here are not rounded: what remains are two results an ulp or two from the exact one, each relative to its own
/// maximum.
#[test]
fn shift_invariance() {
    for backend in composed_backends() {
        let mut rng = rng(8);
        let row: Vec<f32> = (0..777).map(|_| (4.0 * normal(&mut rng)).round() as f32).collect();
        let shifted: Vec<f32> = row.iter().map(|x| x + 1e4).collect();
        let numbers = |row: &[f32]| {
            let (mut numbers, grads) = row_bits(&*backend, row, 777, &[5]).remove(0);
            // All but the maximum.
            numbers.remove(1);
            let grads: &[f32] = bytemuck::cast_slice(&grads);
            let numbers = numbers.into_iter().map(f64::from_bits);
            (numbers.collect::<Vec<_>>(), grads.iter().map(|&x| x.into()).collect::<Vec<f64>>())
        };
        let ulp = f64::from(f32::EPSILON);
        let ((numbers, grads), (others, other_grads)) = (numbers(&row), numbers(&shifted));
        for (a, b) in numbers.iter().zip(&others) {
            assert!((a - b).abs() <= 2.0 * ulp * a.abs(), "{}: {a} {b}", backend.name());
        }
        let largest = grads.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        for (a, b) in grads.iter().zip(&other_grads) {
            assert!((a - b).abs() <= 4.0 * ulp * largest, "{}: {a} {b}", backend.name());
        }
    }
}

fn loss_of<'a>(
    data_labels: &'a [i64],
    packing: Packing,
    pairs: Pairs<'a>,
    reference: &[f64],
    terms: Vec<Term>,
) -> Loss<'a> {
    let batch = Batch::new(Labels::new(data_labels), packing)
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(reference)))
        .and_then(|batch| batch.with_pairs(pairs))
        .unwrap();
    Loss::new(batch, terms).unwrap()
}

/// DPO of a policy that is its own reference is ln 2 to the last bit, and no pair counts as right.
#[test]
fn policy_equal_to_reference() {
    fn body<T: Element>(backend: &dyn Backend) {
        let data = logits::<T>(2, 40, 333);
        let ids = labels(2, &data, 333);
        let labels = Labels::new(&ids[..]);
        let policy = rows(backend, &data, &labels, None, RowOptions::default());
        let reference = policy.log_probs().to_vec().unwrap();
        let packing = Packing::new(&[0_i32, 7, 20, 21, 40]).unwrap();
        let terms = vec![Term::pairs(Dpo::new(0.1))];
        let loss = loss_of(&ids, packing, Pairs::halves(2).unwrap(), &reference, terms);
        let forward = forward(&loss, backend, &data);
        assert_eq!(forward.terms()[0].losses, [std::f64::consts::LN_2; 2]);
        assert_eq!(forward.loss(), std::f64::consts::LN_2);
        assert_eq!(forward.metrics().unwrap().rewards_accuracy, 0.0);
        assert_eq!(forward.metrics().unwrap().tokens_chosen, 8.0);
        assert_eq!(forward.metrics().unwrap().tokens_rejected, 8.0);
    }
    // The mean of any number of ln 2 is ln 2.
    let one = |backend: &dyn Backend, pairs: usize| {
        let data = vec![0.5_f32; 4 * pairs];
        let ids = vec![0; 2 * pairs];
        let reference = vec![-std::f64::consts::LN_2 as f32 as f64; 2 * pairs];
        let terms = vec![Term::pairs(Dpo::new(0.1))];
        let packing = Packing::padded(2 * pairs, 1).unwrap();
        let loss = loss_of(&ids, packing, Pairs::halves(pairs).unwrap(), &reference, terms);
        forward(&loss, backend, &data).loss()
    };
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
        // An emulated launch takes milliseconds.
        let step = if backend.name() == "cuda" { 67 } else { 1 };
        for pairs in (1..=300).step_by(step) {
            assert_eq!(one(&*backend, pairs), std::f64::consts::LN_2, "{pairs} pairs");
        }
    }
}

/// Packed and padded layouts of the same sequences have the same bits, gradient included.
#[test]
fn packed_is_padded() {
    for backend in composed_backends() {
        let (vocab, lengths, longest) = (37, [3, 5, 1, 4], 5);
        let packed: Vec<f32> = logits(4, 13, vocab);
        let packed_ids = labels(4, &packed, vocab);
        let (mut padded, mut padded_ids) = (vec![f32::NAN; 20 * vocab], vec![-100; 20]);
        let mut offsets = vec![0_i64];
        for (sequence, length) in lengths.into_iter().enumerate() {
            let start = *offsets.last().unwrap() as usize;
            let at = sequence * longest;
            padded[at * vocab..][..length * vocab]
                .copy_from_slice(&packed[start * vocab..][..length * vocab]);
            padded_ids[at..][..length].copy_from_slice(&packed_ids[start..][..length]);
            offsets.push((start + length) as i64);
        }
        let run = |data: &[f32], ids: &[i64], packing: Packing| {
            let batch = Batch::new(Labels::new(ids), packing).unwrap();
            let batch = batch.with_pairs(Pairs::halves(2).unwrap()).unwrap();
            let loss = Loss::new(batch, [Term::pairs(SimPo::new(2.0, 0.5))]).unwrap();
            let forward = forward(&loss, &*backend, data);
            let grads = gradient(&loss, &*backend, &forward, data, Upstream::Loss(1.0));
            let counted = grads.chunks(vocab).zip(ids).filter(|(_, id)| **id != -100);
            (
                forward.totals().sums.to_vec().unwrap(),
                forward.terms()[0].losses.clone(),
                counted.flat_map(|(row, _)| row.to_vec()).collect::<Vec<_>>(),
            )
        };
        let padding = Packing::padded(4, longest).unwrap();
        let expected = run(&packed, &packed_ids, Packing::new(&offsets).unwrap());
        assert_eq!(run(&padded, &padded_ids, padding), expected);
    }
}

/// Permuting the sequences of a pack permutes the bits of every output of a token, sequence or pair.
#[test]
fn permutations() {
    for backend in composed_backends() {
        let (vocab, length) = (130, 6);
        let data: Vec<f32> = logits(6, 4 * length, vocab);
        let ids = labels(6, &data, vocab);
        let run = |order: [usize; 4]| {
            let part = |s: usize| data[s * length * vocab..][..length * vocab].to_vec();
            let data: Vec<f32> = order.into_iter().flat_map(part).collect();
            let ids: Vec<i64> =
                order.into_iter().flat_map(|s| ids[s * length..][..length].to_vec()).collect();
            let at = |sequence| order.iter().position(|&s| s == sequence).unwrap();
            let pairs = Pairs::new(vec![(at(0), at(1)), (at(2), at(3))]).unwrap();
            let reference = vec![-1.25; ids.len()];
            let packing = Packing::padded(4, length).unwrap();
            let terms = vec![Term::pairs(Dpo::new(0.1))];
            let loss = loss_of(&ids, packing, pairs, &reference, terms);
            let forward = forward(&loss, &*backend, &data);
            let (tokens, sums) = (
                forward.tokens().log_probs().to_vec().unwrap(),
                forward.totals().sums.to_vec().unwrap(),
            );
            let back = (0..4).map(|s| (tokens[at(s) * length..][..length].to_vec(), sums[at(s)]));
            (back.collect::<Vec<_>>(), forward.terms()[0].losses.clone())
        };
        assert_eq!(run([3, 1, 0, 2]), run([0, 1, 2, 3]));
    }
}

/// The whole loss on every backend and type against the reference in f64, gradient included, with
/// two terms and a sequence in two pairs.
#[test]
fn the_whole_loss_on_every_backend() {
    fn body<T: Element>(backend: &dyn Backend) {
        let tokens = 24;
        for (index, objective) in objectives().into_iter().enumerate() {
            // Rewards are not of logits.
            if objective.unit()[0] == "Token" || objective.unit()[0].starts_with("Reward") {
                continue;
            }
            // Rows do not know the loss: long ones for one of the objectives are enough.
            let vocab = if index == 0 { 4099 } else { 67 };
            let data = logits::<T>(9, tokens, vocab);
            let ids = labels(9, &data, vocab);
            let exact = exact(&data);
            let packing = Packing::new(&[0_i32, 5, 5, 13, 24]).unwrap();
            let indices = vec![(0, 1), (2, 3), (0, 3)];
            let labels = Labels::new(&ids[..]);
            let mut reference = vec![-8.0; tokens];
            if is_exponential(&objective) {
                // Near the policy, as the exponential of a log-ratio needs it.
                let logits = Logits::new(&exact, tokens, vocab).unwrap();
                let options = RowOptions::default();
                let policy = token_log_probs(&Reference::new(), logits, &labels, None, options);
                reference = policy.unwrap().log_probs().to_vec().unwrap();
                reference
                    .iter_mut()
                    .zip([-0.1, 0.2, 0.0].iter().cycle())
                    .for_each(|(x, d)| *x += d);
            }
            let batch = Batch::new(labels, packing)
                .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&reference)))
                .unwrap();
            let batch = complete(batch, indices, &objective, 9);
            let chosen = match objective.responses().len() {
                1 => Sequences::All,
                _ => Sequences::Chosen,
            };
            let nll = Term::sequences(Nll::new(), chosen).with_weight(0.5);
            let terms = [Term::new(objective.clone()), nll];
            let loss = Loss::new(batch, terms).unwrap();
            let truth = run(&loss, &Reference::new(), &exact, vocab);
            let ours = run(&loss, backend, &data, vocab);
            // Log-probs of size 20 that are right to 5e-6 each, times the loss's slope by each: a row of the
            // gradient is that times `1 - p` at the label, p below 1/2, and times p elsewhere.
            let slopes: f64 = truth.1.iter().map(|grad| grad.abs()).sum();
            let bound = 5e-6 * slopes + 1e-6 * (1.0 + truth.0.abs());
            assert!((ours.0 - truth.0).abs() <= bound, "{objective:?} {} {}", ours.0, truth.0);
            let largest = truth.1.iter().fold(0.0_f64, |a, &b| a.max(b.abs()));
            let (rounding, _) = crate::common::rounding::<T>();
            for (got, expected) in ours.1.iter().zip(&truth.1) {
                // p is right to 2e-5 (its argument is up to 60 and carries 5 roundings of f32); the
                // slope of a loss moves by no more than its margin does, beta 2 / length 5 times
                // the sums' error; where terms cancel, that is relative to the larger ones.
                let bound = (1e-4 + rounding) * expected.abs() + 1e-5 * largest;
                assert!((got - expected).abs() <= bound, "{objective:?} {got} {expected}");
            }
        }
    }
    fn run<T: Element>(
        loss: &Loss<'_>,
        backend: &dyn Backend,
        data: &[T],
        vocab: usize,
    ) -> (f64, Vec<f64>) {
        let mut data = Placed::new(backend, data);
        let logits = data.target(loss.batch().tokens(), vocab);
        let forward = loss.forward(backend, logits.view()).unwrap();
        let value = forward.loss();
        let upstream = Upstream::Loss(1.0);
        loss.logit_grads_in_place(backend, forward, logits, upstream, MaskedRows::Zero).unwrap();
        (value, data.slice().to_vec().unwrap())
    }
    for backend in composed_backends() {
        each_dtype!(&*backend, body);
    }
}

/// The margin of two answers of 8192 tokens, sums near -10 000, is within 1e-4 of the reference.
#[test]
fn long_answers() {
    let (length, vocab) = (8192, 33);
    let mut rng = rng(3);
    let data: Vec<f32> = (0..2 * length * vocab).map(|_| normal(&mut rng) as f32 * 0.5).collect();
    let ids: Vec<i64> = (0..2 * length).map(|token| (token % vocab) as i64).collect();
    fn margin<T: Element>(backend: &dyn Backend, data: &[T], ids: &[i64]) -> f64 {
        let (packing, pairs) =
            (Packing::padded(2, ids.len() / 2).unwrap(), Pairs::interleaved(1).unwrap());
        let terms = vec![Term::pairs(Dpo::new(1.0))];
        let loss = loss_of(ids, packing, pairs, &vec![0.0; ids.len()], terms);
        let forward = forward(&loss, backend, data);
        assert!(forward.totals().sums.to_vec().unwrap().iter().all(|&sum| sum < -10_000.0));
        forward.metrics().unwrap().rewards_margin
    }
    let truth = margin(&Reference::new(), &exact(&data), &ids);
    for backend in composed_backends() {
        let ours = margin(&*backend, &data, &ids);
        assert!((ours - truth).abs() < 1e-4, "{ours} for {truth}");
    }
}

/// The upstream gradient scales the gradient, and upstream by unit is the loss's own when it is
/// what the reduction would have been.
#[test]
fn upstream_gradients() {
    for backend in composed_backends() {
        let (tokens, vocab) = (12, 9);
        let data: Vec<f32> = logits(1, tokens, vocab);
        let ids = labels(1, &data, vocab);
        let packing = Packing::padded(4, 3).unwrap();
        let terms =
            vec![Term::pairs(Hinge::new(0.1)), Term::pairs(Robust::new(0.1, 0.1)).with_weight(2.0)];
        let pairs = Pairs::halves(2).unwrap();
        let loss = loss_of(&ids, packing, pairs, &vec![-3.0; tokens], terms);
        let forward = forward(&loss, &*backend, &data);
        let grads = |upstream| gradient(&loss, &*backend, &forward, &data, upstream);
        let whole = grads(Upstream::Loss(1.0));
        assert_eq!(grads(Upstream::Units(&[&[0.5, 0.5], &[1.0, 1.0]])), whole);
        let doubled: Vec<f32> = whole.iter().map(|x| -2.0 * x).collect();
        assert_eq!(grads(Upstream::Loss(-2.0)), doubled);
        assert!(grads(Upstream::Loss(0.0)).iter().all(|&x| x == 0.0));
    }
}

/// A pair of weight 0 is out of the sum: neither its loss nor its gradient is seen. The mean counts it.
#[test]
fn pairs_of_weight_zero() {
    for backend in composed_backends() {
        let data: Vec<f32> = logits(1, 8, 9);
        let ids = labels(1, &data, 9);
        let mut reference = vec![-3.0; 8];
        reference[0] = f64::NEG_INFINITY;
        let pairs = Pairs::halves(2).unwrap().with_weight(&[0.0, 1.0][..]).unwrap();
        let packing = Packing::padded(4, 2).unwrap();
        let loss = loss_of(&ids, packing, pairs, &reference, vec![Term::pairs(Ipo::new(0.1))]);
        let forward = forward(&loss, &*backend, &data);
        let losses = &forward.terms()[0].losses;
        assert_eq!(losses[0], 0.0);
        assert_eq!(forward.loss(), losses[1] / 2.0);
        assert!(forward.loss().is_finite());
    }
}

/// An impossible label makes its own pair infinite. Neither a zero upstream nor a zero weight of its
/// term lets that reach the others.
#[test]
fn zero_factors_win() {
    for backend in composed_backends() {
        let mut data: Vec<f32> = logits(1, 8, 9);
        let ids = labels(1, &data, 9);
        data[ids[0] as usize] = f32::NEG_INFINITY;
        let packing = Packing::padded(4, 2).unwrap();
        let terms = vec![Term::pairs(Ipo::new(0.1)), Term::pairs(Dpo::new(0.1)).with_weight(0.0)];
        let pairs = Pairs::halves(2).unwrap();
        let loss = loss_of(&ids, packing.clone(), pairs.clone(), &[-3.0; 8], terms);
        let forward = forward(&loss, &*backend, &data);
        assert_eq!(forward.terms()[1].value, 0.0);
        for upstream in [Upstream::Loss(0.0), Upstream::Units(&[&[0.0, 1.0], &[0.0, 1.0]])] {
            let grads = gradient(&loss, &*backend, &forward, &data, upstream);
            assert!(grads.iter().all(|grad| grad.is_finite()), "{upstream:?}");
        }
        let other = loss_of(&ids, packing, pairs, &[-3.0; 8], vec![Term::pairs(Ipo::new(0.1))]);
        let (data, mut grads) =
            (Placed::new(&*backend, &data), Placed::poisoned::<f32>(&*backend, data.len()));
        let target = (data.logits(8, 9), grads.target(8, 9));
        let upstream = Upstream::Loss(1.0);
        let result = other.logit_grads(&*backend, &forward, target, upstream, MaskedRows::Zero);
        assert_eq!(result, Err(prefuse::Error::OtherLoss));
    }
}

/// So it is for groups: one of impossible responses alone, whose loss is NaN.
#[test]
fn zero_factors_win_over_groups() {
    let ranking = || Ranking::plackett_luce(1.0).with_value(RankingValue::Sum);
    let values = [f64::NEG_INFINITY, f64::NEG_INFINITY, -1.0, -2.0];
    for backend in composed_backends() {
        let run = |weight: f64, upstream: Upstream<'_>| {
            let batch = Batch::of_sequences(4)
                .and_then(|batch| batch.with_groups(Groups::consecutive(&[2, 2])?))
                .unwrap();
            let loss = ScalarLoss::new(batch, [Term::groups(ranking()).with_weight(weight)]);
            let forward = loss.unwrap().forward(&*backend, Slice::new(&values), None).unwrap();
            (forward.loss(), forward.grads(&*backend, upstream).unwrap())
        };
        assert_eq!(run(0.0, Upstream::Loss(1.0)), (0.0, vec![0.0; 4]));
        assert_eq!(run(1.0, Upstream::Loss(0.0)).1, [0.0; 4]);
        let (_, grads) = run(1.0, Upstream::Units(&[&[0.0, 1.0]]));
        assert_eq!(grads[..2], [0.0; 2]);
        assert!(grads[2] < 0.0 && grads[3] == -grads[2]);
    }
}

/// Reference log-probs per token and their sums per sequence are the same input, with the batch's
/// weights and without.
#[test]
fn reference_per_token_is_per_sequence() {
    for backend in composed_backends() {
        let data: Vec<f32> = logits(1, 8, 9);
        let ids = labels(1, &data, 9);
        let tokens: Vec<f32> = (0..8).map(|token| -0.5 * token as f32).collect();
        let factors = [1.0, 0.5, 0.0, -1.0, 2.0, 1.0, 0.25, 3.0_f32];
        let sum = |weights: [f32; 8]| -> Vec<f64> {
            let counted = |t: &usize| ids[*t] != -100 && weights[*t] != 0.0;
            let term = |t: usize| f64::from(weights[t]) * f64::from(tokens[t]);
            (0..4).map(|s| (2 * s..2 * s + 2).filter(counted).map(term).sum()).collect()
        };
        let run = |weighted: bool, reference| {
            let packing = Packing::padded(4, 2).unwrap();
            let mut batch = Batch::new(Labels::new(&ids[..]), packing).unwrap();
            if weighted {
                batch = batch.with_weights(Weights::new(&factors[..]).unwrap()).unwrap();
            }
            let batch = batch
                .with_reference(reference)
                .and_then(|batch| batch.with_pairs(Pairs::halves(2).unwrap()))
                .unwrap();
            let loss = Loss::new(batch, [Term::pairs(Dpo::new(0.1))]).unwrap();
            forward(&loss, &*backend, &data).loss()
        };
        let per_token = || ReferenceLogProbs::per_token(&tokens);
        let sums = ReferenceLogProbs::per_sequence(&sum([1.0; 8]));
        assert_eq!(run(false, per_token()), run(false, sums));
        let sums = ReferenceLogProbs::per_sequence_weighted(&sum(factors));
        assert_eq!(run(true, per_token()), run(true, sums));
    }
}

/// The two usual layouts name the pairs that they say.
#[test]
fn layouts_of_pairs() {
    assert_eq!(Pairs::halves(3).unwrap().indices(), [(0, 3), (1, 4), (2, 5)]);
    assert_eq!(Pairs::interleaved(3).unwrap().indices(), [(0, 1), (2, 3), (4, 5)]);
}

/// Terms over sequences look at those that they name, in that order.
#[test]
fn selected_sequences() {
    for backend in composed_backends() {
        let data: Vec<f32> = logits(1, 8, 9);
        let ids = labels(1, &data, 9);
        let losses = |sequences| {
            let packing = Packing::padded(4, 2).unwrap();
            let pairs = Pairs::new(vec![(3, 0), (1, 2)]).unwrap();
            let terms = vec![Term::sequences(Nll::new(), sequences)];
            let loss = loss_of(&ids, packing, pairs, &[-3.0; 8], terms);
            let forward = forward(&loss, &*backend, &data);
            forward.terms()[0].losses.clone()
        };
        let all = losses(Sequences::All);
        assert!(all.iter().all(|&loss| loss > 0.0));
        assert_eq!(losses(Sequences::Chosen), [all[3], all[1]]);
        assert_eq!(losses(Sequences::Indices(vec![2, 0, 2])), [all[2], all[0], all[2]]);
    }
}

/// Token weights of 1 change no bit, and weights add up as factors of the gradient.
#[test]
fn weights_of_one() {
    for backend in composed_backends() {
        let data: Vec<f32> = logits(1, 8, 9);
        let ids = labels(1, &data, 9);
        let run = |weights: Option<Vec<f32>>| {
            let packing = Packing::padded(4, 2).unwrap();
            let mut batch = Batch::new(Labels::new(&ids[..]), packing).unwrap();
            if let Some(weights) = weights {
                batch = batch.with_weights(Weights::new(weights).unwrap()).unwrap();
            }
            let batch = batch.with_pairs(Pairs::halves(2).unwrap()).unwrap();
            let loss = Loss::new(batch, [Term::pairs(SimPo::new(2.0, 0.0))]).unwrap();
            forward(&loss, &*backend, &data).loss()
        };
        assert_eq!(run(Some(vec![1.0; 8])), run(None));
        assert_ne!(run(Some(vec![0.5; 8])), run(None));
    }
}
