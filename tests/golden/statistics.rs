//! Statistics against TRL: what its trainers compute on the way to the loss, and the losses that follow.

use prefuse::batch::{Labels, Packing, Pairs};
use prefuse::objectives::{ApoZero, Dpo, Evaluation, Ipo, Objective, Pair, Response};
use prefuse::statistics::{
    EmptySequences, Moments, WpoClamp, aot_reference, aot_unpaired, kto_baseline, kto_log_ratios,
    ld_dpo_weights, log_odds_ratios, nash_md_weights, wpo_pair_weights, wpo_weights,
};
use serde_json::Value;

use super::{TIGHT, close, integers, load, number, numbers, shape};

/// Half a unit in the last place of an f32, such as token weights are.
const WEIGHT: f64 = 1.0 / (1 << 24) as f64;

fn cases<'a>(file: &'a Value, kind: &str) -> Vec<(&'a Value, &'a Value)> {
    let cases = file["cases"].as_array().unwrap().iter();
    let cases = cases.filter(|case| case["loss_type"] == kind);
    cases.map(|case| (case, &file["inputs"][case["input"].as_str().unwrap()])).collect()
}

/// Gradients of elements with equal keys may be exchanged: torch's sort is not stable.
fn by_key(keys: &[f64], grads: &[f64]) -> Vec<f64> {
    let mut both: Vec<(f64, f64)> = keys.iter().copied().zip(grads.iter().copied()).collect();
    both.sort_by(|a, b| a.partial_cmp(b).unwrap());
    both.into_iter().map(|(_, grad)| grad).collect()
}

/// DPO of each pair in the order that TRL sorts them in, and the gradients by the sums of the batch.
#[test]
fn aot_of_trl() {
    let files = [("dpo_seq_trl1.16_f64", 54), ("dpo_seq_trl0.28.0_f64", 34)]
        .map(|(name, count)| (load(name), count));
    let kinds = ["aot", "aot_unpaired"].into_iter();
    for (kind, (file, count)) in kinds.flat_map(|kind| files.iter().map(move |file| (kind, file))) {
        let all = cases(file, kind);
        assert_eq!(all.len(), *count);
        for (case, input) in all {
            let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
            let mut smoothing = ["ls", "label_smoothing"].iter();
            let smoothing = smoothing.find_map(|key| case["params"].get(key)).map_or(0.0, number);
            let dpo = Dpo::new(number(&case["params"]["beta"])).with_label_smoothing(smoothing);
            let [pc, pr, rc, rr] = ["pc", "pr", "rc", "rr"].map(|key| numbers(&input[key]));
            let count = pc.len();
            let (policy, reference) = ([&pc[..], &pr].concat(), [&rc[..], &rr].concat());
            let mut pairs = Pairs::halves(count).unwrap();
            let mut matched = reference.clone();
            let gaps = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
            let keys: [Vec<f64>; 2] = if kind == "aot" {
                matched = aot_reference(&pairs, &policy, &reference).unwrap();
                let gap: Vec<f64> = gaps(&pc, &pr);
                let mut order: Vec<usize> = (0..count).collect();
                order.sort_by(|&a, &b| gap[a].partial_cmp(&gap[b]).unwrap());
                pairs =
                    Pairs::new(order.iter().map(|&i| (i, count + i)).collect::<Vec<_>>()).unwrap();
                [gap.clone(), gap]
            } else {
                pairs = aot_unpaired(&pairs, &policy, &reference).unwrap();
                [gaps(&pc, &rc), gaps(&pr, &rr)]
            };
            let mut grads = vec![f64::NAN; 2 * count];
            let mut losses = Vec::new();
            for &(chosen, rejected) in pairs.indices() {
                let response = |s: usize| Response::new(policy[s], 1.0).with_reference(matched[s]);
                let result = dpo.evaluate(&Pair::new(response(chosen), response(rejected)));
                losses.push(result.loss);
                grads[chosen] = result.grad.chosen / count as f64;
                grads[rejected] = result.grad.rejected / count as f64;
            }
            close(&losses, &numbers(&expected["losses"]), TIGHT, id);
            let names = ["grad_chosen_logps", "grad_rejected_logps"];
            for ((key, got), name) in keys.iter().zip(grads.chunks(count)).zip(names) {
                let expected = by_key(key, &numbers(&expected[name]));
                close(&by_key(key, got), &expected, TIGHT, id);
            }
        }
    }
}

/// TRL's padded rows, chosen first; `token_logps[i, t]` is about the token at `t + 1`.
pub struct Tokens {
    labels: Labels<'static>,
    pub packing: Packing,
    pub policy: Vec<f64>,
    reference: Vec<f64>,
    squares: Vec<f64>,
}

impl Tokens {
    pub fn new(input: &Value) -> Self {
        let [rows, width] = <[usize; 2]>::try_from(shape(&input["token_logps"])).unwrap();
        let mask = integers(&input["completion_mask"]);
        let counted = mask.chunks(width + 1).flat_map(|row| &row[1..]);
        let labels = counted.map(|&counts| if counts == 1 { 0 } else { -100 });
        Self {
            labels: Labels::new(labels.collect::<Vec<i64>>()),
            packing: Packing::padded(rows, width).unwrap(),
            policy: numbers(&input["token_logps"]),
            reference: numbers(&input["ref_token_logps"]),
            squares: numbers(&input["log_sum_sq_probs"]),
        }
    }

    fn pairs(&self) -> Pairs<'static> {
        Pairs::halves(self.packing.sequences() / 2).unwrap()
    }

    pub fn counts(&self, token: usize) -> bool {
        self.labels.slice().host::<i64>().unwrap()[token] == 0
    }

    /// Sums under token weights.
    pub fn responses(&self, weights: &[f64]) -> Vec<Response> {
        let response = |range: std::ops::Range<usize>| {
            let counted = || range.clone().filter(|&token| self.counts(token));
            let sum = |values: &[f64]| counted().map(|t| weights[t] * values[t]).sum::<f64>();
            let response = Response::new(sum(&self.policy), counted().count() as f64);
            response.with_reference(sum(&self.reference))
        };
        self.packing.ranges().map(response).collect()
    }

    /// Losses and gradients of the pairs against the file's.
    fn check(&self, case: &Value, objective: &dyn Objective<Pair>, given: [&[f64]; 2]) {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let [weights, pair_weights] = given;
        let responses = self.responses(weights);
        let sums: Vec<f64> = responses.iter().map(|response| response.policy).collect();
        close(&sums, &numbers(&expected["logps"]), TIGHT, id);
        let references: Vec<f64> = responses.iter().map(|response| response.reference).collect();
        close(&references, &numbers(&expected["ref_logps"]), TIGHT, id);
        let pairs = self.pairs();
        let results: Vec<Evaluation<Pair>> = pairs
            .indices()
            .iter()
            .map(|&(chosen, rejected)| {
                objective.evaluate(&Pair::new(responses[chosen], responses[rejected]))
            })
            .collect();
        let weighted = results.iter().zip(pair_weights);
        let losses: Vec<f64> = weighted.map(|(result, weight)| weight * result.loss).collect();
        close(&losses, &numbers(&expected["last_per_sequence_loss"]), TIGHT, id);
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        close(&[mean], &[number(&expected["loss"])], TIGHT, id);
        // TRL masks the log-probs themselves, so what its sums say at masked tokens goes nowhere.
        let (mut grads, mut counted) = (Vec::new(), Vec::new());
        let trl = numbers(&expected["grad_token_logps"]);
        for (result, (weight, &(chosen, rejected))) in
            results.iter().zip(pair_weights.iter().zip(pairs.indices()))
        {
            let slope = weight / results.len() as f64;
            for (sequence, grad) in [(chosen, result.grad.chosen), (rejected, result.grad.rejected)]
            {
                let range = self.packing.get(sequence).unwrap();
                for token in range.filter(|&token| self.counts(token)) {
                    grads.push(slope * grad * weights[token]);
                    counted.push(trl[token]);
                }
            }
        }
        close(&grads, &counted, TIGHT, id);
    }
}

fn token_cases<'a>(file: &'a Value, kinds: &[&str]) -> Vec<(&'a Value, String, Tokens)> {
    let cases = file["cases"].as_array().unwrap().iter();
    let kind = |case: &Value| case["id"].as_str().unwrap().split('/').next().unwrap().to_owned();
    let cases = cases.filter(|case| kinds.contains(&&*kind(case)));
    let input = |case: &Value| Tokens::new(&file["inputs"][case["input"].as_str().unwrap()]);
    cases.map(|case| (case, kind(case), input(case))).collect()
}

#[test]
fn wpo_of_trl() {
    let file = load("dpo_tokens_trl1.16_f64");
    let all = token_cases(&file, &["wpo_sigmoid", "wpo_ipo", "wpo_apo_zero"]);
    assert_eq!(all.len(), 9);
    for (case, kind, tokens) in all {
        let Tokens { labels, packing, policy, squares, .. } = &tokens;
        let weights = wpo_weights(policy, squares, labels, None, packing).unwrap();
        close(&weights, &numbers(&case["expected"]["wpo_weights"]), TIGHT, &kind);
        let of_pairs = wpo_pair_weights(&tokens.pairs(), &weights, WpoClamp::None).unwrap();
        let beta = number(&case["params"]["beta"]);
        let objective: Box<dyn Objective<Pair>> = match &*kind {
            "wpo_sigmoid" => Box::new(Dpo::new(beta)),
            "wpo_ipo" => Box::new(Ipo::new(beta).with_length_normalized(true)),
            _ => Box::new(ApoZero::new(beta)),
        };
        tokens.check(case, &*objective, [&vec![1.0; policy.len()], &of_pairs]);
    }
}

#[test]
fn ld_dpo_of_trl() {
    let file = load("dpo_tokens_trl1.16_f64");
    let all = token_cases(&file, &["ld_dpo", "ld_ipo"]);
    assert_eq!(all.len(), 15);
    for (case, kind, tokens) in all {
        let (alpha, beta) = (number(&case["params"]["ld"]), number(&case["params"]["beta"]));
        let Tokens { labels, packing, policy, .. } = &tokens;
        let weights = ld_dpo_weights(alpha, labels, None, packing, &tokens.pairs()).unwrap();
        // The weight is alpha in f32; the file's numbers are for alpha itself.
        let exact = |&weight: &f32| if weight == alpha as f32 { alpha } else { weight.into() };
        let weights: Vec<f64> = weights.host().unwrap().iter().map(exact).collect();
        let objective: Box<dyn Objective<Pair>> = match &*kind {
            "ld_dpo" => Box::new(Dpo::new(beta)),
            _ => Box::new(Ipo::new(beta).with_length_normalized(true)),
        };
        let ones = vec![1.0; packing.sequences() / 2];
        assert_eq!(weights.len(), policy.len());
        tokens.check(case, &*objective, [&weights, &ones]);
    }
}

/// The file has no mask: every position counts.
#[test]
fn nash_md_of_trl() {
    let file = load("xpo_nashmd_trl1.9_f64");
    let all = cases(&file, "nash_md");
    assert_eq!(all.len(), 4);
    for (case, input) in all {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let [sequences, width] = <[usize; 2]>::try_from(shape(&input["model_on_model"])).unwrap();
        let [policy, reference, wins] =
            ["model_on_model", "ref_on_model", "probability"].map(|key| numbers(&input[key]));
        let (labels, packing) = (vec![0; policy.len()], Packing::padded(sequences, width).unwrap());
        let (labels, beta) = (Labels::new(labels), number(&case["params"]["beta"]));
        let weights =
            nash_md_weights(&policy, &reference, &wins, beta, &labels, None, &packing).unwrap();
        let weights: Vec<f64> = weights.host().unwrap().iter().copied().map(f64::from).collect();
        let products: Vec<f64> = weights.iter().zip(&policy).map(|(w, x)| w * x).collect();
        let loss = products.iter().sum::<f64>() / sequences as f64;
        let rounded = products.iter().map(|x| x.abs()).sum::<f64>() * WEIGHT / sequences as f64;
        close(&[loss], &[number(&expected["loss"])], (1e-12, rounded), id);
        let grads: Vec<f64> = weights.iter().map(|weight| weight / sequences as f64).collect();
        close(&grads, &numbers(&expected["grad_model_on_model"]), (1.01 * WEIGHT, 1e-15), id);
    }
}

#[test]
fn kto_baseline_of_trl() {
    let file = load("kto_trl1.16_f64");
    let all = cases(&file, "kto");
    assert!(all.len() >= 33, "{}", all.len());
    for (case, input) in all {
        let [policy, reference] = ["kl_logps", "ref_kl_logps"].map(|key| numbers(&input[key]));
        let tokens = vec![1.0; policy.len()];
        let log_ratios =
            kto_log_ratios(&policy, &reference, &tokens, EmptySequences::Keep).unwrap();
        let baseline = kto_baseline(&log_ratios.into_iter().collect());
        let expected = number(&case["expected"]["kl"]);
        close(&[baseline], &[expected], TIGHT, case["id"].as_str().unwrap());
    }
}

/// TRL keeps the running moments in f32.
#[test]
fn bco_moments_of_trl() {
    let file = load("bco_trl1.9_f64");
    let all = cases(&file, "bco_unpaired");
    assert_eq!(all.len(), 8);
    let mut moments = Moments::new();
    for (case, input) in all {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let beta = number(&case["params"]["beta"]);
        if number(&case["params"]["step"]) == 0.0 {
            moments = Moments::new();
        }
        for role in ["chosen", "rejected"] {
            let [policy, reference] =
                ["policy", "ref"].map(|model| numbers(&input[format!("{model}_{role}")]));
            moments.extend(policy.iter().zip(&reference).map(|(p, r)| beta * (p - r)));
        }
        let running = &expected["running"];
        let got = [moments.mean(), moments.mean(), moments.variance(), moments.unbiased_std()];
        let expected =
            [&expected["delta"], &running["mean"], &running["var"], &running["std"]].map(number);
        close(&got, &expected, (1e-6, 2e-7), id);
        assert_eq!(moments.count() as f64, number(&running["count"]));
    }
}

/// TRL computes the odds in f32.
#[test]
fn odds_of_trl() {
    let file = load("orpo_trl1.16_f64");
    let all = cases(&file, "orpo_or_term");
    assert_eq!(all.len(), 18);
    for (case, input) in all {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let [chosen, rejected] = ["chosen_logps", "rejected_logps"].map(|key| numbers(&input[key]));
        let odds = log_odds_ratios(&chosen, &rejected).unwrap();
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let ratio =
            mean(odds.iter().map(|x| -(x.min(0.0).abs() + (-x.abs()).exp().ln_1p())).collect());
        let expected = ["log_odds_chosen", "log_odds_ratio"].map(|key| number(&expected[key]));
        close(&[mean(odds), ratio], &expected, (2e-5, 1e-6), id);
    }
}
