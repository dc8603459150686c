//! What no package has, from `independent.py`: objectives with every per-pair input, terms,
//! reductions, weights, temperature, upstream gradients, Mask-DPO, entropy.

use prefuse::batch::{
    Batch, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs, Sentence, Unlabelled,
    Weights,
};
use prefuse::objectives::{Dpo, Hinge, Ipo, Nll, Reduction, Robust, SimPo};
use prefuse::{
    Forward, Loss, MaskedRows, Reference, RowOptions, Sequences, Slice, Target, Term, Upstream,
    token_log_probs,
};
use serde_json::Value;

use super::{TIGHT, close, integers, load, number, numbers, shape};

/// An input of the independent file.
struct Pack {
    data: Vec<f64>,
    vocab: usize,
    ids: Vec<i64>,
    ignore: i64,
    packing: Packing,
    reference: Vec<f64>,
}

impl Pack {
    fn new(input: &Value) -> Self {
        Self {
            data: numbers(&input["logits"]),
            vocab: shape(&input["logits"])[1],
            ids: integers(&input["labels"]),
            ignore: input["ignore_index"].as_i64().unwrap(),
            packing: Packing::new(&integers(&input["cu_seqlens"])).unwrap(),
            reference: numbers(&input["ref_token_logps"]),
        }
    }

    fn labels(&self) -> Labels<'_> {
        Labels::new(&self.ids[..]).with_ignore(self.ignore)
    }

    fn logits(&self) -> Logits<'_> {
        Logits::new(&self.data, self.ids.len(), self.vocab).unwrap()
    }
}

/// Every case of the independent script: objectives with every per-pair input, terms, reductions,
/// weights, temperature, upstream gradients, Mask-DPO, entropy.
#[test]
fn independent_script() {
    let file = load("independent_f64");
    let mut kinds = std::collections::BTreeMap::new();
    for case in file["cases"].as_array().unwrap() {
        let pack = Pack::new(&file["inputs"][case["input"].as_str().unwrap()]);
        let kind = case["kind"].as_str().unwrap();
        match kind {
            "entropy" => independent_entropy(case, &pack),
            _ => independent_loss(case, &pack),
        }
        *kinds.entry(kind.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(kinds.values().sum::<i32>(), 120, "{kinds:?}");
}

fn independent_entropy(case: &Value, pack: &Pack) {
    let (id, params, expected) = (case["id"].as_str().unwrap(), &case["params"], &case["expected"]);
    let options =
        RowOptions::default().with_temperature(number(&params["temperature"])).with_entropy();
    let (reference, labels) = (Reference::new(), pack.labels());
    let ours = token_log_probs(&reference, pack.logits(), &labels, None, options).unwrap();
    close(&ours.log_probs().to_vec().unwrap(), &numbers(&expected["token_logps"]), TIGHT, id);
    close(&ours.entropy().unwrap().to_vec().unwrap(), &numbers(&expected["entropy"]), TIGHT, id);
    let upstream =
        ["grad_logp", "grad_entropy"].map(|key| params.get(key).map(numbers).unwrap_or_default());
    let [mut by_log_prob, by_entropy] = upstream;
    by_log_prob.resize(pack.ids.len(), 0.0);
    let by_entropy = (!by_entropy.is_empty()).then(|| Slice::new(&by_entropy));
    let mut grads = vec![f64::NAN; pack.data.len()];
    let target = Target::OutOfPlace {
        logits: pack.logits(),
        grads: LogitsMut::new(&mut grads, pack.ids.len(), pack.vocab).unwrap(),
    };
    let upstream = (Slice::new(&by_log_prob), by_entropy);
    ours.logit_grads(&reference, target, (&labels, None), upstream, MaskedRows::Zero).unwrap();
    close(&grads, &numbers(&expected["grad_logits"]), TIGHT, id);
}

fn independent_loss(case: &Value, pack: &Pack) {
    let (id, params, expected) = (case["id"].as_str().unwrap(), &case["params"], &case["expected"]);
    let pairs = independent_pairs(params);
    let mut batch = Batch::new(pack.labels(), pack.packing.clone()).unwrap();
    let weights = match params.get("spans") {
        Some(spans) => Some(independent_mask(case, spans, pack, &pairs)),
        None => params.get("token_weights").map(weights),
    };
    if let Some(weights) = weights {
        batch = batch.with_weights(weights).unwrap();
    }
    let batch = batch
        .with_pairs(pairs)
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_token(&pack.reference)))
        .unwrap();
    let terms: Vec<Term> =
        params["terms"].as_array().unwrap().iter().map(independent_term).collect();
    let options = RowOptions::default().with_temperature(number(&params["temperature"]));
    let loss = Loss::new(batch, terms).unwrap().with_rows(options);
    let forward = loss.forward(&Reference::new(), pack.logits()).unwrap();
    check_forward(&forward, expected, id);

    let upstream = params.get("upstream_per_pair").map(numbers);
    let units = upstream.as_ref().map(|upstream| [&upstream[..]]);
    let upstream = match &units {
        Some(units) => Upstream::Units(units),
        None => Upstream::Loss(params.get("upstream").map_or(1.0, number)),
    };
    let mut grads = pack.data.clone();
    let logits = LogitsMut::new(&mut grads, pack.ids.len(), pack.vocab).unwrap();
    loss.logit_grads_in_place(&Reference::new(), forward, logits, upstream, MaskedRows::Zero)
        .unwrap();
    close(&grads, &numbers(&expected["grad_logits"]), TIGHT, id);
}

fn check_forward(forward: &Forward, expected: &Value, id: &str) {
    let got = |name: &str| format!("{id} {name}");
    close(
        &forward.tokens().log_probs().to_vec().unwrap(),
        &numbers(&expected["token_logps"]),
        TIGHT,
        &got("token"),
    );
    let totals = forward.totals();
    close(&totals.sums.to_vec().unwrap(), &numbers(&expected["logps"]), TIGHT, &got("sums"));
    close(&totals.tokens.to_vec().unwrap(), &numbers(&expected["counts"]), TIGHT, &got("counts"));
    close(
        &totals.weights.to_vec().unwrap(),
        &numbers(&expected["weight_sums"]),
        TIGHT,
        &got("weights"),
    );
    let reference = forward.reference_sums().unwrap().to_vec().unwrap();
    close(&reference, &numbers(&expected["ref_logps"]), TIGHT, &got("reference"));
    for (term, losses) in forward.terms().iter().zip(expected["term_losses"].as_array().unwrap()) {
        close(&term.losses, &numbers(losses), TIGHT, &got("losses"));
    }
    close(&[forward.loss()], &[number(&expected["loss"])], TIGHT, &got("loss"));
    let Some(metrics) = forward.metrics() else { return };
    for (index, key) in ["rewards_chosen", "rewards_rejected"].into_iter().enumerate() {
        let rewards = forward.terms()[0].rewards.iter().map(|rewards| rewards[index]);
        close(&rewards.collect::<Vec<_>>(), &numbers(&expected[key]), TIGHT, &got(key));
    }
    for (key, value) in [
        ("rewards/chosen", metrics.rewards_chosen),
        ("rewards/rejected", metrics.rewards_rejected),
        ("rewards/accuracies", metrics.rewards_accuracy),
        ("rewards/margins", metrics.rewards_margin),
        ("logps/chosen", metrics.log_probs_chosen),
        ("logps/rejected", metrics.log_probs_rejected),
    ] {
        close(&[value], &[number(&expected["metrics"][key])], TIGHT, &got(key));
    }
}

fn weights(value: &Value) -> Weights<'static> {
    let weights: Vec<f32> = numbers(value).into_iter().map(|weight| weight as f32).collect();
    Weights::new(weights).unwrap()
}

fn independent_pairs(params: &Value) -> Pairs<'static> {
    let index = |value: &Value| value.as_u64().unwrap() as usize;
    let indices = params["pairs"].as_array().unwrap().iter();
    let indices: Vec<_> = indices.map(|pair| (index(&pair[0]), index(&pair[1]))).collect();
    let mut pairs = Pairs::new(indices).unwrap();
    let term = &params["terms"][0];
    if let Some(beta) = term.get("beta_scale") {
        pairs = pairs.with_beta(numbers(beta)).unwrap();
    }
    if let Some(margin) = term.get("margin") {
        pairs = pairs.with_margin(numbers(margin)).unwrap();
    }
    if let Some(soft_label) = term.get("soft_label") {
        pairs = pairs.with_soft_label(numbers(soft_label)).unwrap();
    }
    if let Some(weight) = term.get("pair_weight") {
        pairs = pairs.with_weight(numbers(weight)).unwrap();
    }
    pairs
}

fn independent_mask(
    case: &Value,
    spans: &Value,
    pack: &Pack,
    pairs: &Pairs<'_>,
) -> Weights<'static> {
    let mut sentences = Vec::new();
    for (sequence, spans) in spans.as_array().unwrap().iter().enumerate() {
        for span in spans.as_array().unwrap() {
            let [start, end] = [0, 1].map(|i| span[i].as_u64().unwrap() as usize);
            sentences.push(Sentence::new(sequence, start..end, span[2].as_bool().unwrap()));
        }
    }
    let drop = case["params"]["drop_unlabelled"].as_bool() == Some(true);
    let unlabelled = if drop { Unlabelled::Drop } else { Unlabelled::Keep };
    let ours = Weights::mask_dpo(&pack.packing, pairs, &sentences, unlabelled).unwrap();
    let members: Vec<usize> = pairs.indices().iter().flat_map(|&(c, r)| [c, r]).collect();
    let expected = weights(&case["expected"]["token_weights"]);
    for sequence in members {
        let range = pack.packing.get(sequence).unwrap();
        assert_eq!(
            ours.host().unwrap()[range.clone()],
            expected.host().unwrap()[range],
            "{}",
            case["id"]
        );
    }
    // Sequences of no pair have no role; the script gives them one, so its weights stand in.
    expected
}

fn independent_term(term: &Value) -> Term {
    let get = |key: &str, neutral: f64| term.get(key).map_or(neutral, number);
    let (beta, smoothing) = (get("beta", f64::NAN), get("label_smoothing", 0.0));
    let normalized = term.get("length_normalized").and_then(Value::as_bool).unwrap_or(false);
    let sequences = match term.get("sequences").and_then(Value::as_str) {
        Some("all") => Sequences::All,
        _ => Sequences::Chosen,
    };
    let built = match term["loss"].as_str().unwrap() {
        "dpo" => Term::pairs(Dpo::new(beta).with_label_smoothing(smoothing)),
        "robust" => Term::pairs(Robust::new(beta, smoothing)),
        "ipo" => Term::pairs(Ipo::new(beta).with_length_normalized(normalized)),
        "hinge" => Term::pairs(Hinge::new(beta)),
        "simpo" => {
            let gamma = get("gamma", 0.0);
            Term::pairs(SimPo::new(beta, gamma).with_label_smoothing(smoothing))
        }
        "nll" => Term::sequences(Nll::new().with_length_normalized(normalized), sequences),
        other => panic!("{other}"),
    };
    let reduction = match term.get("reduction").and_then(Value::as_str) {
        None | Some("mean") => Reduction::Mean,
        Some("sum") => Reduction::Sum,
        Some("token_mean") => Reduction::TokenMean,
        Some("divisor") => Reduction::Divisor(get("divisor", f64::NAN)),
        Some(other) => panic!("{other}"),
    };
    built.with_weight(get("weight", 1.0)).with_reduction(reduction)
}
