//! Losses over sampled tokens from `policy_gradient.py`, which was written from the papers and the
//! published trainers by somebody who had not seen the objectives.

use std::collections::BTreeMap;

use prefuse::batch::{Advantages, Batch, Pairs, ReferenceLogProbs};
use prefuse::objectives::{
    Cispo, EntropyBonus, Gmpo, Gspo, Importance, KlEstimator, KlPenalty, LogProbClip, P3o, PpoClip,
    Reduction, Reinforce, Rloo, Sapo, TrustRegion, Vespo,
};
use prefuse::statistics::P3oAdvantages;
use prefuse::{Reference, ScalarLoss, Sequences, Slice, Term, Upstream};
use serde_json::Value;

use super::rows::Rows;
use super::{TIGHT, close, load, number, numbers};

fn rows(input: &Value) -> Rows {
    Rows::new(input, ["log_probs", "old", "reference"])
}

/// The term of a case, summed over its tokens.
fn term(objective: &str, params: &Value) -> Term {
    let get = |key: &str| number(&params[key]);
    let or = |key: &str, otherwise: f64| params.get(key).map_or(otherwise, number);
    let all = Sequences::All;
    let term = match objective {
        "PpoClip" => {
            let mut clip = PpoClip::new(get("epsilon_low"), get("epsilon_high"));
            clip = clip.with_ratio_cap(or("ratio_cap", clip.ratio_cap));
            clip = clip.with_dual_clip(or("dual_clip", clip.dual_clip));
            let limit = or("log_ratio_limit", clip.log_ratio_limit);
            Term::tokens(clip.with_log_ratio_limit(limit), all)
        }
        "Gspo" => Term::tokens(Gspo::new(get("epsilon_low"), get("epsilon_high")), all),
        "Gmpo" => Term::tokens(Gmpo::new(get("epsilon")), all),
        "Cispo" => {
            let floor = 1.0 - or("epsilon_low", 1.0);
            Term::tokens(Cispo::new(get("cap")).with_floor(floor), all)
        }
        "Sapo" => {
            let sapo = Sapo::new().with_tau_positive(get("tau_positive"));
            Term::tokens(sapo.with_tau_negative(get("tau_negative")), all)
        }
        "Rloo" => Term::tokens(Rloo::new(get("epsilon")), all),
        "Reinforce" => Term::tokens(Reinforce::new(), all),
        "KlPenalty" => Term::tokens(kl_penalty(params), all),
        "TrustRegion" => Term::tokens(TrustRegion::new(), all),
        "EntropyBonus" => Term::tokens(EntropyBonus::new(), all),
        "Vespo" => {
            let vespo = Vespo::new()
                .with_k_positive(get("k_positive"))
                .with_lambda_positive(get("lambda_positive"))
                .with_k_negative(get("k_negative"))
                .with_lambda_negative(get("lambda_negative"));
            Term::tokens(vespo, all)
        }
        "LogProbClip" => Term::tokens(LogProbClip::new(get("epsilon")), all),
        other => panic!("{other}"),
    };
    term.with_reduction(Reduction::Sum)
}

fn kl_penalty(params: &Value) -> KlPenalty {
    let mut kl = KlPenalty::new();
    let or = |key: &str, otherwise: f64| params.get(key).map_or(otherwise, number);
    kl = kl.with_estimator(match params["estimator"].as_str().unwrap() {
        "K1" => KlEstimator::K1,
        "K2" => KlEstimator::K2,
        "K3" => KlEstimator::K3,
        other => panic!("{other}"),
    });
    kl = kl.with_importance(match params.get("importance").and_then(Value::as_str) {
        None => Importance::None,
        Some("product") => Importance::Token,
        Some("detached") => Importance::FixedToken,
        Some(other) => panic!("{other}"),
    });
    kl = kl.with_input_limit(or("input_clamp", kl.input_limit));
    kl.with_output_limit(or("output_clamp", kl.output_limit))
}

/// Readings of published code that the crate does not have.
fn is_left_out(params: &Value) -> bool {
    // NeMo-RL as it is now: the ratio counts before the output's clamp.
    params.get("importance").is_some_and(|importance| importance == "inside_output_clamp")
        // An earlier reading of P3O, which its code does not bear out.
        || params.get("kl_policy").is_some_and(|policy| policy == "old")
}

#[test]
fn every_case() {
    let file = load("policy_gradient_f64");
    let (mut used, mut left_out) = (BTreeMap::new(), 0);
    for case in file["cases"].as_array().unwrap() {
        let (id, objective) = (case["id"].as_str().unwrap(), case["objective"].as_str().unwrap());
        let (params, expected) = (&case["params"], &case["expected"]);
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        if is_left_out(params) {
            left_out += 1;
            continue;
        }
        match objective {
            "P3o" => of_pairs(input, params, expected, id),
            "Gspo" | "Gmpo" | "Rloo" => {
                of_sequences(&rows(input), &term(objective, params), expected, id);
            }
            "Vespo" => vespo(&rows(input), &term(objective, params), expected, id),
            _ => of_tokens(rows(input), &term(objective, params), expected, id),
        }
        *used.entry(objective).or_insert(0) += 1;
    }
    let used: Vec<_> = used.into_iter().collect();
    assert_eq!(
        used,
        [
            ("Cispo", 10),
            ("EntropyBonus", 4),
            ("Gmpo", 9),
            ("Gspo", 9),
            ("KlPenalty", 68),
            ("LogProbClip", 5),
            ("P3o", 6),
            ("PpoClip", 33),
            ("Reinforce", 4),
            ("Rloo", 5),
            ("Sapo", 7),
            ("TrustRegion", 6),
            ("Vespo", 9),
        ]
    );
    assert_eq!(left_out, 8);
}

fn advantages(rows: &Rows) -> Advantages<'_> {
    Advantages::per_sequence(&rows.advantages[..]).unwrap()
}

/// Sums over the tokens of each row, and what their cancellation leaves of a relative error of 1e-9.
fn row_sums(rows: &Rows, values: &[f64]) -> (Vec<f64>, f64) {
    let sums = values.chunks(rows.length).map(|row| row.iter().sum()).collect();
    let largest = values.chunks(rows.length).map(|row| row.iter().map(|x| x.abs()).sum());
    (sums, 1e-9 * largest.fold(0.0, f64::max))
}

/// What looks at tokens singly has the same gradient in rows and apart, and apart its loss at each.
fn of_tokens(rows: Rows, term: &Term, expected: &Value, id: &str) {
    let [losses, by_log_prob] = ["losses", "grad_log_probs"].map(|key| numbers(&expected[key]));
    let by_entropy = expected.get("grad_entropy").map_or(vec![0.0; losses.len()], numbers);
    let together = rows.evaluate(term, true, &advantages(&rows));
    let (sums, rounding) = row_sums(&rows, &losses);
    close(&together.losses, &sums, (TIGHT.0, TIGHT.1 + rounding), id);
    let rows = rows.apart();
    let apart = rows.evaluate(term, true, &advantages(&rows));
    close(&apart.losses, &losses, TIGHT, id);
    for got in [together, apart] {
        close(&got.by_log_prob, &by_log_prob, TIGHT, id);
        close(&got.by_entropy, &by_entropy, TIGHT, id);
    }
}

/// What looks at whole rows: its loss stands at each token, and once with the mean over a row's tokens.
fn of_sequences(rows: &Rows, term: &Term, expected: &Value, id: &str) {
    let get = |key: &str| numbers(&expected[key]);
    let got = rows.evaluate(term, true, &advantages(rows));
    close(&got.losses, &row_sums(rows, &get("losses")).0, TIGHT, id);
    close(&got.by_log_prob, &get("grad_log_probs"), TIGHT, id);
    let once = term.clone().with_reduction(Reduction::SequenceMean).with_weight(rows.count as f64);
    let got = rows.evaluate(&once, true, &advantages(rows));
    let losses = got.losses.iter().zip(rows.counts()).map(|(loss, count)| loss / count.max(1.0));
    let expected = get("sequence_losses");
    close(&losses.collect::<Vec<_>>(), &expected, TIGHT, id);
    close(&[got.value], &[expected.iter().sum()], (1e-9, 1e-9 * largest(&expected)), id);
    close(&got.by_log_prob, &get("grad_of_sequence_losses"), TIGHT, id);
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

/// TRL holds the log-ratio of each token to 20 before it sums them and holds the sum, the crate the sum
/// alone: rows in which that differs are left out, and are only among the log-ratios to 30.
fn vespo(rows: &Rows, term: &Term, expected: &Value, id: &str) {
    let get = |key: &str| numbers(&expected[key]);
    let got = rows.evaluate(term, true, &advantages(rows));
    let (expected, by_log_prob) = (row_sums(rows, &get("losses")).0, get("grad_log_probs"));
    let mut differ = 0;
    for row in 0..rows.count {
        let tokens = row * rows.length..(row + 1) * rows.length;
        let sum = |bound: f64| {
            let counted = tokens.clone().filter(|&token| rows.mask[token] != 0.0);
            let log_ratios = counted.map(|token| rows.log_probs[token] - rows.old[token]);
            let sum: f64 = log_ratios.map(|log_ratio| log_ratio.clamp(-bound, bound)).sum();
            sum.clamp(1e-8_f64.ln(), 20.0)
        };
        if sum(20.0) != sum(f64::INFINITY) {
            differ += 1;
            continue;
        }
        close(&got.losses[row..=row], &expected[row..=row], TIGHT, id);
        close(&got.by_log_prob[tokens.clone()], &by_log_prob[tokens], TIGHT, id);
    }
    assert_eq!(differ, if id.ends_with("far") { 4 } else { 0 }, "{id}");
}

/// P3O: what a pair says of both samples, and its losses clipped apart and together.
fn of_pairs(input: &Value, params: &Value, expected: &Value, id: &str) {
    let get = |key: &str| numbers(&expected[key]);
    let both = |key: &str| -> Vec<f64> {
        ["1", "2"].iter().flat_map(|side| numbers(&input[format!("{key}_{side}")])).collect()
    };
    let [policy, old, reference, rewards] = ["s", "s_old", "ref", "r"].map(both);
    let (epsilon, count) = (number(&params["epsilon"]), policy.len() / 2);
    let (beta, truncation) = (number(&params["beta"]), number(&params["ratio_limit"]));
    let settings = P3oAdvantages { beta, truncation, scaled: false };
    let pairs = Pairs::halves(count).unwrap();
    let given = (&pairs, &policy[..], &old[..], &reference[..], &rewards[..]);
    let separate = |settings: P3oAdvantages| {
        settings.separate(given.0, given.1, given.2, given.3, given.4).unwrap()
    };
    // Ratios that are held to 1 leave D alone.
    let d = separate(P3oAdvantages { truncation: 1.0, ..settings });
    close(&d[..count], &get("D"), TIGHT, id);
    let apart = separate(settings);
    close(&apart[..count], &get("advantages_1"), TIGHT, id);
    close(&apart[count..], &get("advantages_2"), TIGHT, id);
    let by_token = settings.by_token(given.0, given.1, given.2, given.3, given.4).unwrap();
    let products: Vec<f64> = get("D").iter().zip(get("w")).map(|(d, w)| d * w).collect();
    close(&by_token[..count], &products, TIGHT, id);
    close(&by_token[count..], &products.iter().map(|x| -x).collect::<Vec<_>>(), TIGHT, id);

    // V1: a row of one token is a sum; each pair's loss is half of its samples'.
    let one = vec![1.0; 2 * count];
    let (log_probs, entropy) = (policy.clone(), vec![0.0; 2 * count]);
    let (old_sums, references) = (old.clone(), reference.clone());
    let samples = Rows {
        count: 2 * count,
        length: 1,
        log_probs,
        old: old_sums,
        reference: references,
        entropy,
        mask: one,
        advantages: apart,
    };
    let clip = Term::tokens(Rloo::new(epsilon), Sequences::All);
    let clip = clip.with_reduction(Reduction::Sum).with_weight(0.5);
    let got = samples.evaluate(&clip, true, &advantages(&samples));
    let (first, second) = got.losses.split_at(count);
    let halves: Vec<f64> = first.iter().zip(second).map(|(a, b)| (a + b) / 2.0).collect();
    close(&halves, &get("v1_losses"), TIGHT, id);
    close(&got.by_log_prob[..count], &get("v1_grad_1"), TIGHT, id);
    close(&got.by_log_prob[count..], &get("v1_grad_2"), TIGHT, id);

    // V2, of log-ratios and of the sums by themselves.
    let joint = settings.joint(given.0, given.1, given.2, given.3, given.4).unwrap();
    let margins = joint.indices().iter().map(|&(chosen, rejected)| old[chosen] - old[rejected]);
    let alone = Pairs::new(joint.indices().to_vec())
        .and_then(|pairs| pairs.with_margin(margins.collect::<Vec<_>>()))
        .and_then(|pairs| pairs.with_weight(products.iter().map(|x| x.abs()).collect::<Vec<_>>()))
        .unwrap();
    let zeros = vec![0.0; 2 * count];
    for (pairs, reference, losses) in
        [(joint, &reference, get("v2_losses")), (alone, &zeros, get("v2_losses_without_reference"))]
    {
        let batch = Batch::of_sequences(2 * count)
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(reference)))
            .and_then(|batch| batch.with_pairs(pairs))
            .unwrap();
        let term = Term::pairs(P3o::new(epsilon)).with_reduction(Reduction::Sum);
        let loss = ScalarLoss::new(batch, [term]).unwrap();
        let forward = loss.forward(&Reference::new(), Slice::new(&policy), None).unwrap();
        close(&forward.terms()[0].losses, &losses, TIGHT, id);
        let grads = forward.grads(&Reference::new(), Upstream::Loss(1.0)).unwrap();
        close(&grads[..count], &get("v2_grad_1"), TIGHT, id);
        close(&grads[count..], &get("v2_grad_2"), TIGHT, id);
    }
}
