//! Losses of TRL from logits and from log-probs of tokens.

use prefuse::batch::{
    Batch, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs, Weights, shift_labels,
};
use prefuse::objectives::{AnyObjective, Cpo, Dpo, Ipo, Nll, Reduction, SimPo, Slic};
use prefuse::statistics::{
    WpoClamp, aot_reference, aot_unpaired, ld_dpo_weights, wpo_pair_weights, wpo_weights,
};
use prefuse::{
    Forward, Loss, MaskedRows, Reference, RowOptions, ScalarLoss, Sequences, Slice, Term, Upstream,
    token_log_probs,
};
use serde_json::Value;

use super::statistics::Tokens;
use super::trl_sums::dpo_family;
use super::{TIGHT, close, integers, load, number, numbers, shape};

/// The terms of a loss type, which may be a list of them with weights.
fn terms(case: &Value) -> Vec<Term> {
    let (loss, params) = (&case["loss_type"], &case["params"]);
    let text = loss.as_str().map_or_else(|| loss.to_string(), str::to_owned);
    let names = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|n| !n.is_empty());
    let weights = params.get("weights").map(numbers);
    names
        .enumerate()
        .map(|(index, name)| {
            let term = match name {
                "sft" => Term::sequences(Nll::new(), Sequences::Chosen)
                    .with_reduction(Reduction::TokenMean),
                "aot" | "aot_unpaired" => Term::new(dpo_family("sigmoid", params, false)),
                // Token weights that are not 1 leave the lengths alone.
                name => Term::new(dpo_family(name, params, false)),
            };
            term.with_weight(weights.as_ref().map_or(1.0, |weights| weights[index]))
        })
        .collect()
}

/// The pairs and reference sums of a case: AOT's are matched anew.
fn matched(case: &Value, policy: &[f64], reference: &[f64]) -> (Pairs<'static>, Vec<f64>) {
    let pairs = Pairs::halves(policy.len() / 2).unwrap();
    match case["loss_type"].as_str() {
        Some("aot") => {
            let matched = aot_reference(&pairs, policy, reference).unwrap();
            (pairs, matched)
        }
        Some("aot_unpaired") => {
            (aot_unpaired(&pairs, policy, reference).unwrap(), reference.to_vec())
        }
        _ => (pairs, reference.to_vec()),
    }
}

/// TRL holds EXO's epsilon in f32.
fn tolerance(case: &Value) -> (f64, f64) {
    if case["loss_type"] == "exo_pair" { (1e-9, 2e-7) } else { TIGHT }
}

/// Every case from log-probs of tokens but those of WPO and LD-DPO, which are checked beside their
/// statistics: lists of terms on known sums.
#[test]
fn terms_on_tokens_of_trl() {
    let file = load("dpo_tokens_trl1.16_f64");
    let (mut used, mut left) = (0, 0);
    for case in file["cases"].as_array().unwrap() {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        if id.starts_with("wpo") || id.starts_with("ld_") {
            left += 1;
            continue;
        }
        let tokens = Tokens::new(&file["inputs"][case["input"].as_str().unwrap()]);
        let responses = tokens.responses(&vec![1.0; tokens.policy.len()]);
        let column = |of: fn(&prefuse::objectives::Response) -> f64| {
            responses.iter().map(of).collect::<Vec<f64>>()
        };
        let (policy, reference) = (column(|r| r.policy), column(|r| r.reference));
        let (pairs, reference) = matched(case, &policy, &reference);
        let batch = Batch::of_sequences(policy.len()).unwrap().with_pairs(pairs).unwrap();
        let reference = ReferenceLogProbs::per_sequence(&reference);
        let batch = match case["loss_type"] == "sft" {
            true => batch,
            false => batch.with_reference(reference).unwrap(),
        };
        let loss = ScalarLoss::new(batch, terms(case)).unwrap();
        let counts = column(|r| r.tokens);
        let values = (Slice::new(&policy), Some(Slice::new(&counts)));
        let forward = loss.forward(&Reference::new(), values.0, values.1).unwrap();
        close(&[forward.loss()], &[number(&expected["loss"])], tolerance(case), id);
        let by_sum = forward.grads(&Reference::new(), Upstream::Loss(1.0)).unwrap();
        let trl = numbers(&expected["grad_token_logps"]);
        let (mut grads, mut counted) = (vec![], vec![]);
        for (sequence, range) in tokens.packing.ranges().enumerate() {
            for token in range.filter(|&token| tokens.counts(token)) {
                grads.push(by_sum[sequence]);
                counted.push(trl[token]);
            }
        }
        // torch's sort is not stable, and equal keys may exchange gradients; these inputs have none.
        close(&grads, &counted, tolerance(case), id);
        used += 1;
    }
    assert_eq!((used, left), (51, 24));
}

/// A loss on the logits of a padded batch, against the file's loss and gradient.
fn check_logits(
    case: &Value,
    (loss, forward): (&Loss<'_>, &Forward),
    (data, tokens): (&[f64], usize),
    tolerance: (f64, f64),
) {
    let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
    close(&[forward.loss()], &[number(&expected["loss"])], tolerance, id);
    let mut grads = vec![f64::NAN; data.len()];
    let vocab = data.len() / tokens;
    let logits = Logits::new(data, tokens, vocab).unwrap();
    let target = (logits, LogitsMut::new(&mut grads, tokens, vocab).unwrap());
    let (reference, upstream) = (Reference::new(), Upstream::Loss(1.0));
    loss.logit_grads(&reference, forward, target, upstream, MaskedRows::Zero).unwrap();
    close(&grads, &numbers(&expected["grad_logits"]), tolerance, id);
}

/// Shifted labels of the completions.
fn completions(input: &Value, packing: &Packing) -> Vec<i64> {
    let counted = integers(&input["completion_mask"]);
    let ids = integers(&input["input_ids"]);
    let ids: Vec<i64> = ids
        .into_iter()
        .zip(counted)
        .map(|(id, counts)| if counts == 0 { -100 } else { id })
        .collect();
    shift_labels(&ids, packing, -100).unwrap()
}

/// Every case from logits: log-probs, losses, gradients and what TRL logs. Weights of WPO, LD-DPO and
/// the matching of AOT follow from the log-probs of the same visit.
#[test]
fn dpo_end_to_end_of_trl() {
    let file = load("dpo_e2e_trl1.16_f64");
    let input = &file["inputs"]["batch"];
    let ([sequences, length, width], vocab) = (
        <[usize; 3]>::try_from(shape(&input["hidden"])).unwrap(),
        shape(&input["lm_head_weight"])[0],
    );
    let data = matmul(&numbers(&input["hidden"]), &numbers(&input["lm_head_weight"]), width);
    let packing = Packing::padded(sequences, length).unwrap();
    let ids = completions(input, &packing);
    let labels = || Labels::new(&ids[..]);
    let reference = Reference::new();
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let (id, expected, params) =
            (case["id"].as_str().unwrap(), &case["expected"], &case["params"]);
        let logits = Logits::new(&data, sequences * length, vocab).unwrap();
        let options = RowOptions::default().with_log_sum_squares();
        let tokens = token_log_probs(&reference, logits, &labels(), None, options).unwrap();
        let (policy, squares) = (
            tokens.log_probs().to_vec().unwrap(),
            tokens.log_sum_squares().unwrap().to_vec().unwrap(),
        );
        let sums = tokens.sums(&reference, (&labels(), None), &packing).unwrap().sums;
        let (mut pairs, sums_of_reference) = matched(case, &sums, &numbers(&expected["ref_logps"]));
        if params.get("wpo").is_some() {
            let weights = wpo_weights(&policy, &squares, &labels(), None, &packing).unwrap();
            let weights = wpo_pair_weights(&pairs, &weights, WpoClamp::None).unwrap();
            pairs = pairs.with_weight(weights).unwrap();
        }
        let mut batch = Batch::new(labels(), packing.clone()).unwrap();
        let mut by_sequence = ReferenceLogProbs::per_sequence(&sums_of_reference);
        let mut tolerance = tolerance(case);
        if let Some(alpha) = params.get("ld") {
            let weights = ld_dpo_weights(number(alpha), &labels(), None, &packing, &pairs).unwrap();
            batch = batch
                .with_weights(Weights::new(weights.host().unwrap().to_vec()).unwrap())
                .unwrap();
            by_sequence = ReferenceLogProbs::per_sequence_weighted(&sums_of_reference);
            // The weights are alpha in f32, half an ulp from the file's: that far each sum is off, and four
            // of them, times a beta below 1, the margin, whose loss and slope are no steeper than it.
            let largest = numbers(&expected["logps"]).into_iter().fold(0.0, |a: f64, b| a.max(-b));
            let half_ulp = 2.0_f64.powi(-25);
            tolerance = (half_ulp, 4.0 * half_ulp * largest);
        }
        let batch =
            batch.with_reference(by_sequence).and_then(|batch| batch.with_pairs(pairs)).unwrap();
        let loss = Loss::new(batch, terms(case)).unwrap();
        let forward = loss.evaluate(&reference, tokens).unwrap();
        check_logits(case, (&loss, &forward), (&data, sequences * length), tolerance);
        let got = forward.totals().sums.to_vec().unwrap();
        let tolerance = (tolerance.0.max(TIGHT.0), tolerance.1.max(TIGHT.1));
        close(&got, &numbers(&expected["logps"]), tolerance, id);
        // AOT's rewards are against the matched reference here.
        let Some(metrics) = forward.metrics().filter(|_| !id.starts_with("aot")) else { continue };
        for (key, got) in [
            ("rewards/chosen", metrics.rewards_chosen),
            ("rewards/rejected", metrics.rewards_rejected),
            ("rewards/margins", metrics.rewards_margin),
            ("logps/chosen", metrics.log_probs_chosen),
            ("logps/rejected", metrics.log_probs_rejected),
        ] {
            close(&[got], &[number(&expected["metrics"][key])], tolerance, id);
        }
        // TRL computes the accuracy in f32.
        let accuracy = number(&expected["metrics"]["rewards/accuracies"]);
        close(&[metrics.rewards_accuracy], &[accuracy], (1e-6, 0.0), id);
    }
    assert_eq!(cases.len(), 20);
}

/// Three responses to a prompt: chosen, rejected, gold.
#[test]
fn tpo_of_trl() {
    let file = load("tpo_trl1.16_f64");
    let input = &file["inputs"]["batch"];
    let [sequences, length, vocab] = <[usize; 3]>::try_from(shape(&input["logits"])).unwrap();
    let data = numbers(&input["logits"]);
    let packing = Packing::padded(sequences, length).unwrap();
    let ids = completions(input, &packing);
    let third = sequences / 3;
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let (id, expected, params) =
            (case["id"].as_str().unwrap(), &case["expected"], &case["params"]);
        let beta = number(&params["beta"]);
        let counted: Vec<f64> = packing
            .ranges()
            .map(|range| ids[range].iter().filter(|&&id| id != -100).count() as f64)
            .collect();
        assert!(counted.iter().all(|&count| count > 0.0));
        let pair = match id {
            "sigmoid" => AnyObjective::new(Cpo::new(beta).with_nll_weight(0.0)),
            "hinge" => AnyObjective::new(Slic::new(1.0).with_beta(beta)),
            // On averages, without a reference.
            "ipo" => AnyObjective::new(Ipo::new(beta).with_length_normalized(true)),
            "tpo-l" => AnyObjective::new(SimPo::new(beta, number(&params["tpo_l_gamma"]))),
            other => panic!("{other}"),
        };
        let gold = Sequences::Indices((2 * third..sequences).collect());
        let gold = Term::sequences(Nll::new(), gold)
            .with_reduction(Reduction::TokenMean)
            .with_weight(number(&params["tpo_alpha"]));
        let batch = Batch::new(Labels::new(&ids[..]), packing.clone())
            .and_then(|batch| batch.with_pairs(Pairs::halves(third).unwrap()))
            .and_then(|batch| {
                batch.with_reference(ReferenceLogProbs::per_sequence(&vec![0.0; sequences]))
            })
            .unwrap();
        let loss = Loss::new(batch, [Term::new(pair), gold]).unwrap();
        let logits = Logits::new(&data, sequences * length, vocab).unwrap();
        let forward = loss.forward(&Reference::new(), logits).unwrap();
        close(&forward.terms()[0].losses, &numbers(&expected["losses"]), TIGHT, id);
        close(&[forward.terms()[1].value], &[number(&expected["nll"])], TIGHT, id);
        check_logits(case, (&loss, &forward), (&data, sequences * length), TIGHT);
    }
    assert_eq!(cases.len(), 4);
}

/// XPO: DPO or IPO on the policy's and the reference's sample, ordered by a judge, and the log-prob of
/// the reference's sample, which is pushed down.
#[test]
fn xpo_of_trl() {
    let file = load("xpo_nashmd_trl1.9_f64");
    let all = file["cases"].as_array().unwrap();
    let cases: Vec<&Value> = all.iter().filter(|case| case["loss_type"] == "xpo").collect();
    for case in &cases {
        let (id, expected, params) =
            (case["id"].as_str().unwrap(), &case["expected"], &case["params"]);
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let [count, length] = <[usize; 2]>::try_from(shape(&input["model_on_model"])).unwrap();
        let sums = |key: &str| -> Vec<f64> {
            numbers(&input[key]).chunks(length).map(|row| row.iter().sum()).collect()
        };
        let policy = [sums("model_on_model"), sums("model_on_ref")].concat();
        let reference = [sums("ref_on_model"), sums("ref_on_ref")].concat();
        let chosen = numbers(&input["chosen_mask"]);
        let pair = |i: usize| if chosen[i] == 1.0 { (i, count + i) } else { (count + i, i) };
        let [beta, alpha] = ["beta", "alpha"].map(|key| number(&params[key]));
        let objective = match params["loss_type"].as_str().unwrap() {
            "sigmoid" => AnyObjective::new(Dpo::new(beta)),
            _ => AnyObjective::new(Ipo::new(beta)),
        };
        let explored = Sequences::Indices((count..2 * count).collect());
        let terms =
            [Term::new(objective), Term::sequences(Nll::new(), explored).with_weight(-alpha)];
        let batch = Batch::of_sequences(2 * count)
            .and_then(|batch| {
                batch.with_pairs(Pairs::new((0..count).map(pair).collect::<Vec<_>>())?)
            })
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(&reference)))
            .unwrap();
        let loss = ScalarLoss::new(batch, terms).unwrap();
        let forward = loss.forward(&Reference::new(), Slice::new(&policy), None).unwrap();
        close(&[forward.loss()], &[number(&expected["loss"])], TIGHT, id);
        close(&forward.terms()[0].losses, &numbers(&expected["dpo_losses"]), TIGHT, id);
        let grads = forward.grads(&Reference::new(), Upstream::Loss(1.0)).unwrap();
        for (key, grads) in
            [("grad_model_on_model", &grads[..count]), ("grad_model_on_ref", &grads[count..])]
        {
            let spread: Vec<f64> =
                grads.iter().flat_map(|grad| std::iter::repeat_n(*grad, length)).collect();
            close(&spread, &numbers(&expected[key]), TIGHT, id);
        }
    }
    assert_eq!(cases.len(), 8);
}

/// `[rows, width] x [columns, width]^T`.
fn matmul(left: &[f64], right: &[f64], width: usize) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    left.chunks(width).flat_map(|a| right.chunks(width).map(move |b| dot(a, b))).collect()
}
