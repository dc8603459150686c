//! TDPO from the logits of policy and reference to the gradient, against torch (`divergence.py`): the
//! objective, the sequential KLs, and the way back through both.

use prefuse::batch::{Batch, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::{Tdpo1, Tdpo2};
use prefuse::stages::{StudentTarget, Teacher, TokenDivergence};
use prefuse::{
    Distillation, Loss, MaskedRows, Reference, RowOptions, Term, Upstream, token_log_probs,
};
use serde_json::Value;

use super::{TIGHT, close, integers, load, number, numbers, shape};

/// Both responses of a case, one after the other.
fn both(case: &Value, what: &str) -> Vec<f64> {
    ["chosen", "rejected"].iter().flat_map(|side| numbers(&case[side][what])).collect()
}

#[test]
fn tdpo_of_an_independent_script() {
    let file = load("tdpo_f64");
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 16);
    for case in cases {
        check(case, case["id"].as_str().unwrap());
    }
}

fn check(case: &Value, id: &str) {
    let backend = Reference::new();
    let (policy, reference) = (both(case, "policy"), both(case, "reference"));
    let ids = ["chosen", "rejected"].map(|side| integers(&case[side]["labels"]));
    let [chosen, rejected] = ids.each_ref().map(Vec::len);
    let tokens = chosen + rejected;
    let vocab = shape(&case["chosen"]["policy"])[1];
    let offsets = [0, chosen as i64, tokens as i64];
    let (labels, packing) = (Labels::new(ids.concat()), Packing::new(&offsets).unwrap());
    let logits = Logits::new(&policy, tokens, vocab).unwrap();
    let reference = Logits::new(&reference, tokens, vocab).unwrap();
    let teacher = Teacher::new(reference);
    let options = RowOptions::default();
    let log_probs = token_log_probs(&backend, reference, &labels, None, options).unwrap();
    let log_probs = log_probs.log_probs().to_vec().unwrap();
    let batch = Batch::new(labels, packing).unwrap();
    let kl = Distillation::new(batch.clone(), TokenDivergence::ForwardKl).unwrap();
    let sums = kl.forward(&backend, logits, &teacher).unwrap().sums().to_vec();
    let expected = &case["expected"];
    close(&sums, &numbers(&expected["sequence_kls"]), TIGHT, id);

    let batch = batch
        .with_reference(ReferenceLogProbs::per_token(&log_probs))
        .and_then(|batch| batch.with_pairs(Pairs::halves(1).unwrap()))
        .and_then(|batch| batch.with_scores(sums))
        .unwrap();
    let beta = number(&case["beta"]);
    let (term, alpha) = match case["variant"].as_i64().unwrap() {
        1 => (Term::pairs(Tdpo1::new(beta)), [1.0, 1.0]),
        _ => {
            let alpha = number(&case["alpha"]);
            (Term::pairs(Tdpo2::new(beta).with_alpha(alpha)), [0.0, alpha])
        }
    };
    let loss = Loss::new(batch, [term]).unwrap();
    let forward = loss.forward(&backend, logits).unwrap();
    close(&[forward.loss()], &[number(&expected["loss"])], TIGHT, id);
    close(&forward.terms()[0].rewards[0], &numbers(&expected["rewards"]), TIGHT, id);
    let by = Upstream::Loss(1.0);
    let mut grads = vec![f64::NAN; tokens * vocab];
    let to = LogitsMut::new(&mut grads, tokens, vocab).unwrap();
    loss.logit_grads(&backend, &forward, (logits, to), by, MaskedRows::Zero).unwrap();
    let by_sums = loss.sequence_grads(&backend, &forward, by).unwrap();
    let by_kl: Vec<f64> = by_sums.iter().zip(alpha).map(|(by, alpha)| by * alpha).collect();
    let grads_to = LogitsMut::new(&mut grads, tokens, vocab).unwrap();
    let to = StudentTarget::Added { logits, grads: grads_to };
    kl.logit_grads(&backend, to, &teacher, &by_kl).unwrap();
    let expected: Vec<f64> =
        ["grad_chosen", "grad_rejected"].iter().flat_map(|side| numbers(&expected[side])).collect();
    close(&grads, &expected, TIGHT, id);
}
