//! The stage `divergence` of the reference: TRL's generalised JSD, and torch's values of every divergence
//! and teacher (`divergence.py`).

use prefuse::Reference;
use prefuse::stages::{Remainder, TokenDivergence};
use serde_json::Value;

use super::{TIGHT, close, integers, load, number, numbers, shape};
use crate::backends::composed_backends;
use crate::divergence::{Case, Found, Into, Source};
use crate::sparse_divergence::{Case as Sparse, compare};

/// Divides the logits by the temperature where torch divides what is left of them when the row's maximum
/// has been subtracted: 1e4 in f64.
const AT_OFFSETS: (f64, f64) = (1e-9, 1e-10);

#[test]
fn generalised_jsd_of_trl() {
    let file = load("gkd_jsd_trl1.16_f64");
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 120);
    for case in cases {
        let (params, expected) = (&case["params"], &case["expected"]);
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let [rows, length, vocab] = shape(&input["student"]).try_into().unwrap();
        let tokens = rows * length;
        let ids = match params["labels"].as_bool().unwrap() {
            true => integers(&input["labels"]),
            false => vec![0; tokens],
        };
        let temperature = number(&params["temperature"]);
        let counted = ids.iter().filter(|&&id| id != -100).count() as f64;
        // What divides the sum; where there are no labels, TRL divides by the batch.
        let divisor = match (params["reduction"].as_str(), params.get("num_items_in_batch")) {
            (_, Some(items)) => number(items),
            (Some("batchmean"), _) if params["labels"] == true => counted.max(1.0),
            (Some("batchmean"), _) => rows as f64,
            (Some("mean"), _) => (tokens * vocab) as f64,
            _ => 1.0,
        };
        let of_rows = Case {
            student: numbers(&input["student"]),
            vocab,
            source: Source::one(numbers(&input["teacher"]), vocab),
            divergence: TokenDivergence::JensenShannon { beta: number(&params["beta"]) },
            temperatures: [temperature; 2],
            ids: ids.clone(),
            weights: None,
            upstream: vec![1.0 / divisor; tokens],
        };
        let found = exact_and_single(&of_rows);
        let id = case["id"].as_str().unwrap();
        if let Some(value) = expected.get("value") {
            let sum = found.values.iter().sum::<f64>() / divisor;
            close(&[sum], &[number(value)], TIGHT, id);
            close(&found.grads, &numbers(&expected["grad_student_logits"]), TIGHT, id);
        } else {
            let kept = ids.iter().zip(&found.values).filter(|(id, _)| **id != -100);
            let kept: Vec<f64> = kept.map(|(_, &value)| value).collect();
            close(&kept, &numbers(&expected["per_token"]), TIGHT, id);
        }
    }
}

/// What the reference finds in f64, once all others have been compared with it in f32.
fn exact_and_single(case: &Case<f64, f64>) -> Found<f64> {
    let single = case.cast::<f32, f32>();
    for backend in composed_backends() {
        let found = single.run(&*backend, Into::Buffer);
        crate::divergence::compare(&format!("{backend:?}"), &single, &found, &single.truth());
    }
    case.run(&Reference::new(), Into::Buffer)
}

#[test]
fn every_divergence_of_torch() {
    let file = load("divergence_f64");
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 200);
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let expected = &case["expected"];
        let found = run(case);
        let within = if id.contains("offset") { AT_OFFSETS } else { TIGHT };
        close(&found.values, &numbers(&expected["values"]), within, id);
        close(&found.student_entropy, &numbers(&expected["student_entropy"]), within, id);
        if !expected["teacher_entropy"].is_null() {
            close(&found.teacher_entropy, &numbers(&expected["teacher_entropy"]), within, id);
        }
        if !expected["grads"].is_null() {
            close(&found.grads, &numbers(&expected["grads"]), within, id);
        }
    }
}

fn run(case: &Value) -> Found<f64> {
    let [tokens, vocab] = shape(&case["student"]).try_into().unwrap();
    let rule = &case["teacher_rule"];
    let part = |part: &Value| {
        let coefficient = &part["coefficient"];
        let coefficient = if coefficient.is_null() { 1.0 } else { number(coefficient) };
        (coefficient, numbers(&part["logits"]))
    };
    let teacher = case["teacher"].as_array().unwrap();
    let adaptive = (rule["name"] == "align_distil")
        .then(|| (number(&rule["beta"]), number(&rule["ratio"]), rule["doubled"] == true));
    let source = Source {
        parts: teacher.iter().map(part).collect(),
        vocab: shape(&teacher[0]["logits"])[1],
        adaptive,
    };
    let temperatures = numbers(&case["temperatures"]).try_into().unwrap();
    let case = Case {
        student: numbers(&case["student"]),
        vocab,
        source,
        divergence: divergence(&case["divergence"]),
        temperatures,
        ids: vec![0; tokens],
        weights: None,
        upstream: numbers(&case["upstream"]),
    };
    exact_and_single(&case)
}

pub fn divergence(of: &Value) -> TokenDivergence {
    use TokenDivergence as D;
    let get = |key: &str| number(&of[key]);
    let limit = |key: &str, open: f64| if of[key].is_null() { open } else { get(key) };
    match of["name"].as_str().unwrap() {
        "forward_kl" => D::ForwardKl,
        "reverse_kl" => D::ReverseKl,
        "symmetric_kl" => D::SymmetricKl { reverse: get("reverse") },
        "jensen_shannon" => D::JensenShannon { beta: get("beta") },
        "skew_forward_kl" => D::SkewForwardKl { alpha: get("alpha") },
        "skew_reverse_kl" => D::SkewReverseKl { alpha: get("alpha") },
        "total_variation" => D::TotalVariation,
        "soft_cross_entropy" => D::SoftCrossEntropy,
        "expected_advantage" => D::ExpectedAdvantage {
            beta: get("beta"),
            clip: (limit("low", f64::NEG_INFINITY), limit("high", f64::INFINITY)),
        },
        other => panic!("{other}"),
    }
}

#[test]
fn sparse_teachers_of_torch() {
    let file = load("sparse_teacher_f64");
    let cases = file["cases"].as_array().unwrap();
    let mut compared = 0;
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let [tokens, vocab] = shape(&case["student"]).try_into().unwrap();
        let remainder = match case["mode"].as_str().unwrap() {
            "renormalised" => Remainder::Renormalised,
            _ => Remainder::Bin,
        };
        // Nothing is left for others where all are listed: what the listed ones lack of 1 is divided among them
        // by us, and a bin of its own to the script.
        let lists_all = shape(&case["ids"])[1] == vocab;
        if remainder == Remainder::Bin && lists_all && !id.ends_with("full_exact") {
            continue;
        }
        compared += 1;
        let sparse = Sparse {
            student: numbers(&case["student"]),
            vocab,
            entries: integers(&case["ids"]),
            log_probs: numbers(&case["log_probs"]),
            remainder,
            divergence: divergence(&case["divergence"]),
            temperature: number(&case["temperature"]),
            ids: vec![0; tokens],
            weights: None,
            upstream: numbers(&case["upstream"]),
        };
        let found = sparse.run(&Reference::new(), Into::Buffer).unwrap();
        let single = sparse.cast::<f32>();
        composed_backends().iter().for_each(|backend| compare(&**backend, &single));
        let within = if id.contains("offset") { AT_OFFSETS } else { TIGHT };
        close(&found.numbers[0], &numbers(&case["expected"]["values"]), within, id);
        if !case["expected"]["grads"].is_null() {
            close(&found.grads, &numbers(&case["expected"]["grads"]), within, id);
        }
    }
    assert!(compared >= 180, "{compared}");
}
