//! Statistics by hand-computed values and by what has to hold for any input.

use prefuse::batch::{
    Advantages, Batch, Labels, Logits, Packing, Pairs, ReferenceLogProbs, Weights,
};
use prefuse::objectives::{Dpo, Nll, Reduction};
use prefuse::statistics::*;
use prefuse::{
    Loss, Reference, RowOptions, ScalarLoss, Sequences, Slice, Term, Upstream, token_log_probs,
};
use rand::RngExt;

use crate::common::{Placed, exact, labels, logits, normal, rng};

pub fn random(seed: u64, count: usize) -> Vec<f64> {
    let mut rng = rng(seed);
    (0..count).map(|_| 3.0 * normal(&mut rng)).collect()
}

pub fn close(got: f64, expected: f64) {
    approx::assert_relative_eq!(got, expected, max_relative = 1e-12, epsilon = 1e-14);
}

#[test]
fn moments_by_hand() {
    let moments: Moments = [1.0, 2.0, 6.0].into_iter().collect();
    assert_eq!((moments.count(), moments.mean()), (3, 3.0));
    close(moments.deviations(), 14.0);
    close(moments.variance(), 14.0 / 3.0);
    close(moments.unbiased_std(), 7.0_f64.sqrt());
    let none = Moments::new();
    assert_eq!((none.count(), none.mean(), none.deviations()), (0, 0.0, 0.0));
    assert!(none.variance().is_nan() && none.unbiased_variance().is_nan() && none.std().is_nan());
    let one: Moments = [5.0].into_iter().collect();
    assert_eq!((one.mean(), one.std()), (5.0, 0.0));
    assert!(one.unbiased_std().is_nan());
}

#[test]
fn merged_moments_are_those_of_all_numbers() {
    for (seed, sizes) in [(1, [1, 0, 7]), (2, [100, 3, 1]), (3, [0, 0, 2])] {
        let all = random(seed, sizes.iter().sum());
        let mut merged = Moments::new();
        let mut rest = &all[..];
        for size in sizes {
            let (part, later) = rest.split_at(size);
            rest = later;
            let part: Moments = part.iter().copied().collect();
            let sent = (part.count(), part.mean(), part.deviations());
            merged.merge(&Moments::from_parts(sent.0, sent.1, sent.2).unwrap());
        }
        let at_once: Moments = all.iter().copied().collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let squares = all.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
        assert_eq!(merged.count(), at_once.count());
        for moments in [merged, at_once] {
            close(moments.mean(), mean);
            close(moments.deviations(), squares);
        }
    }
}

#[test]
fn kto_baseline_is_not_negative_and_skips_empty_sequences() {
    let (policy, reference, tokens) = ([-3.0, -1.0, 0.0], [-5.0, -1.0, 0.0], [4.0, 2.0, 0.0]);
    let baseline = |empty| {
        let log_ratios = kto_log_ratios(&policy, &reference, &tokens, empty).unwrap();
        kto_baseline(&log_ratios.into_iter().collect())
    };
    assert_eq!(baseline(EmptySequences::Skip), 1.0);
    assert_eq!(baseline(EmptySequences::SkipZeros), 2.0);
    close(baseline(EmptySequences::Keep), 2.0 / 3.0);
    assert_eq!(kto_baseline(&[-4.0].into_iter().collect()), 0.0);
    assert_eq!(kto_baseline(&Moments::new()), 0.0);
    assert!(kto_baseline(&[f64::NAN].into_iter().collect()).is_nan());
}

#[test]
fn mm_dpo_factors_stay_in_range() {
    let gaps = [f64::NEG_INFINITY, -1.0, -0.0, 2.0 * 2.0_f64.ln(), f64::INFINITY];
    let factors = mm_dpo_beta_factors(&gaps, 0.5, 0.5).unwrap();
    assert_eq!(factors[..3], [1.0; 3]);
    close(factors[3], 1.25);
    assert_eq!(factors[4], 1.5);
    assert_eq!(mm_dpo_beta_factors(&gaps, 0.0, 1.0).unwrap(), [1.0; 5]);
}

/// The sample leaves out the margin with the latest of the exponential times, here by its weight or by its
/// draw; a margin far outside has no weight that f64 could hold.
#[test]
fn mm_dpo_batch_betas_by_hand() {
    let beta =
        |margins: &[f64], draws: &[f64]| mm_dpo_batch_beta(margins, draws, 0.1, 0.5).unwrap();
    close(beta(&[0.0, 1.0, 2.0, 1.0, 6.0], &[0.5; 5]), 0.1 * (1.0 + 0.5 * (1.0 - 2.0)));
    let late = [0.5, 1e-9, 0.5, 0.5, 0.5];
    close(beta(&[0.0, 3.0, 1.0, 2.0, 4.0], &late), 0.1 * (1.0 + 0.5 * (1.75 - 2.0)));
    assert_eq!(beta(&[1.0, 1.0], &[0.5, 0.25]), 0.1);
    let mut margins = vec![0.0; 9999];
    margins.push(-1e6);
    close(beta(&margins, &vec![0.5; 10_000]), 0.1 * (1.0 + 0.5 * 100.0));
    // The floor.
    assert_eq!(beta(&[0.0, 0.0, 0.0, 0.0, 1e6], &[0.5; 5]), 1e-3);
}

#[test]
fn posteriors_have_their_limits() {
    let log_odds = [3.0_f64.ln(), 0.0, 800.0, -800.0, 5.0, 5.0, f64::NEG_INFINITY];
    let got = posteriors(&log_odds, &[0.5, 0.9, 0.9, 0.9, 0.0, 1.0, 1.0]).unwrap();
    for (got, expected) in got.iter().zip([0.75, 0.9, 1.0, 0.0, 0.0, 1.0, 1.0]) {
        close(*got, expected);
    }
}

#[test]
fn reliability_by_hand() {
    let mut reliability = Reliability::new(3).unwrap().with_momentum(0.5).unwrap();
    reliability.update(&[2, 0, 2], &[0.2, 0.7, 0.4]).unwrap();
    let values = reliability.of(&[0, 1, 2, 2]).unwrap();
    for (got, expected) in values.iter().zip([0.8, 0.9, 0.6, 0.6]) {
        close(*got, expected);
    }
    let resumed = Reliability::from_values(reliability.values()).unwrap();
    assert_eq!(resumed.with_momentum(0.5).unwrap(), reliability);
    let before = reliability.clone();
    reliability.update(&[], &[]).unwrap();
    assert_eq!(reliability, before);
}

#[test]
fn kendall_of_equal_and_reversed_orders() {
    for count in [2, 3, 10] {
        let scores = random(count, count as usize);
        let shifted: Vec<f64> = scores.iter().map(|x| 2.0 * x - 7.0).collect();
        let reversed: Vec<f64> = scores.iter().map(|x| -x).collect();
        assert_eq!(kendall_tau(&scores, &shifted).unwrap(), 1.0);
        assert_eq!(kendall_tau(&scores, &reversed).unwrap(), -1.0);
        assert_eq!(consistency(&scores, &reversed).unwrap(), 0.0);
        let other = random(count + 50, count as usize);
        let tau = kendall_tau(&scores, &other).unwrap();
        close(tau, kendall_tau(&other, &scores).unwrap());
        close(tau, -kendall_tau(&reversed, &other).unwrap());
    }
    assert_eq!(kendall_tau(&[0.0, -0.0], &[1.0, 2.0]).unwrap(), 1.0);
    close(kendall_tau(&[1.0, 2.0, 3.0], &[1.0, 3.0, 2.0]).unwrap(), 1.0 / 3.0);
}

/// Number 5 and 6 of the last 50, counted from 0: 17 and 18 of 12 to 61.
#[test]
fn confidence_threshold_slides() {
    let mut threshold = ConfidenceThreshold::default();
    for margin in (0..62).rev() {
        assert_eq!(threshold.value(), if margin < 12 { f64::from(margin) + 6.5 } else { 0.0 });
        threshold.push(f64::from(margin)).unwrap();
    }
    assert_eq!(threshold.value(), 5.5);
    assert_eq!(threshold.soft_labels(&[5.5, 5.6, -9.0], 0.0).unwrap(), [1.0; 3]);
    assert_eq!(threshold.soft_labels(&[5.5, 5.6], 0.25).unwrap(), [0.75, 1.0]);
    assert_eq!(ConfidenceThreshold::default().soft_labels(&[0.0], 0.1).unwrap(), [0.9]);
}

#[test]
fn win_rates_and_their_extremes() {
    let rates = win_rates(&[3.0_f64.ln(), 0.0]).unwrap();
    close(rates[0], 0.625);
    close(rates[1], 0.375);
    let scores = random(3, 9);
    close(win_rates(&scores).unwrap().iter().sum(), 4.5);
    assert_eq!(win_rates(&[]).unwrap(), [0.0; 0]);
    assert_eq!(best_and_worst(&[1.0, 3.0, 0.0, 3.0, 0.0]).unwrap(), (1, 2));
    assert_eq!(best_and_worst(&[2.0, 2.0]).unwrap(), (0, 0));
}

#[test]
fn fused_references_by_hand() {
    let pairs = Pairs::new(vec![(0, 1), (0, 3)]).unwrap();
    let (pivot, first, second) =
        ([-2.0, -2.0, -2.0, -1.0], [-1.0, -1.0, -1.0, -3.0], [-3.0, -4.0, -3.0, -0.5]);
    let fuse = |fusion| fuse_references(&[&first, &second], &pivot, &pairs, fusion).unwrap();
    assert_eq!(fuse(Fusion::MaxMargin), [-1.0, -4.0, -2.0, -3.0]);
    assert_eq!(fuse(Fusion::Mean), [-1.5, -3.0, -2.0, -2.0]);
    let got = fuse(Fusion::Confidence { epsilon: 1.0 });
    close(got[0], (-1.0 / 2.0 - 2.0 / 4.0) / (1.0 / 2.0 + 1.0 / 4.0));
    close(got[3], (-3.0 / 4.0 - 1.0 / 1.5) / (1.0 / 4.0 + 1.0 / 1.5));
    assert_eq!(got[2], -2.0);
}

#[test]
fn probabilities_and_rewards_by_hand() {
    let (labels, packing) = (Labels::new(&[0, -100, 0, 0]), Packing::new(&[0, 3, 3, 4]).unwrap());
    let weights = Weights::new(&[2.0, 1.0, 0.0, -1.0][..]).unwrap();
    let log_probs = [0.25_f32.ln(), f32::NAN, f32::NAN, -800.0];
    let sums = probability_sums(&log_probs, &labels, Some(&weights), &packing).unwrap();
    close(sums[0], f64::from(0.25_f32.ln()).exp());
    assert_eq!(sums[1..], [0.0, 0.0]);
    let pairs = Pairs::new(vec![(0, 1), (2, 3), (4, 5)]).unwrap();
    let (with, without) = ([2.0, 1.0, 1.02, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let rewards = align_xplore_rewards(&pairs, &with, &without, ALIGN_XPLORE_THRESHOLD).unwrap();
    assert_eq!(rewards, [1.0, 0.0, 0.0]);
}

#[test]
fn calibration_bins_are_closed_above() {
    let error = |probability, outcome| {
        expected_calibration_error(&[probability, 0.5], &[outcome, 0.5], 4).unwrap()
    };
    close(error(0.5, 0.0), 0.25);
    // In the bin of 0.5: its surplus cancels the lack of the other.
    close(expected_calibration_error(&[0.5, 0.3], &[0.0, 0.8], 4).unwrap(), 0.0);
    close(expected_calibration_error(&[0.25, 0.3], &[0.0, 0.55], 4).unwrap(), 0.25);
    close(expected_calibration_error(&[0.0, 1.0], &[0.0, 1.0], 7).unwrap(), 0.0);
    assert_eq!(accuracy(&[-0.0, f64::INFINITY]).unwrap(), 0.5);
    // Every edge lies in the bin below it, whatever it rounds to.
    for bins in [3, 5, 10, 49, 100] {
        for bin in 1..bins {
            let edge = bin as f64 / bins as f64;
            let below = edge - 0.5 / bins as f64;
            let error = expected_calibration_error(&[edge, below], &[below, edge], bins).unwrap();
            close(error, 0.0);
        }
    }
}

/// One pair has one rank; so have pairs in the order of both.
#[test]
fn aot_of_one_pair_is_the_pair() {
    let (policy, reference) = (random(1, 4), random(2, 4));
    let pairs = Pairs::new(vec![(3, 1)]).unwrap();
    assert_eq!(aot_reference(&pairs, &policy, &reference).unwrap(), reference);
    assert_eq!(aot_unpaired(&pairs, &policy, &reference).unwrap(), pairs);
}

/// The paired form pairs the sorted gaps, the other the sorted log-ratios; nothing is lost.
#[test]
fn aot_sorts_both_sides() {
    let count = 9;
    let (policy, reference) = (random(5, 2 * count), random(6, 2 * count));
    let pairs = Pairs::interleaved(count).unwrap();
    let matched = aot_reference(&pairs, &policy, &reference).unwrap();
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let gaps = |sums: &[f64]| -> Vec<f64> {
        pairs.indices().iter().map(|&(chosen, rejected)| sums[chosen] - sums[rejected]).collect()
    };
    let both: Vec<(f64, f64)> = gaps(&policy).into_iter().zip(gaps(&matched)).collect();
    let mut by_policy = both.clone();
    by_policy.sort_by(|a, b| a.0.total_cmp(&b.0));
    let references: Vec<f64> = by_policy.iter().map(|both| both.1).collect();
    assert_eq!(references, sorted(gaps(&reference)));
    assert_eq!(sorted(matched), sorted(reference.clone()));

    let matched = aot_unpaired(&pairs, &policy, &reference).unwrap();
    let log_ratio = |s: usize| policy[s] - reference[s];
    for pair in matched.indices().windows(2) {
        assert!(log_ratio(pair[0].0) < log_ratio(pair[1].0));
        assert!(log_ratio(pair[0].1) < log_ratio(pair[1].1));
    }
    let mut all: Vec<usize> = matched.indices().iter().flat_map(|&(c, r)| [c, r]).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..2 * count));
}

/// Equal gaps rank by position, -0 and 0 too.
#[test]
fn aot_ties_rank_by_position() {
    let pairs = Pairs::halves(3).unwrap();
    let policy = [1.0, 0.0, -0.0, 1.0, -0.0, 0.0];
    let reference = [5.0, 3.0, 4.0, 0.0, 0.0, 0.0];
    let matched = aot_reference(&pairs, &policy, &reference).unwrap();
    assert_eq!(matched, [3.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
    let matched = aot_unpaired(&pairs, &[0.0; 6], &[0.0; 6]).unwrap();
    assert_eq!(matched, pairs);
}

#[test]
fn wpo_by_hand() {
    let (labels, packing) = (Labels::new(&[0, 0, 0, -100]), Packing::new(&[0, 2, 3, 4]).unwrap());
    let weights = Weights::new(&[1.0, -3.0, 0.0, 1.0][..]).unwrap();
    let (log_probs, squares) = ([-1.0, -2.0, f64::NAN, f64::NAN], [-2.0, -2.0, 0.0, 0.0]);
    let got = wpo_weights(&log_probs, &squares, &labels, Some(&weights), &packing).unwrap();
    close(got[0], 0.5_f64.exp());
    assert_eq!(got[1..], [1.0, 1.0]);
    let pairs = Pairs::new(vec![(0, 1), (1, 2)]).unwrap();
    let clamped = wpo_pair_weights(&pairs, &[2.0, 3.0, 0.1], WpoClamp::AtOne).unwrap();
    assert_eq!(clamped[0], 1.0);
    close(clamped[1], 0.3);
    assert_eq!(wpo_pair_weights(&pairs, &[2.0, 3.0, 0.5], WpoClamp::None).unwrap(), [6.0, 1.5]);
    let own = pairs.clone().with_weight(&[0.5, -2.0]).unwrap();
    assert_eq!(wpo_pair_weights(&own, &[2.0, 3.0, 0.5], WpoClamp::None).unwrap(), [3.0, -3.0]);
    assert_eq!(wpo_pair_weights(&own, &[2.0, 3.0, 0.5], WpoClamp::AtOne).unwrap(), [0.5, -2.0]);
}

fn tokens() -> (Labels<'static>, Weights<'static>, Packing) {
    let labels = Labels::new(vec![0, -100, 0, 0, 0, 0, 0, 0]);
    let weights = Weights::new(vec![2.0, 1.0, 1.0, 0.0, -1.0, 1.0, 1.0, 0.5]).unwrap();
    (labels, weights, Packing::new(&[0, 5, 6, 8]).unwrap())
}

/// The counted tokens of the sequences are 0, 2 and 4; 5; 6 and 7.
#[test]
fn token_weights_multiply_those_given() {
    let (labels, weights, packing) = tokens();
    let pairs = Pairs::new(vec![(0, 1)]).unwrap();
    let got = ld_dpo_weights(0.5, &labels, Some(&weights), &packing, &pairs).unwrap();
    assert_eq!(got.host().unwrap(), [2.0, 0.0, 0.5, 0.0, -0.5, 1.0, 1.0, 0.5]);
    // Of the policy alone: the reference's sums are whole.
    let reference = ReferenceLogProbs::per_sequence_weighted(&[-3.0, -1.0, 0.0]);
    let batch = Batch::new(labels.clone(), packing.clone())
        .and_then(|batch| {
            batch.with_weights(got)?.with_pairs(pairs.clone())?.with_reference(reference)
        })
        .unwrap();
    let loss = Loss::new(batch, [Term::pairs(Dpo::new(1.0))]).unwrap();
    let forward = loss.forward(&Reference::new(), Logits::new(&[0.0; 16], 8, 2).unwrap()).unwrap();
    let sums = [2.0, 1.0].map(|weights| -weights * std::f64::consts::LN_2);
    close(forward.terms()[0].rewards[0][0], sums[0] + 3.0);
    close(forward.terms()[0].rewards[0][1], sums[1] + 1.0);

    let (aligned, reference) =
        ([-1.0_f32; 8], [-3.0, f32::NAN, -1.0, f32::NAN, -2.0, 0.0, 9.0, 9.0]);
    let settings = TgDpo { alpha: 2.0, beta: 0.5 };
    let got =
        settings.weights(&aligned, &reference, &labels, Some(&weights), &packing, &pairs).unwrap();
    assert_eq!(got.host().unwrap(), [6.0, 0.0, 1.0, 0.0, -2.0, 2.0, 1.0, 0.5]);
    assert_eq!(TgDpo::default(), TgDpo { alpha: 0.5, beta: 0.1 });

    let wins = [1.0, 0.0, 0.5];
    let reference = reference.map(|x| if x == 9.0 { -1.0 } else { x });
    let got = nash_md_weights(&aligned, &reference, &wins, 0.25, &labels, Some(&weights), &packing)
        .unwrap();
    assert_eq!(got.host().unwrap(), [0.0, 0.0, -0.5, 0.0, 0.25, 0.25, 0.0, 0.0]);

    let settings = NextQuill { high: 1.0, low: 0.5, threshold: 0.0 };
    let without = [-2.0, f32::NAN, -1.0, f32::NAN, -0.5, -2.0, -1.0, f32::NEG_INFINITY];
    let (got, sum) = settings.weights(&aligned, &without, &labels, Some(&weights)).unwrap();
    assert_eq!(got.host().unwrap(), [2.0, 0.0, 0.5, 0.0, -0.5, 1.0, 0.5, 0.5]);
    assert_eq!(sum, 4.0);
}

/// The counted tokens are 0, 2, 4, 5, 6 and 7, of entropies 1, 3, 2, 2, 0 and 4.
#[test]
fn entropy_quantiles_by_hand() {
    let (labels, weights, packing) = tokens();
    let entropies = [1.0_f32, f32::NAN, 3.0, f32::NAN, 2.0, 2.0, 0.0, 4.0];
    let by_sequence = Advantages::per_sequence(&[1.0, -2.0, 3.0]).unwrap();
    let kept = |advantages: &Advantages<'_>, share| {
        mask_low_entropy(advantages, &entropies, share, &labels, Some(&weights), &packing)
            .and_then(|masked| masked.slice().to_vec())
            .map(|masked| [0, 2, 4, 5, 6, 7].map(|token| masked[token]))
            .unwrap()
    };
    assert_eq!(kept(&by_sequence, 0.0), [0.0, 0.0, 0.0, 0.0, 0.0, 3.0]);
    // Up to number 0.19 * 5 and 0.2 * 5 from the top, counted from 0.
    assert_eq!(kept(&by_sequence, 0.19), [0.0, 0.0, 0.0, 0.0, 0.0, 3.0]);
    assert_eq!(kept(&by_sequence, 0.2), [0.0, 1.0, 0.0, 0.0, 0.0, 3.0]);
    // Both of the equal entropies.
    assert_eq!(kept(&by_sequence, 0.5), [0.0, 1.0, 1.0, -2.0, 0.0, 3.0]);
    assert_eq!(kept(&by_sequence, 1.0), [1.0, 1.0, 1.0, -2.0, 3.0, 3.0]);
    let by_token = Advantages::per_token(&[1.0, f64::NAN, 2.0, f64::NAN, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(kept(&by_token, 0.5), [0.0, 2.0, 3.0, 4.0, 0.0, 6.0]);
    let none = Labels::new(vec![-100; 8]);
    assert!(mask_low_entropy(&by_token, &entropies, 0.5, &none, None, &packing).is_ok());
}

/// Means of old less policy over the counted tokens: (2 + 0 + 1) / 3, 1.5, and 0 without tokens.
#[test]
fn off_policy_by_hand() {
    let (labels, weights, _) = tokens();
    let packing = Packing::new(&[0, 5, 8, 8]).unwrap();
    let old = [2.0_f32, f32::NAN, 0.0, f32::NAN, 1.0, 3.0, 1.0, 0.5];
    let masked = |advantages: &Advantages<'_>, threshold| {
        let policy = [0.0; 8];
        mask_off_policy(advantages, &policy, &old, threshold, &labels, Some(&weights), &packing)
            .and_then(|masked| masked.slice().to_vec())
            .unwrap()
    };
    let negative = Advantages::per_sequence(&[-1.0, -2.0, -3.0]).unwrap();
    assert_eq!(masked(&negative, 0.9), [0.0; 8]);
    let second = [-1.0, -1.0, -1.0, -1.0, -1.0, 0.0, 0.0, 0.0];
    assert_eq!(masked(&negative, 1.0), second);
    assert_eq!(masked(&negative, 1.5)[5..], [-2.0; 3]);
    let positive = Advantages::per_sequence(&[1.0, 0.0, 2.0]).unwrap();
    assert_eq!(masked(&positive, 0.0)[..6], [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
    let by_token = Advantages::per_token(&[-1.0, 1.0, 2.0, 3.0, 4.0, -5.0, 6.0, -7.0]);
    assert_eq!(masked(&by_token, 1.2), [-1.0, 1.0, 2.0, 3.0, 4.0, 0.0, 6.0, 0.0]);
}

#[test]
fn selections_by_hand() {
    let margins = [1.0, f64::NEG_INFINITY, 2.0, 1.0, 0.5];
    assert_eq!(keep_largest(&margins, 0.4).unwrap(), [0, 2]);
    assert_eq!(keep_largest(&margins, 0.5).unwrap(), [0, 2, 3]);
    assert_eq!(keep_largest(&margins, 1.0).unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(keep_largest(&margins, 0.0).unwrap(), [0; 0]);
    // 0.29 * 100 is 28.999999999999996.
    assert_eq!(keep_largest(&random(1, 100), 0.29).unwrap().len(), 29);
    assert_eq!(easy_pairs(&[1.0, -1.0, -1.5, 0.0], 1.0).unwrap(), [2]);
}

#[test]
fn odds_have_their_limits() {
    let got = log_odds(&[0.5_f64.ln(), 0.0, f64::NEG_INFINITY, -1e-300]).unwrap();
    close(got[0], 0.0);
    assert_eq!(got[1..3], [f64::INFINITY, f64::NEG_INFINITY]);
    close(got[3], 300.0 * 10.0_f64.ln());
    let ratios = log_odds_ratios(&[0.0, -1.0, 0.0, -1.0], &[0.0, 0.0, -1.0, -1.0]).unwrap();
    assert_eq!(ratios, [0.0, f64::NEG_INFINITY, f64::INFINITY, 0.0]);
    close(preference_log_odds(&[0.75]).unwrap()[0], 3.0_f64.ln());
    close(strength_log_odds(&[3.0], &[2.0]).unwrap()[0], 1.5_f64.ln());
}

/// The loss of a batch under AOT is that of its sorted gaps, through the whole of stage 3.
#[test]
fn aot_through_a_loss() {
    let count = 6;
    let (policy, reference) = (random(8, 2 * count), random(9, 2 * count));
    let pairs = Pairs::halves(count).unwrap();
    let matched = aot_reference(&pairs, &policy, &reference).unwrap();
    let batch = Batch::of_sequences(2 * count)
        .and_then(|batch| batch.with_pairs(pairs))
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(&matched)))
        .unwrap();
    let loss = Loss::new(batch.clone(), [Term::pairs(Dpo::new(0.5))]);
    assert!(loss.is_err(), "a batch without tokens is for scalar losses");
    let loss = ScalarLoss::new(batch, [Term::pairs(Dpo::new(0.5))]).unwrap();
    let forward = loss.forward(&Reference::new(), Slice::new(&policy), None).unwrap();
    let sorted = |sums: &[f64]| {
        let mut gaps: Vec<f64> = (0..count).map(|i| sums[i] - sums[count + i]).collect();
        gaps.sort_by(f64::total_cmp);
        gaps
    };
    let gaps = sorted(&policy).into_iter().zip(sorted(&reference));
    let losses = gaps.map(|(u, v)| (-0.5 * (u - v)).exp().ln_1p());
    close(forward.loss(), losses.sum::<f64>() / count as f64);
    assert_eq!(forward.grads(&Reference::new(), Upstream::Loss(1.0)).unwrap().len(), 2 * count);
}

/// Weights that follow from the log-probs, and the loss under them, from one visit of the logits.
#[test]
fn nash_md_and_next_quill_through_a_loss() {
    let (count, vocab) = (24, 33);
    let data: Vec<f32> = logits(4, count, vocab);
    let ids = labels(4, &data, vocab);
    let (labels, packing) = (Labels::new(&ids[..]), Packing::new(&[0, 5, 5, 17, 24]).unwrap());
    let backend = Reference::new();
    let data = Placed::new(&backend, &exact(&data));
    let options = RowOptions::default();
    let visit = || token_log_probs(&backend, data.logits(count, vocab), &labels, None, options);
    let tokens = visit().unwrap();
    let policy = tokens.log_probs().host::<f64>().unwrap().to_vec();
    let mut rng = rng(4);
    let other: Vec<f64> = policy.iter().map(|x| x - rng.random::<f64>()).collect();
    let sum = |weights: &Weights<'_>| -> f64 {
        let weights = weights.host().unwrap().iter().copied().map(f64::from);
        weights.zip(&policy).map(|(weight, x)| weight * x).sum()
    };
    let evaluate = |weights: Weights<'static>, term: Term| {
        let batch = Batch::new(labels.clone(), packing.clone())
            .and_then(|batch| batch.with_weights(weights))
            .unwrap();
        Loss::new(batch, [term]).unwrap().evaluate(&backend, visit().unwrap()).unwrap().loss()
    };
    let nll = || Term::sequences(Nll::new(), Sequences::All);

    let wins = [0.2, 0.5, 0.9, 1.0];
    let weights = nash_md_weights(&policy, &other, &wins, 0.1, &labels, None, &packing).unwrap();
    let expected = sum(&weights) / 4.0;
    close(evaluate(weights, nll().with_weight(-1.0)), expected);

    let (weights, total) = NextQuill::default().weights(&policy, &other, &labels, None).unwrap();
    let expected = -sum(&weights) / total;
    close(evaluate(weights, nll().with_reduction(Reduction::Divisor(total))), expected);
}
