//! Pair losses of TRL, from log-probs and end to end.

use approx::assert_relative_eq;
use prefuse::batch::{Batch, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::{
    Dpo, Evaluation, Hinge, Ipo, Nll, Objective, Pair, Reduction, Response, Robust, SimPo,
};
use prefuse::{Loss, MaskedRows, Reference, Sequences, Term, Upstream};
use serde_json::Value;

use super::{TIGHT, close, integers, load, number, numbers, shape};

fn pair(chosen: [f64; 3], rejected: [f64; 3]) -> Pair {
    let response = |[policy, reference, tokens]: [f64; 3]| {
        Response::new(policy, tokens).with_reference(reference)
    };
    Pair::new(response(chosen), response(rejected))
}

fn check_pairs(case: &Value, pairs: &[Pair], objective: &dyn Objective<Pair>) {
    let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
    let results: Vec<Evaluation<Pair>> =
        pairs.iter().map(|pair| objective.evaluate(pair)).collect();
    let all =
        |value: &dyn Fn(&Evaluation<Pair>) -> f64| results.iter().map(value).collect::<Vec<_>>();
    let count = pairs.len() as f64;
    close(&all(&|r| r.loss), &numbers(&expected["losses"]), TIGHT, id);
    close(&all(&|r| r.grad.chosen / count), &numbers(&expected["grad_chosen_logps"]), TIGHT, id);
    close(
        &all(&|r| r.grad.rejected / count),
        &numbers(&expected["grad_rejected_logps"]),
        TIGHT,
        id,
    );
    close(&all(&|r| r.reward.chosen), &numbers(&expected["chosen_rewards"]), TIGHT, id);
    close(&all(&|r| r.reward.rejected), &numbers(&expected["rejected_rewards"]), TIGHT, id);
}

/// TRL 1.16 divides IPO by length, and takes label smoothing in the robust loss alone; TRL 0.28
/// has IPO on sums, and cDPO.
#[test]
fn dpo_family_of_trl() {
    let mut counts = std::collections::BTreeMap::new();
    for (name, length_normalized) in
        [("dpo_seq_trl1.16_f64", true), ("dpo_seq_trl0.28.0_f64", false)]
    {
        let file = load(name);
        for case in file["cases"].as_array().unwrap() {
            let params = &case["params"];
            if params["f_divergence_type"].as_str().is_some_and(|kind| kind != "reverse_kl")
                || params["reference_free"].as_bool() == Some(true)
            {
                continue;
            }
            let beta = number(&params["beta"]);
            let smoothing = params.get("label_smoothing").or(params.get("ls")).map_or(0.0, number);
            let loss = case["loss_type"].as_str().unwrap();
            let objective: Box<dyn Objective<Pair>> = match loss {
                "sigmoid" => Box::new(Dpo::new(beta).with_label_smoothing(smoothing)),
                "robust" => Box::new(Robust::new(beta, smoothing)),
                "ipo" => Box::new(Ipo::new(beta).with_length_normalized(length_normalized)),
                "hinge" => Box::new(Hinge::new(beta)),
                _ => continue,
            };
            let input = &file["inputs"][case["input"].as_str().unwrap()];
            let [pc, pr, rc, rr, len_c, len_r] =
                ["pc", "pr", "rc", "rr", "len_c", "len_r"].map(|key| numbers(&input[key]));
            let pairs: Vec<Pair> = (0..pc.len())
                .map(|i| pair([pc[i], rc[i], len_c[i]], [pr[i], rr[i], len_r[i]]))
                .collect();
            check_pairs(case, &pairs, &*objective);
            *counts.entry(loss.to_owned()).or_insert(0) += 1;
        }
    }
    assert!(counts.len() == 4 && counts.values().all(|&count| count >= 60), "{counts:?}");
}

/// SimPO gets averages; the plain sigmoid form is DPO without a reference (CPO without its NLL).
#[test]
fn simpo_of_trl() {
    let file = load("cpo_simpo_trl1.16_f64");
    let mut cases = 0;
    for case in file["cases"].as_array().unwrap() {
        let params = &case["params"];
        let [beta, smoothing, gamma] =
            ["beta", "label_smoothing", "simpo_gamma"].map(|key| number(&params[key]));
        if number(&params["alpha"]) != 0.0 {
            continue;
        }
        let objective: Box<dyn Objective<Pair>> = match case["loss_type"].as_str().unwrap() {
            "sigmoid" => Box::new(Dpo::new(beta).with_label_smoothing(smoothing)),
            "simpo" => Box::new(SimPo::new(beta, gamma).with_label_smoothing(smoothing)),
            "hinge" => Box::new(Hinge::new(beta)),
            _ => continue,
        };
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let [chosen, rejected] = ["chosen_logps", "rejected_logps"].map(|key| numbers(&input[key]));
        let pairs: Vec<Pair> = chosen
            .iter()
            .zip(&rejected)
            .map(|(&c, &r)| pair([c, 0.0, 1.0], [r, 0.0, 1.0]))
            .collect();
        check_pairs(case, &pairs, &*objective);
        cases += 1;
    }
    assert!(cases >= 54, "{cases}");
}

/// Logits, labels and gradients of TRL's padded batch, rows chosen first.
#[test]
fn dpo_end_to_end_of_trl() {
    let file = load("dpo_e2e_trl1.16_f64");
    let input = &file["inputs"]["batch"];
    let ([sequences, length, width], vocab) = (
        <[usize; 3]>::try_from(shape(&input["hidden"])).unwrap(),
        shape(&input["lm_head_weight"])[0],
    );
    let data = matmul(&numbers(&input["hidden"]), &numbers(&input["lm_head_weight"]), width);
    let completion = integers(&input["completion_mask"]);
    let mut ids = integers(&input["input_ids"]);
    ids.iter_mut()
        .zip(completion)
        .filter(|(_, counts)| *counts == 0)
        .for_each(|(id, _)| *id = -100);
    let packing = Packing::padded(sequences, length).unwrap();
    let ids = prefuse::batch::shift_labels(&ids, &packing, -100).unwrap();
    let mut cases = 0;
    for case in file["cases"].as_array().unwrap() {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let beta = number(&case["params"]["beta"]);
        let term = match id {
            "sigmoid" => Term::pairs(Dpo::new(beta)),
            "hinge" => Term::pairs(Hinge::new(beta)),
            "robust_ls0.1" => Term::pairs(Robust::new(beta, 0.1)),
            "sft" => {
                Term::sequences(Nll::new(), Sequences::Chosen).with_reduction(Reduction::TokenMean)
            }
            "ipo" => {
                // TRL takes the lengths of IPO before the shift; all its completions start after
                // the first position, so they are the counts after it too.
                Term::pairs(Ipo::new(beta).with_length_normalized(true))
            }
            _ => continue,
        };
        let reference = numbers(&expected["ref_logps"]);
        let batch = Batch::new(Labels::new(&ids[..]), packing.clone())
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(&reference)))
            .and_then(|batch| batch.with_pairs(Pairs::halves(sequences / 2).unwrap()))
            .unwrap();
        let loss = Loss::new(batch, [term]).unwrap();
        let logits = Logits::new(&data, sequences * length, vocab).unwrap();
        let forward = loss.forward(&Reference::new(), logits).unwrap();
        assert_relative_eq!(forward.loss(), number(&expected["loss"]), max_relative = 1e-9);
        let sums = forward.totals().sums.to_vec().unwrap();
        close(&sums, &numbers(&expected["logps"]), TIGHT, id);
        let mut grads = vec![f64::NAN; data.len()];
        let target = (logits, LogitsMut::new(&mut grads, sequences * length, vocab).unwrap());
        loss.logit_grads(
            &Reference::new(),
            &forward,
            target,
            Upstream::Loss(1.0),
            MaskedRows::Zero,
        )
        .unwrap();
        close(&grads, &numbers(&expected["grad_logits"]), TIGHT, id);
        if let Some(metrics) = forward.metrics() {
            let trl = &expected["metrics"];
            for (key, got) in [
                ("rewards/chosen", metrics.rewards_chosen),
                ("rewards/rejected", metrics.rewards_rejected),
                ("rewards/margins", metrics.rewards_margin),
                ("logps/chosen", metrics.log_probs_chosen),
                ("logps/rejected", metrics.log_probs_rejected),
            ] {
                assert_relative_eq!(got, number(&trl[key]), max_relative = 1e-9);
            }
            // TRL computes the accuracy in f32.
            let accuracy = number(&trl["rewards/accuracies"]);
            assert_relative_eq!(metrics.rewards_accuracy, accuracy, max_relative = 1e-6);
        }
        cases += 1;
    }
    assert_eq!(cases, 5);
}

/// `[rows, width] x [columns, width]^T`.
fn matmul(left: &[f64], right: &[f64], width: usize) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    left.chunks(width).flat_map(|a| right.chunks(width).map(move |b| dot(a, b))).collect()
}
