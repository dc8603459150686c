//! The reference against values computed by others: TRL 1.16 and 0.28, torch, and an independent
//! script (`golden/independent.py`) where no package has the formula.

use approx::assert_relative_eq;
use prefuse::batch::{
    Batch, Labels, Logits, LogitsMut, Packing, Pairs, ReferenceLogProbs, Sentence, Unlabelled,
    Weights,
};
use prefuse::objectives::{
    Dpo, Evaluation, Hinge, Ipo, Nll, Objective, Pair, Reduction, Response, Robust, SimPo,
};
use prefuse::{
    Forward, Loss, MaskedRows, Reference, RowOptions, Sequences, Slice, Target, Term, Upstream,
    token_log_probs,
};
use serde_json::Value;

fn load(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) if text == "-Infinity" => f64::NEG_INFINITY,
        Value::String(text) if text == "Infinity" => f64::INFINITY,
        Value::String(text) if text == "NaN" => f64::NAN,
        Value::Bool(value) => f64::from(u8::from(*value)),
        value => value.as_f64().unwrap(),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = if value.is_object() { &value["data"] } else { value };
    list.as_array().unwrap().iter().map(number).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    numbers(value).into_iter().map(|value| value as i64).collect()
}

fn shape(value: &Value) -> Vec<usize> {
    value["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn close(got: &[f64], expected: &[f64], (relative, absolute): (f64, f64), what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let same = got == expected || got.is_nan() && expected.is_nan();
        let error = (got - expected).abs();
        assert!(
            same || error <= absolute + relative * expected.abs(),
            "{what}[{index}]: {got} for {expected}"
        );
    }
}

/// What the files promise.
const TIGHT: (f64, f64) = (1e-9, 1e-12);

/// Logits row `[sequence, position]` predicts the label of `[sequence, position + 1]`.
#[test]
fn token_log_probs_of_torch() {
    let file = load("token_logps_f64");
    let mut cases = 0;
    for case in file["cases"].as_array().unwrap() {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let [sequences, length, vocab] = shape(&input["logits"])[..] else { panic!() };
        let (data, ids) = (numbers(&input["logits"]), integers(&input["labels"]));
        let packing = Packing::padded(sequences, length).unwrap();
        let ids = prefuse::batch::shift_labels(&ids, &packing, -100).unwrap();
        let labels = Labels::new(&ids[..]);
        let options = RowOptions::default()
            .with_temperature(number(&case["params"]["temperature"]))
            .with_entropy()
            .with_argmax();
        let logits = Logits::new(&data, sequences * length, vocab).unwrap();
        let reference = Reference::new();
        let ours = token_log_probs(&reference, logits, &labels, None, options).unwrap();
        // The files leave each sequence's last position out.
        let shifted = |values: Vec<f64>| -> Vec<f64> {
            values.chunks(length).flat_map(|row| row[..length - 1].to_vec()).collect()
        };
        close(&shifted(ours.log_probs().to_f64()), &numbers(&expected["token_logps"]), TIGHT, id);

        let counted: Vec<bool> =
            shifted(ids.iter().map(|&id| f64::from(u8::from(id != -100))).collect())
                .iter()
                .map(|&x| x == 1.0)
                .collect();
        let only = |values: Vec<f64>| -> Vec<f64> {
            values
                .into_iter()
                .zip(&counted)
                .map(|(x, &counted)| if counted { x } else { 0.0 })
                .collect()
        };
        // torch.distributions clamps log 0 to the most negative number, so its entropy is finite.
        let entropy = only(numbers(&expected["entropy_torch_distributions"]));
        close(&shifted(ours.entropy().unwrap().to_f64()), &entropy, (1e-9, 1e-9), id);

        let cotangent = numbers(&expected["cotangent"]);
        let mut upstream = Vec::new();
        for row in cotangent.chunks(length - 1) {
            upstream.extend_from_slice(row);
            upstream.push(0.0);
        }
        let mut grads = vec![f64::NAN; data.len()];
        let target = Target::OutOfPlace {
            logits,
            grads: LogitsMut::new(&mut grads, sequences * length, vocab).unwrap(),
        };
        let upstream = (Slice::new(&upstream), None);
        ours.logit_grads(&reference, target, (&labels, None), upstream, MaskedRows::Zero).unwrap();
        close(&grads, &numbers(&expected["grad_logits"]), TIGHT, id);
        cases += 1;
    }
    assert_eq!(cases, 27);
}

/// The same for f32, f16 and bf16 inputs, on every backend, against the file's own f64 values. The
/// file also holds what torch returns in that dtype; ours is closer to the truth at every token.
#[test]
fn token_log_probs_in_low_precision() {
    let file = load("token_logps_lowprec");
    for case in file["cases"].as_array().unwrap() {
        match case["id"].as_str().unwrap() {
            "f32" => low_precision::<f32>(&file, case),
            "f16" => low_precision::<half::f16>(&file, case),
            "bf16" => low_precision::<half::bf16>(&file, case),
            other => panic!("{other}"),
        }
    }
}

fn low_precision<T: prefuse::Element>(file: &Value, case: &Value) {
    let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
    let input = &file["inputs"][case["input"].as_str().unwrap()];
    let [sequences, length, vocab] = shape(&input["logits"])[..] else { panic!() };
    let data: Vec<T> = numbers(&input["logits"]).into_iter().map(T::from_f64).collect();
    let packing = Packing::padded(sequences, length).unwrap();
    let ids = integers(&input["labels"]);
    let ids = prefuse::batch::shift_labels(&ids, &packing, -100).unwrap();
    let labels = Labels::new(&ids[..]);
    let logits = Logits::new(&data, sequences * length, vocab).unwrap();
    let (truth, torch) =
        (numbers(&expected["token_logps_f64"]), numbers(&expected["trl_token_logps_same_dtype"]));
    for backend in crate::common::backends() {
        let ours =
            token_log_probs(&*backend, logits, &labels, None, RowOptions::default()).unwrap();
        let ours = ours.log_probs().to_f64();
        let ours = ours.chunks(length).flat_map(|row| &row[..length - 1]);
        for ((got, truth), torch) in ours.zip(&truth).zip(&torch) {
            let bound = (torch - truth).abs() + 2f64.powi(-22) * truth.abs();
            assert!((got - truth).abs() <= bound, "{} {id}: {got} for {truth}", backend.name());
        }
    }
}

fn pair(chosen: [f64; 3], rejected: [f64; 3]) -> Pair {
    let response = |[policy, reference, tokens]: [f64; 3]| Response {
        policy,
        reference,
        tokens,
        weights: tokens,
    };
    let (chosen, rejected) = (response(chosen), response(rejected));
    Pair { chosen, rejected, beta: 1.0, margin: 0.0, soft_label: 1.0 }
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
            .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(reference)))
            .and_then(|batch| batch.with_pairs(Pairs::halves(sequences / 2).unwrap()))
            .unwrap();
        let loss = Loss::new(batch, [term]).unwrap();
        let logits = Logits::new(&data, sequences * length, vocab).unwrap();
        let forward = loss.forward(&Reference::new(), logits).unwrap();
        assert_relative_eq!(forward.loss(), number(&expected["loss"]), max_relative = 1e-9);
        let sums = forward.totals().sums.to_f64();
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
    close(&ours.log_probs().to_f64(), &numbers(&expected["token_logps"]), TIGHT, id);
    close(&ours.entropy().unwrap().to_f64(), &numbers(&expected["entropy"]), TIGHT, id);
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
        &forward.tokens().log_probs().to_f64(),
        &numbers(&expected["token_logps"]),
        TIGHT,
        &got("token"),
    );
    let totals = forward.totals();
    close(&totals.sums.to_f64(), &numbers(&expected["logps"]), TIGHT, &got("sums"));
    close(&totals.tokens.to_f64(), &numbers(&expected["counts"]), TIGHT, &got("counts"));
    close(&totals.weights.to_f64(), &numbers(&expected["weight_sums"]), TIGHT, &got("weights"));
    let reference = forward.reference_sums().unwrap().to_f64();
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
        let range = pack.packing.range(sequence);
        assert_eq!(ours.as_slice()[range.clone()], expected.as_slice()[range], "{}", case["id"]);
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
