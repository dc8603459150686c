//! What the statistics refuse: an error that names both sides, and never a panic.

use prefuse::batch::{Advantages, Labels, Packing, Pairs, Weights};
use prefuse::statistics::*;

use crate::common::refused;

const NAN: f64 = f64::NAN;

fn halves() -> Pairs<'static> {
    Pairs::halves(1).unwrap()
}

#[test]
fn numbers_outside_their_domain() {
    refused(Moments::from_parts(1, NAN, 0.0), "mean: expected a finite number, got NaN");
    refused(
        Moments::from_parts(u64::MAX, 0.0, 0.0),
        "count: expected a number up to 2^53, got 1.8446744073709552e19",
    );
    let mut most = Moments::from_parts(1 << 53, 0.0, 0.0).unwrap();
    most.add(1.0);
    (0..2000).for_each(|_| most.merge(&most.clone()));
    assert_eq!(most.count(), u64::MAX);
    // What moments hold can be sent to another rank, and stays what it is.
    let large: Moments = [1e16, -1e16].into_iter().collect();
    let sent = Moments::from_parts(large.count(), large.mean(), large.deviations()).unwrap();
    assert_eq!(sent, large);
    let far = Moments::from_parts(3, f64::MAX, 0.5).unwrap();
    let mut empty = Moments::new();
    empty.merge(&far);
    assert_eq!(empty, far);
    refused(
        Moments::from_parts(1, 0.0, -1.0),
        "sum of squared deviations: expected a finite number of at least 0, got -1.0",
    );
    refused(
        mm_dpo_beta_factors(&[1.0, NAN], 0.5, 0.5),
        "reward gap of pair 1: expected a number, got NaN",
    );
    refused(
        mm_dpo_beta_factors(&[1.0], -0.5, 0.5),
        "weight: expected a number from 0 to 1e30, got -0.5",
    );
    refused(
        mm_dpo_beta_factors(&[1.0], 0.5, 0.0),
        "k: expected a number from 1e-30 to 1e30, got 0.0",
    );
    let batch = |margins: &[f64], draws: &[f64]| mm_dpo_batch_beta(margins, draws, 0.1, 0.1);
    refused(batch(&[1.0], &[0.5]), "margins: expected at least 2, got 1");
    refused(batch(&[1.0; 2], &[0.5]), "draws: expected length 2, got 1");
    refused(
        batch(&[1.0; 2], &[0.5, 1.0]),
        "draw of pair 1: expected a number above 0 and below 1, got 1.0",
    );
    refused(posteriors(&[NAN], &[0.5]), "log-odds of pair 0: expected a number, got NaN");
    refused(
        posteriors(&[0.0, 0.0], &[0.5, 1.1]),
        "reliability of pair 1: expected a number from 0 to 1, got 1.1",
    );
    refused(
        win_rates(&[0.0, f64::INFINITY]),
        "score of sequence 1: expected a finite number, got inf",
    );
    refused(best_and_worst(&[NAN]), "score of sequence 0: expected a finite number, got NaN");
    refused(
        kendall_tau(&[0.0, NAN], &[0.0, 1.0]),
        "first score of sequence 1: expected a number, got NaN",
    );
    refused(
        consistency(&[0.0, 1.0], &[NAN, 1.0]),
        "second score of sequence 0: expected a number, got NaN",
    );
    refused(accuracy(&[NAN]), "margin of pair 0: expected a number, got NaN");
    refused(
        expected_calibration_error(&[1.5], &[1.0], 5),
        "probability of pair 0: expected a number from 0 to 1, got 1.5",
    );
    refused(
        expected_calibration_error(&[0.5], &[NAN], 5),
        "outcome of pair 0: expected a number from 0 to 1, got NaN",
    );
    refused(keep_largest(&[NAN], 0.5), "margin of pair 0: expected a number, got NaN");
    refused(keep_largest(&[0.0], 1.5), "share: expected a number from 0 to 1, got 1.5");
    refused(easy_pairs(&[NAN], 0.5), "reward gap of pair 0: expected a number, got NaN");
    refused(easy_pairs(&[0.0], NAN), "threshold: expected a number from 0 to 1e30, got NaN");
    refused(
        log_odds(&[-1.0, 0.1]),
        "average log-prob of sequence 1: expected a number up to 0, got 0.1",
    );
    refused(
        log_odds_ratios(&[-1.0], &[NAN]),
        "rejected average of pair 0: expected a number up to 0, got NaN",
    );
    refused(
        preference_log_odds(&[1.0]),
        "probability of pair 0: expected a number above 0 and below 1, got 1.0",
    );
    refused(
        strength_log_odds(&[1.0], &[0.0]),
        "rejected strength of pair 0: expected a finite number above 0, got 0.0",
    );
}

#[test]
fn lists_that_do_not_fit() {
    refused(
        kto_log_ratios(&[0.0], &[0.0], &[], EmptySequences::Skip),
        "token counts: expected length 1, got 0",
    );
    refused(
        kto_log_ratios(&[0.0], &[], &[1.0], EmptySequences::Skip),
        "reference sums: expected length 1, got 0",
    );
    refused(posteriors(&[0.0], &[]), "reliability: expected length 1, got 0");
    refused(kendall_tau(&[0.0, 1.0], &[0.0]), "scores: expected length 2, got 1");
    refused(kendall_tau(&[], &[]), "responses: expected at least 2, got 0");
    refused(consistency(&[1.0], &[1.0]), "responses: expected at least 2, got 1");
    refused(best_and_worst(&[]), "responses: expected at least 1, got 0");
    refused(accuracy(&[]), "pairs: expected at least 1, got 0");
    refused(expected_calibration_error(&[], &[], 5), "predictions: expected at least 1, got 0");
    refused(expected_calibration_error(&[0.5], &[1.0], 0), "bins: expected at least 1, got 0");
    refused(expected_calibration_error(&[0.5], &[], 5), "outcomes: expected length 1, got 0");
    refused(
        expected_calibration_error(&[0.5], &[0.5], usize::MAX),
        "bins: expected a number that fits in memory, got 18446744073709551615",
    );
    refused(log_odds_ratios(&[], &[0.0]), "rejected averages: expected length 0, got 1");
    refused(strength_log_odds(&[], &[1.0]), "rejected strengths: expected length 0, got 1");
    refused(
        wpo_pair_weights(&halves(), &[1.0], WpoClamp::None),
        "rejected of pair 0: expected a sequence below 1, got 1",
    );
    refused(
        align_xplore_rewards(&halves(), &[1.0; 2], &[1.0], 1.03),
        "sums without the preference: expected length 2, got 1",
    );
    refused(
        align_xplore_rewards(&halves(), &[1.0], &[1.0], 1.03),
        "rejected of pair 0: expected a sequence below 1, got 1",
    );
    refused(
        align_xplore_rewards(&halves(), &[1.0, -1.0], &[1.0; 2], 1.03),
        "sum with the preference of sequence 1: expected a finite number from 0, got -1.0",
    );
    refused(
        align_xplore_rewards(&halves(), &[1.0; 2], &[NAN, 1.0], 1.03),
        "sum without the preference of sequence 0: expected a finite number from 0, got NaN",
    );
    refused(
        align_xplore_rewards(&halves(), &[1.0; 2], &[1.0; 2], -1.0),
        "threshold: expected a number from 0 to 1e30, got -1.0",
    );
}

#[test]
fn reliability() {
    refused(Reliability::new(0), "annotators: expected at least 1, got 0");
    refused(
        Reliability::new(usize::MAX),
        "annotators: expected a number that fits in memory, got 18446744073709551615",
    );
    refused(Reliability::from_values([]), "annotators: expected at least 1, got 0");
    refused(
        Reliability::from_values([0.5, NAN]),
        "reliability: expected a number from 0 to 1, got NaN",
    );
    let mut reliability = Reliability::new(2).unwrap();
    refused(
        reliability.clone().with_initial(0.4),
        "initial reliability: expected a number from 0.5 to 1, got 0.4",
    );
    refused(
        reliability.clone().with_momentum(-0.1),
        "momentum: expected a number from 0 to 1, got -0.1",
    );
    refused(reliability.of(&[0, 2]), "annotator of pair 1: expected a number below 2, got 2");
    refused(
        reliability.update(&[0, 5], &[0.5, 0.5]),
        "annotator of pair 1: expected a number below 2, got 5",
    );
    refused(reliability.update(&[0], &[]), "posteriors: expected length 1, got 0");
    refused(
        reliability.update(&[0, 1], &[0.5, NAN]),
        "posterior of pair 1: expected a number from 0 to 1, got NaN",
    );
    assert_eq!(reliability.values(), [0.9; 2]);
}

#[test]
fn confidence_threshold() {
    refused(ConfidenceThreshold::new(1, 0.1), "window: expected at least 2, got 1");
    let expected = "expected a number from 0 whose order statistics are in the window";
    for (window, quantile) in [(2, 0.5), (50, 0.98), (50, 1.0), (10, -0.1), (10, NAN)] {
        refused(
            ConfidenceThreshold::new(window, quantile),
            &format!("quantile: {expected}, got {quantile:?}"),
        );
    }
    assert!(ConfidenceThreshold::new(50, 0.97).is_ok());
    let mut threshold = ConfidenceThreshold::new(2, 0.0).unwrap();
    refused(threshold.push(NAN), "margin: expected a finite number, got NaN");
    refused(threshold.soft_labels(&[NAN], 0.1), "margin of pair 0: expected a number, got NaN");
    refused(threshold.soft_labels(&[0.0], 1.1), "strength: expected a number from 0 to 1, got 1.1");
}

#[test]
fn fused_references() {
    let (pivot, source) = ([-1.0, -2.0], [-1.5, -0.5]);
    let fuse = |sources: &[&[f64]], pairs: &Pairs<'_>, fusion| {
        fuse_references(sources, &pivot, pairs, fusion)
    };
    let (max, pairs) = (Fusion::MaxMargin, halves());
    refused(fuse(&[], &pairs, max), "sources: expected at least 1, got 0");
    refused(fuse(&[&source, &[0.0]], &pairs, max), "source averages: expected length 2, got 1");
    refused(
        fuse(&[&[-1.0, NAN]], &pairs, max),
        "source average of sequence 1: expected a finite number, got NaN",
    );
    refused(
        fuse(&[&[-1.0, 0.5]], &pairs, Fusion::Confidence { epsilon: 1e-6 }),
        "source average of sequence 1: expected a finite number up to 0, got 0.5",
    );
    refused(
        fuse(&[&source], &pairs, Fusion::Confidence { epsilon: 0.0 }),
        "epsilon: expected a number from 1e-30 to 1e30, got 0.0",
    );
    refused(
        fuse_references(&[&source], &[f64::NEG_INFINITY, 0.0], &pairs, Fusion::Mean),
        "pivot average of sequence 0: expected a finite number, got -inf",
    );
    refused(
        fuse(&[&source], &Pairs::halves(2).unwrap(), max),
        "rejected of pair 0: expected a sequence below 2, got 2",
    );
    refused(
        fuse(&[&source], &Pairs::new(vec![(0, 1), (1, 0)]).unwrap(), max),
        "sequence 1: expected one role in all pairs, got chosen and rejected",
    );
}

#[test]
fn aot() {
    let sums = [-1.0, -2.0, -3.0, -4.0];
    let pairs = Pairs::halves(2).unwrap();
    refused(aot_reference(&pairs, &sums, &sums[1..]), "reference sums: expected length 4, got 3");
    refused(
        aot_reference(&Pairs::halves(3).unwrap(), &sums, &sums),
        "rejected of pair 1: expected a sequence below 4, got 4",
    );
    refused(
        aot_reference(&Pairs::new(vec![(0, 1), (2, 3), (0, 3)]).unwrap(), &sums, &sums),
        "sequence 0: expected one pair, got 0 and 2",
    );
    refused(
        aot_unpaired(&Pairs::new(vec![(0, 1), (1, 2)]).unwrap(), &sums, &sums),
        "sequence 1: expected one pair, got 0 and 1",
    );
    refused(
        aot_reference(&pairs, &[0.0, NAN, 0.0, 0.0], &sums),
        "policy sum of sequence 1: expected a finite number, got NaN",
    );
    refused(
        aot_unpaired(&pairs, &sums, &[0.0, 0.0, 0.0, f64::NEG_INFINITY]),
        "reference sum of sequence 3: expected a finite number, got -inf",
    );
    refused(
        aot_unpaired(&pairs.clone().with_margin(&[0.0, 0.5][..]).unwrap(), &sums, &sums),
        "margin of pair 1: aot_unpaired does not use it, expected the neutral 0, got 0.5",
    );
    let verdicts = pairs.clone().with_verdicts(&[(0, 1), (2, 3)][..]).unwrap();
    refused(
        aot_unpaired(&verdicts, &sums, &sums),
        "verdicts: expected a term that uses them, got none",
    );
    let neutral = pairs.with_weight(&[1.0; 2][..]).unwrap();
    assert!(aot_unpaired(&neutral, &sums, &sums).is_ok());
}

#[test]
fn group_advantages() {
    let settings = GroupAdvantages::default();
    refused(settings.of(&[0.0; 2], &[0]), "prompts: expected length 2, got 1");
    refused(
        settings.of(&[0.0, NAN], &[0; 2]),
        "reward of sequence 1: expected a finite number, got NaN",
    );
    for spread in [
        Spread::Group { epsilon: -1.0 },
        Spread::GroupPopulation { epsilon: NAN },
        Spread::Batch { epsilon: f64::INFINITY },
    ] {
        assert!(GroupAdvantages { spread, ..settings }.of(&[0.0; 2], &[0; 2]).is_err());
    }
    refused(
        GroupAdvantages { spread: Spread::Group { epsilon: -1.0 }, ..settings }.of(&[0.0], &[0]),
        "epsilon: expected a number from 0 to 1e30, got -1.0",
    );
    refused(
        settings.of(&[1e308, -1e308], &[0; 2]),
        "advantage of sequence 0: expected a finite number, got NaN",
    );
    refused(prompt_scaled(&[1.0; 2], &[0], &[1.0]), "prompts: expected length 2, got 1");
    refused(
        prompt_scaled(&[1.0; 2], &[0, 1], &[1.0]),
        "prompt of sequence 1: expected a number below 1, got 1",
    );
    refused(
        prompt_scaled(&[1.0], &[0], &[1.0, NAN]),
        "factor of a prompt: expected a finite number, got NaN",
    );
    refused(without_neutral(&[1.0], &[]), "neutral responses: expected length 1, got 0");
    refused(ranks(&[0.0, NAN], Ties::Dense), "score of sequence 1: expected a number, got NaN");
}

#[test]
fn p3o() {
    let pairs = Pairs::halves(2).unwrap();
    let (sums, nan) = ([-1.0, -2.0, -3.0, -4.0], [0.0, 0.0, NAN, 0.0]);
    let settings = P3oAdvantages::default();
    let all = |settings: P3oAdvantages, pairs: &Pairs<'_>, lists: [&[f64]; 4], expected: &str| {
        let [policy, old, reference, rewards] = lists;
        refused(settings.separate(pairs, policy, old, reference, rewards), expected);
        refused(settings.joint(pairs, policy, old, reference, rewards), expected);
        refused(settings.by_token(pairs, policy, old, reference, rewards), expected);
    };
    let good: [&[f64]; 4] = [&sums; 4];
    let lists = ["policy", "old", "reference"];
    for (position, list) in lists.iter().enumerate().skip(1) {
        let mut short = good;
        short[position] = &sums[1..];
        all(settings, &pairs, short, &format!("{list} sums: expected length 4, got 3"));
    }
    all(settings, &pairs, [&sums, &sums, &sums, &[0.0]], "rewards: expected length 4, got 1");
    for (position, what) in ["policy sum", "old sum", "reference sum", "reward"].iter().enumerate()
    {
        let mut bad = good;
        bad[position] = &nan;
        let expected = format!("{what} of sequence 2: expected a finite number, got NaN");
        all(settings, &pairs, bad, &expected);
    }
    let beta = P3oAdvantages { beta: -0.1, ..settings };
    all(beta, &pairs, good, "beta: expected a number from 0 to 1e30, got -0.1");
    let truncation = P3oAdvantages { truncation: 0.5, ..settings };
    all(truncation, &pairs, good, "truncation: expected a number from 1 to 1e30, got 0.5");
    let beyond = Pairs::halves(3).unwrap();
    all(settings, &beyond, good, "rejected of pair 1: expected a sequence below 4, got 4");
    let weighted = pairs.clone().with_weight(&[1.0, 2.0][..]).unwrap();
    all(
        settings,
        &weighted,
        good,
        "weight of pair 1: P3oAdvantages does not use it, expected the neutral 1, got 2.0",
    );
    let scaled = P3oAdvantages { scaled: true, ..settings };
    all(scaled, &halves(), good, "pairs: expected at least 2, got 1");
    let constant =
        "standard deviation of the differences: expected a number from 1e-30 to 1e30, got 0.0";
    all(scaled, &pairs, [&sums, &sums, &sums, &[1.0, 1.0, 0.0, 0.0]], constant);
    let twice = Pairs::new(vec![(0, 1), (0, 2)]).unwrap();
    let conflict = "sequence 0: expected one pair, got 0 and 1";
    refused(settings.separate(&twice, &sums, &sums, &sums, &sums), conflict);
    refused(settings.by_token(&twice, &sums, &sums, &sums, &sums), conflict);
    assert!(settings.joint(&twice, &sums, &sums, &sums, &sums).is_ok());
}

#[test]
fn tokens() {
    let (labels, packing) = (Labels::new(&[0, 0, 0]), Packing::new(&[0, 2, 3]).unwrap());
    let (three, two) = ([-1.0_f32; 3], [-1.0_f32; 2]);
    let short = Weights::new(&[1.0, 1.0][..]).unwrap();
    let shorter = Packing::new(&[0, 1, 2]).unwrap();
    refused(probability_sums(&two, &labels, None, &packing), "log-probs: expected length 3, got 2");
    refused(
        probability_sums(&three, &labels, Some(&short), &packing),
        "token weights: expected length 3, got 2",
    );
    refused(
        probability_sums(&three, &labels, None, &shorter),
        "cu_seqlens: expected to end at the number of tokens 3, got 2",
    );
    refused(
        wpo_weights(&three, &two, &labels, None, &packing),
        "log sums of squares: expected length 3, got 2",
    );
    refused(
        ld_dpo_weights(1.5, &labels, None, &packing, &halves()),
        "alpha: expected a number from 0 to 1, got 1.5",
    );
    refused(
        ld_dpo_weights(0.5, &labels, None, &packing, &Pairs::halves(2).unwrap()),
        "rejected of pair 0: expected a sequence below 2, got 2",
    );
    let three_lengths = Packing::new(&[0, 3, 5, 6]).unwrap();
    let twice = Pairs::new(vec![(0, 1), (0, 2)]).unwrap();
    refused(
        ld_dpo_weights(0.5, &Labels::new(&[0; 6]), None, &three_lengths, &twice),
        "sequence 0: expected one common length, got 2 and 1",
    );
    let tgdpo = |aligned: &[f32], reference: &[f32], alpha, pairs: &Pairs<'_>| {
        TgDpo { alpha, beta: 1.0 }.weights(aligned, reference, &labels, None, &packing, pairs)
    };
    refused(
        tgdpo(&two, &three, 0.5, &halves()),
        "aligned model's log-probs: expected length 3, got 2",
    );
    refused(tgdpo(&three, &two, 0.5, &halves()), "reference log-probs: expected length 3, got 2");
    refused(
        tgdpo(&three, &three, f64::INFINITY, &halves()),
        "alpha: expected a finite number, got inf",
    );
    refused(
        TgDpo { alpha: 0.5, beta: 0.0 }.weights(&three, &three, &labels, None, &packing, &halves()),
        "beta: expected a number from 1e-30 to 1e30, got 0.0",
    );
    refused(
        tgdpo(&[-1.0, f32::NAN, -1.0], &three, 0.5, &halves()),
        "weight of token 1: expected a finite number, got NaN",
    );
    refused(
        tgdpo(&three, &three, 0.5, &Pairs::new(vec![(0, 1), (1, 0)]).unwrap()),
        "sequence 1: expected one role in all pairs, got chosen and rejected",
    );
    let nash =
        |wins: &[f64], beta| nash_md_weights(&three, &three, wins, beta, &labels, None, &packing);
    refused(nash(&[0.5], 0.1), "win probabilities: expected length 2, got 1");
    refused(
        nash(&[0.5, 2.0], 0.1),
        "win probability of sequence 1: expected a number from 0 to 1, got 2.0",
    );
    refused(nash(&[0.5; 2], NAN), "beta: expected a finite number, got NaN");
    let quill = NextQuill::default();
    refused(
        quill.weights(&three, &two, &labels, None),
        "log-probs without history: expected length 3, got 2",
    );
    refused(
        quill.weights(&three, &[-1.0, -1.0, f32::NAN], &labels, None),
        "weight of token 2: expected a finite number, got NaN",
    );
    refused(
        NextQuill { low: NAN, ..quill }.weights(&three, &three, &labels, None),
        "low: expected a finite number, got NaN",
    );
    refused(
        NextQuill { high: 1e300, threshold: -1.0, ..quill }.weights(&three, &three, &labels, None),
        "weight of token 0: expected a finite number, got inf",
    );
}

#[test]
fn masked_advantages() {
    let (labels, packing) = (Labels::new(&[0, 0, -100]), Packing::new(&[0, 2, 3]).unwrap());
    let shorter = Packing::new(&[0, 1, 2]).unwrap();
    let advantages = Advantages::per_sequence(&[1.0, -1.0]).unwrap();
    let entropy = |advantages: &Advantages<'_>, entropies: &[f64], share, packing| {
        mask_low_entropy(advantages, entropies, share, &labels, None, packing)
    };
    refused(
        entropy(&advantages, &[1.0; 3], 1.5, &packing),
        "share: expected a number from 0 to 1, got 1.5",
    );
    refused(entropy(&advantages, &[1.0; 2], 0.2, &packing), "entropies: expected length 3, got 2");
    refused(
        entropy(&advantages, &[1.0, NAN, NAN], 0.2, &packing),
        "entropy of token 1: expected a finite number, got NaN",
    );
    assert!(entropy(&advantages, &[1.0, 0.0, NAN], 0.2, &packing).is_ok());
    refused(
        entropy(&advantages, &[1.0; 3], 0.2, &shorter),
        "cu_seqlens: expected to end at the number of tokens 3, got 2",
    );
    let three = Advantages::per_sequence(&[1.0; 3]).unwrap();
    refused(entropy(&three, &[1.0; 3], 0.2, &packing), "advantages: expected length 2, got 3");
    let two = Advantages::per_token(&[1.0; 2]);
    refused(entropy(&two, &[1.0; 3], 0.2, &packing), "advantages: expected length 3, got 2");
    let off_policy = |policy: &[f64], old: &[f64], threshold| {
        mask_off_policy(&advantages, policy, old, threshold, &labels, None, &packing)
    };
    let values = [-1.0; 3];
    refused(
        off_policy(&values, &values, -0.5),
        "threshold: expected a number from 0 to 1e30, got -0.5",
    );
    refused(off_policy(&values[..2], &values, 0.5), "policy log-probs: expected length 3, got 2");
    refused(off_policy(&values, &values[..1], 0.5), "old log-probs: expected length 3, got 1");
    refused(
        off_policy(&values, &[-1.0, NAN, -1.0], 0.5),
        "mean log-ratio of sequence 0: expected a number, got NaN",
    );
    assert!(off_policy(&values, &[-1.0, f64::INFINITY, NAN], 0.5).is_ok());
}
