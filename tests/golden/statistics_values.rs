//! Every case of `statistics_values.py`, which was written from the papers by somebody who had not seen
//! the functions.

use std::collections::BTreeSet;

use prefuse::batch::{Batch, Labels, Packing, Pairs, ReferenceLogProbs, Weights};
use prefuse::objectives::P3o;
use prefuse::statistics::*;
use prefuse::{Reference, ScalarLoss, Slice, Term};
use serde_json::Value;

use super::{close, integers, load, number, numbers};

/// What the file promises.
const EXACT: (f64, f64) = (1e-12, 1e-15);
/// The same where it sums many terms.
const SUMS: (f64, f64) = (1e-11, 1e-15);
/// Token weights are f32.
const WEIGHTS: (f64, f64) = (1.01 / (1 << 24) as f64, 0.0);

fn indices(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|value| value as usize).collect()
}

fn pairs(value: &Value) -> Pairs<'static> {
    let pairs = value.as_array().unwrap().iter().map(|pair| {
        let pair = indices(pair);
        (pair[0], pair[1])
    });
    Pairs::new(pairs.collect::<Vec<_>>()).unwrap()
}

fn packing(value: &Value) -> Packing {
    Packing::new(&integers(value)).unwrap()
}

fn scored(value: &Value) -> Labels<'static> {
    let scored = numbers(value).into_iter();
    Labels::new(scored.map(|scored| if scored == 1.0 { 7 } else { -100 }).collect::<Vec<_>>())
}

fn floats(weights: &Weights<'_>) -> Vec<f64> {
    weights.host().unwrap().iter().copied().map(f64::from).collect()
}

#[test]
fn every_case() {
    let file = load("statistics_f64");
    let mut seen = BTreeSet::new();
    for case in file["cases"].as_array().unwrap() {
        let (id, statistic) = (case["id"].as_str().unwrap(), case["statistic"].as_str().unwrap());
        let (given, expected) = (&case["input"], &case["expected"]);
        check(id, statistic, given, expected);
        seen.insert(statistic);
    }
    assert_eq!(seen.len(), 19);
}

fn check(id: &str, statistic: &str, given: &Value, expected: &Value) {
    let list = |key: &str| numbers(&given[key]);
    let one = |key: &str| number(&given[key]);
    let wanted = |key: &str| numbers(&expected[key]);
    match statistic {
        "mm_dpo_beta" => {
            let factors = mm_dpo_beta_factors(&list("reward_gaps"), one("weight"), one("k"));
            close(&factors.unwrap(), &wanted("factors"), EXACT, id);
        }
        "lcpo_posterior" => {
            let got = posteriors(&list("h"), &list("reliability")).unwrap();
            close(&got, &wanted("posterior"), EXACT, id);
        }
        "lcpo_reliability" => {
            let initial = list("initial");
            let mut reliability = Reliability::new(initial.len())
                .and_then(|reliability| reliability.with_initial(initial[0]))
                .and_then(|reliability| reliability.with_momentum(one("momentum")))
                .unwrap();
            let after = expected["reliability_after_each_batch"].as_array().unwrap();
            for (batch, after) in given["batches"].as_array().unwrap().iter().zip(after) {
                let annotators = indices(&batch["annotators"]);
                reliability.update(&annotators, &numbers(&batch["posterior"])).unwrap();
                close(reliability.values(), &numbers(after), EXACT, id);
            }
        }
        "kendall_tau" => {
            let (first, second) = (list("first"), list("second"));
            let got = [kendall_tau(&first, &second), consistency(&first, &second)];
            let expected = ["tau", "consistency"].map(|key| number(&expected[key]));
            close(&got.map(Result::unwrap), &expected, EXACT, id);
        }
        "spa_threshold" => {
            let window = one("window") as usize;
            let mut threshold = ConfidenceThreshold::new(window, one("quantile")).unwrap();
            let after = list("margins").into_iter().map(|margin| {
                threshold.push(margin).unwrap();
                threshold.value()
            });
            let after: Vec<f64> = after.collect();
            close(&after, &wanted("threshold_after_each_push"), EXACT, id);
        }
        "spa_labels" => {
            let mut threshold = ConfidenceThreshold::new(2, 0.0).unwrap();
            for _ in 0..2 {
                threshold.push(one("threshold")).unwrap();
            }
            let got = threshold.soft_labels(&list("margins"), one("strength")).unwrap();
            close(&got, &wanted("labels"), EXACT, id);
        }
        "sppo_win_rates" => {
            close(&win_rates(&list("scores")).unwrap(), &wanted("win_rates"), EXACT, id);
        }
        "infi_fpo_fusion" => fusion(id, given, expected),
        "label_prob_sums" => {
            let (labels, packing) = (scored(&given["scored"]), packing(&given["cu_seqlens"]));
            let sums = probability_sums(&list("token_logps"), &labels, None, &packing).unwrap();
            close(&sums, &wanted("sums"), SUMS, id);
        }
        "calibration_error" => {
            let (confidences, outcomes) = (list("confidences"), list("outcomes"));
            let got = expected_calibration_error(&confidences, &outcomes, one("bins") as usize);
            close(&[got.unwrap()], &[number(&expected["error"])], EXACT, id);
        }
        "tgdpo_token_weights" => {
            let (aligned, reference) = (list("reward_model_logps"), list("reference_logps"));
            let tokens = aligned.len();
            let labels = Labels::new(vec![0; 2 * tokens]);
            let packing = Packing::padded(2, tokens).unwrap();
            let settings = TgDpo { alpha: one("alpha"), beta: one("beta") };
            let pairs = Pairs::halves(1).unwrap();
            let twice = |values: &[f64]| values.repeat(2);
            let (aligned, reference) = (twice(&aligned), twice(&reference));
            let weights = settings.weights(&aligned, &reference, &labels, None, &packing, &pairs);
            let expected = [wanted("chosen"), wanted("rejected")].concat();
            close(&floats(&weights.unwrap()), &expected, WEIGHTS, id);
        }
        "nextquill_token_weights" => {
            let settings =
                NextQuill { high: one("high"), low: one("low"), threshold: one("threshold") };
            let (with, without) = (list("logps_with_history"), list("logps_without_history"));
            let labels = scored(&given["scored"]);
            let (weights, sum) = settings.weights(&with, &without, &labels, None).unwrap();
            let weights = floats(&weights);
            close(&weights, &wanted("weights"), WEIGHTS, id);
            let normalized: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
            close(&normalized, &wanted("normalized"), (2.0 * WEIGHTS.0, 0.0), id);
        }
        "wpo_sequence_weights" => {
            let ignore = one("ignore_index") as i64;
            let labels = Labels::new(integers(&given["labels"])).with_ignore(ignore);
            let packing = packing(&given["cu_seqlens"]);
            let [log_probs, squares] = ["token_logps", "log_sum_squared_probs"].map(wanted);
            let weights = wpo_weights(&log_probs, &squares, &labels, None, &packing).unwrap();
            close(&weights, &wanted("sequence_weights"), SUMS, id);
            let of_pairs = wpo_pair_weights(&pairs(&given["pairs"]), &weights, WpoClamp::None);
            close(&of_pairs.unwrap(), &wanted("pair_weights"), SUMS, id);
        }
        "ld_dpo_token_weights" => {
            let (labels, packing) = (scored(&given["scored"]), packing(&given["cu_seqlens"]));
            let pairs = pairs(&given["pairs"]);
            let weights = ld_dpo_weights(one("alpha"), &labels, None, &packing, &pairs).unwrap();
            close(&floats(&weights), &wanted("effective_weights"), WEIGHTS, id);
        }
        "nash_md_token_weights" => {
            let [policy, reference, wins] =
                ["token_logps", "reference_token_logps", "win_probabilities"].map(list);
            let labels = Labels::new(vec![0; policy.len()]);
            let packing = packing(&given["cu_seqlens"]);
            let beta = one("beta");
            let weights =
                nash_md_weights(&policy, &reference, &wins, beta, &labels, None, &packing);
            close(&floats(&weights.unwrap()), &wanted("coefficients"), WEIGHTS, id);
        }
        "odds" => {
            let got = match id {
                "odds/average_logps" => log_odds(&list("average_logps")),
                "odds/probabilities" => preference_log_odds(&list("probabilities")),
                _ => strength_log_odds(&list("first"), &list("second")),
            };
            close(&got.unwrap(), &wanted("log_odds"), EXACT, id);
        }
        "group_advantages" => {
            let epsilon = one("epsilon");
            let settings = GroupAdvantages {
                baseline: match &given["baseline"] {
                    name if name == "Mean" => Baseline::Mean,
                    _ => Baseline::LeaveOneOut,
                },
                spread: match given["spread"].as_str().unwrap() {
                    "One" => Spread::One,
                    "Group" => Spread::Group { epsilon },
                    "GroupPopulation" => Spread::GroupPopulation { epsilon },
                    _ => Spread::Batch { epsilon },
                },
                singleton: match &given["singleton"] {
                    name if name == "Zero" => Singleton::Zero,
                    _ => Singleton::Reward,
                },
            };
            let got = settings.of(&list("rewards"), &indices(&given["prompts"]));
            // A difference of the mean of up to 4 rewards of size 3 from a reward.
            close(&got.unwrap(), &wanted("advantages"), (1e-12, 1e-14), id);
        }
        "ranks" => {
            let all = [Ties::Ordinal, Ties::Min, Ties::Max, Ties::Average, Ties::Dense];
            let ties = all.into_iter().find(|ties| given["ties"] == format!("{ties:?}"));
            assert_eq!(ranks(&list("scores"), ties.unwrap()).unwrap(), wanted("ranks"), "{id}");
        }
        "p3o" => {
            let (beta, truncation) = (one("beta"), one("truncation"));
            let settings = P3oAdvantages { beta, truncation, scaled: given["scaled"] == true };
            let [policy, old, reference, rewards] =
                ["policy", "old", "reference", "rewards"].map(list);
            let given = pairs(&given["pairs"]);
            let got = settings.separate(&given, &policy, &old, &reference, &rewards).unwrap();
            close(&got, &wanted("separate"), EXACT, id);
            let got = settings.by_token(&given, &policy, &old, &reference, &rewards).unwrap();
            close(&got, &wanted("by_token"), EXACT, id);
            let got = settings.joint(&given, &policy, &old, &reference, &rewards).unwrap();
            let [weights, margins] = ["weights", "margins"].map(wanted);
            let expected = pairs(&expected["pairs"]);
            assert_eq!(got.indices(), expected.indices(), "{id}");
            // The loss at u = 0, whose clip is from the margin.
            p3o_losses(&got, &weights, &margins, id);
        }
        other => panic!("{other}"),
    }
}

/// Weights and margins of pairs are what their losses show.
fn p3o_losses(pairs: &Pairs<'static>, weights: &[f64], margins: &[f64], id: &str) {
    let sequences = 7;
    let batch = Batch::of_sequences(sequences)
        .and_then(|batch| batch.with_pairs(pairs.clone()))
        .and_then(|batch| {
            batch.with_reference(ReferenceLogProbs::per_sequence(&vec![0.0; sequences]))
        })
        .unwrap();
    let loss = ScalarLoss::new(batch, [Term::pairs(P3o::new(0.25))]).unwrap();
    for shift in [0.0, 50.0] {
        let mut policy = vec![0.0; sequences];
        pairs.indices().iter().for_each(|&(chosen, _)| policy[chosen] = shift);
        let forward = loss.forward(&Reference::new(), Slice::new(&policy), None).unwrap();
        let expected =
            weights.iter().zip(margins).map(|(w, m)| -0.5 * w * f64::min(shift, m + 0.25));
        close(&forward.terms()[0].losses, &expected.collect::<Vec<_>>(), EXACT, id);
    }
}

/// One pair for each row: chosen sequences first.
fn fusion(id: &str, given: &Value, expected: &Value) {
    let rows = |role: &str| -> Vec<Vec<f64>> {
        given[format!("{role}_sources")].as_array().unwrap().iter().map(numbers).collect()
    };
    let both = [rows("chosen"), rows("rejected")].concat();
    let pivot: Vec<f64> = ["chosen_pivot", "rejected_pivot"]
        .into_iter()
        .flat_map(|key| numbers(&given[key]))
        .collect();
    let sources: Vec<Vec<f64>> =
        (0..both[0].len()).map(|source| both.iter().map(|row| row[source]).collect()).collect();
    let pairs = Pairs::halves(both.len() / 2).unwrap();
    let fuse = |sources: &[Vec<f64>], fusion| {
        let sources: Vec<&[f64]> = sources.iter().map(Vec::as_slice).collect();
        fuse_references(&sources, &pivot, &pairs, fusion)
    };
    let wanted = |key: &str| -> Vec<f64> {
        ["chosen", "rejected"].into_iter().flat_map(|role| numbers(&expected[role][key])).collect()
    };
    let got = fuse(&sources, Fusion::MaxMargin).unwrap();
    close(&got, &wanted("max_margin"), EXACT, id);
    close(&fuse(&sources, Fusion::Mean).unwrap(), &wanted("mean"), EXACT, id);
    let confidence = Fusion::Confidence { epsilon: number(&given["epsilon"]) };
    let positive = sources.iter().flatten().any(|&average| average > 0.0);
    assert_eq!(fuse(&sources, confidence).is_err(), positive, "{id}");
    // Sources that agree have any weights; one of the file's rows of them lies above 0.
    let lowered: Vec<Vec<f64>> =
        sources.iter().map(|source| source.iter().map(|x| x.min(0.0)).collect()).collect();
    let got = fuse(&lowered, confidence).unwrap();
    close(&got, &wanted("confidence"), EXACT, id);
}
