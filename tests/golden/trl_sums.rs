//! Losses of TRL on sums of log-probs: pairs with and without a reference, single sequences, rewards.

use std::collections::BTreeMap;

use prefuse::batch::{Batch, Pairs};
use prefuse::objectives::{
    AlphaPo, AnyEvaluation, AnyObjective, ApoDown, ApoZero, BcoPair, BradleyTerry, Cpo, DiscoPop,
    Divergence, Dpo, ExoPair, Given, Hinge, Ipo, Kto, NcaPair, Orpo, PointwiseLogistic, Response,
    Robust, SimPo, Slic, SppoHard,
};
use prefuse::{Reference, ScalarLoss, Slice, Term, Upstream};
use serde_json::Value;

use super::{TIGHT, close, load, number, numbers};
use crate::units::exponent_rate;

/// The objective of a loss of TRL's DPO trainers, with its divergence.
pub fn dpo_family(loss: &str, params: &Value, sums: bool) -> AnyObjective {
    let get = |keys: &[&str], otherwise: f64| {
        keys.iter().find_map(|key| params.get(*key)).map_or(otherwise, number)
    };
    let beta = get(&["beta"], 0.1);
    let smoothing = get(&["ls", "label_smoothing"], 0.0);
    let kind = ["fdiv", "f_divergence_type"].iter().find_map(|key| params.get(*key));
    let (divergence, alpha) = match kind.and_then(Value::as_str) {
        None | Some("reverse_kl") => (Divergence::ReverseKl, 0.5),
        Some("forward_kl") => (Divergence::ForwardKl, 0.5),
        Some("js_divergence") => (Divergence::JensenShannon, 0.5),
        // TRL 0.28's alpha is 1 less that of 1.16 and of this crate.
        Some("alpha_divergence") => {
            (Divergence::Alpha, 1.0 - number(&params["alpha_divergence_coef"]))
        }
        Some(other) => panic!("{other}"),
    };
    macro_rules! held {
        ($objective:expr) => {
            AnyObjective::new($objective.with_divergence(divergence).with_alpha(alpha))
        };
    }
    match loss {
        // TRL since 0.29 has no cDPO.
        "sigmoid" => held!(Dpo::new(beta).with_label_smoothing(smoothing)),
        "sigmoid_norm" => held!(Dpo::new(beta).with_length_normalized(true)),
        "robust" => held!(Robust::new(beta, smoothing)),
        "hinge" => held!(Hinge::new(beta)),
        "ipo" => held!(Ipo::new(beta).with_length_normalized(!sums)),
        // 0.28 has 0.001 in the place of 0.
        "exo_pair" if smoothing == 0.0 => held!(ExoPair::new(beta, 1e-3)),
        "exo_pair" => held!(ExoPair::new(beta, smoothing)),
        "discopop" => held!(DiscoPop::new(beta).with_temperature(get(&["tau"], 0.05))),
        "nca_pair" => AnyObjective::new(NcaPair::new(beta)),
        "bco_pair" => AnyObjective::new(BcoPair::new(beta)),
        "sppo_hard" => AnyObjective::new(SppoHard::new(beta)),
        "apo_zero" => AnyObjective::new(ApoZero::new(beta)),
        "apo_down" => AnyObjective::new(ApoDown::new(beta)),
        other => panic!("{other}"),
    }
}

fn evaluate(objective: &AnyObjective, pairs: &[[Response; 2]]) -> Vec<AnyEvaluation> {
    let none = Response::default();
    let unit = |&[chosen, rejected]: &[Response; 2]| {
        objective.evaluate(&[chosen, rejected, none, none], Given::NEUTRAL)
    };
    pairs.iter().map(unit).collect()
}

/// Numbers against the file's. Where the library itself has none ours are finite, unless the pair's score
/// is `beyond` f64, and then not NaN. So where they are at the end of f64: torch divides by the number of
/// pairs before the last product.
fn close_where_finite(
    got: &[f64],
    expected: &[f64],
    beyond: &[bool],
    tolerance: (f64, f64),
    what: &str,
) {
    for (pair, (x, beyond)) in got.iter().zip(beyond).enumerate() {
        assert!(x.is_finite() || *beyond && !x.is_nan(), "{what}[{pair}]: {x}");
    }
    let kept = |values: &[f64]| -> Vec<f64> {
        values
            .iter()
            .zip(expected)
            .filter(|(_, x)| x.abs() < f64::MAX / 1e3)
            .map(|(value, _)| *value)
            .collect()
    };
    close(&kept(got), &kept(expected), tolerance, what);
}

/// Whether one of a pair's scores is an exponential beyond f64, or its square where the loss is one, and so
/// truly infinite.
fn is_beyond(objective: &AnyObjective, pair: &[Response; 2]) -> bool {
    let power = if objective.name() == "Ipo" { 2.0 } else { 1.0 };
    let past = |exponent: f64| power * exponent > f64::MAX.ln();
    let alpha = objective.parameters().iter().find(|(name, _)| *name == "alpha").map(|(_, x)| *x);
    pair.iter().any(|response| match (objective.name(), exponent_rate(objective), alpha) {
        ("AlphaPo", _, Some(alpha)) => past(-alpha * response.policy / response.tokens),
        (_, rate, _) => rate.is_some_and(|k| past(k * (response.policy - response.reference))),
    })
}

fn check(
    case: &Value,
    (objective, pairs): (&AnyObjective, &[[Response; 2]]),
    tolerance: (f64, f64),
    rewards: bool,
) {
    let results = evaluate(objective, pairs);
    let beyond: Vec<bool> = pairs.iter().map(|pair| is_beyond(objective, pair)).collect();
    let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
    let all = |of: &dyn Fn(&AnyEvaluation) -> f64| results.iter().map(of).collect::<Vec<f64>>();
    let count = results.len() as f64;
    let close = |got: Vec<f64>, key: &str| {
        let (expected, what) = (numbers(&expected[key]), format!("{id} {key}"));
        close_where_finite(&got, &expected, &beyond, tolerance, &what);
    };
    close(all(&|r| r.loss), "losses");
    close(all(&|r| r.grads[0] / count), "grad_chosen_logps");
    close(all(&|r| r.grads[1] / count), "grad_rejected_logps");
    if rewards {
        close(all(&|r| r.rewards[0]), "chosen_rewards");
        close(all(&|r| r.rewards[1]), "rejected_rewards");
    }
}

/// Every case of the three files but AOT's, which are checked beside its statistics.
#[test]
fn dpo_family_of_trl() {
    let mut counts = BTreeMap::new();
    for name in ["dpo_seq_trl1.16_f64", "dpo_seq_trl0.28.0_f64", "dpo_fdiv_trl1.16_f64"] {
        let (file, sums) = (load(name), name.contains("0.28"));
        for case in file["cases"].as_array().unwrap() {
            let (loss, params) = (case["loss_type"].as_str().unwrap(), &case["params"]);
            *counts.entry(name).or_insert(0) += 1;
            if loss.starts_with("aot") {
                continue;
            }
            let input = &file["inputs"][case["input"].as_str().unwrap()];
            let [pc, pr, mut rc, mut rr, lc, lr] =
                ["pc", "pr", "rc", "rr", "len_c", "len_r"].map(|key| numbers(&input[key]));
            // Without a reference the rewards are still against it.
            let free = params["reference_free"].as_bool() == Some(true);
            if free {
                rc.fill(0.0);
                rr.fill(0.0);
            }
            let response = |policy: f64, reference: f64, tokens: f64| {
                Response::new(policy, tokens).with_reference(reference)
            };
            let pairs: Vec<_> = (0..pc.len())
                .map(|i| [response(pc[i], rc[i], lc[i]), response(pr[i], rr[i], lr[i])])
                .collect();
            let mut objective = dpo_family(loss, params, sums);
            let mut tolerance = TIGHT;
            match loss {
                // TRL holds epsilon in f32: its logarithm is off by 2^-24, and so is the slope times
                // beta, and the loss by that of both logarithms.
                "exo_pair" => tolerance.1 = 2e-7,
                "bco_pair" if sums => {
                    // 0.28 subtracts the running mean of the rewards, this batch included, in f32.
                    let shift = number(&case["expected"]["delta_running_mean"]);
                    let beta = number(&params["beta"]);
                    let gap = |p: &[f64], r: &[f64]| -> f64 {
                        p.iter().zip(r).map(|(p, r)| beta * (p - r)).sum()
                    };
                    let mean = (gap(&pc, &rc) + gap(&pr, &rr)) / (2 * pc.len()) as f64;
                    close(&[mean], &[shift], (1e-6, 1e-6), case["id"].as_str().unwrap());
                    objective = AnyObjective::new(BcoPair::new(beta).with_shift(shift));
                }
                _ => {}
            }
            check(case, (&objective, &pairs), tolerance, !free);
        }
    }
    let expected = [663, 423, 140];
    let names = ["dpo_seq_trl1.16_f64", "dpo_seq_trl0.28.0_f64", "dpo_fdiv_trl1.16_f64"];
    assert!(counts.into_iter().eq(BTreeMap::from_iter(names.into_iter().zip(expected))));
}

/// CPO's, SimPO's and AlphaPO's preference terms; the inputs stand for sums or averages alike.
#[test]
fn reference_free_pairs_of_trl() {
    let file = load("cpo_simpo_trl1.16_f64");
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let params = &case["params"];
        let [beta, smoothing, gamma, alpha] =
            ["beta", "label_smoothing", "simpo_gamma", "alpha"].map(|key| number(&params[key]));
        let objective = match (case["loss_type"].as_str().unwrap(), alpha != 0.0) {
            // With alpha the rewards have AlphaPO's shape, whatever the loss.
            ("sigmoid", true) => AnyObjective::new(AlphaPo::new(alpha, beta, 0.0)),
            ("simpo", true) => AnyObjective::new(AlphaPo::new(alpha, beta, gamma)),
            ("sigmoid", _) => {
                let cpo = Cpo::new(beta).with_label_smoothing(smoothing).with_nll_weight(0.0);
                AnyObjective::new(cpo)
            }
            ("simpo", _) => {
                AnyObjective::new(SimPo::new(beta, gamma).with_label_smoothing(smoothing))
            }
            ("hinge", _) => AnyObjective::new(Slic::new(1.0).with_beta(beta)),
            ("ipo", _) => AnyObjective::new(Ipo::new(beta)),
            (other, _) => panic!("{other}"),
        };
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let [chosen, rejected] = ["chosen_logps", "rejected_logps"].map(|key| numbers(&input[key]));
        let pairs: Vec<_> = chosen
            .iter()
            .zip(&rejected)
            .map(|(&c, &r)| [Response::new(c, 1.0), Response::new(r, 1.0)])
            .collect();
        check(case, (&objective, &pairs), TIGHT, true);
    }
    assert_eq!(cases.len(), 90);
}

/// TRL computes the odds in f32; it subtracts the term from the loss, and has NaN where an average is
/// above -3e-8.
#[test]
fn orpo_of_trl() {
    let file = load("orpo_trl1.16_f64");
    let cases = file["cases"].as_array().unwrap();
    let mut checked = 0;
    for case in cases {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let beta = number(&case["params"]["beta"]);
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let [chosen, rejected] = ["chosen_logps", "rejected_logps"].map(|key| numbers(&input[key]));
        let orpo = AnyObjective::new(Orpo::new(beta).with_nll_weight(0.0));
        let pairs: Vec<_> = chosen
            .iter()
            .zip(&rejected)
            .map(|(&c, &r)| [Response::new(c, 1.0), Response::new(r, 1.0)])
            .collect();
        let results = evaluate(&orpo, &pairs);
        let count = results.len() as f64;
        let all = |of: &dyn Fn(&AnyEvaluation) -> f64| results.iter().map(of).collect::<Vec<f64>>();
        // Within 1e-4 of 0 an f32 holds an average to 2^-24 of 1 in exp: TRL's own digits end there.
        let near = |pair: usize| chosen[pair] > -1e-4 || rejected[pair] > -1e-4;
        let kept = |values: Vec<f64>| -> Vec<f64> {
            let pairs = values.into_iter().enumerate().filter(|(pair, _)| !near(*pair));
            pairs.map(|(_, value)| value).collect()
        };
        let loose = (2e-5, 1e-6);
        let close_far = |got: Vec<f64>, key: &str| {
            close(&kept(got), &kept(numbers(&expected[key])), loose, id);
        };
        close_far(all(&|r| -r.loss), "losses_sign_flipped");
        close_far(all(&|r| r.grads[0] / count), "grad_chosen_logps");
        close_far(all(&|r| r.grads[1] / count), "grad_rejected_logps");
        checked += kept(all(&|r| r.loss)).len();
        assert!(all(&|r| r.loss + r.grads[0] + r.grads[1]).iter().all(|x| x.is_finite()), "{id}");
        close(&all(&|r| r.rewards[0]), &numbers(&expected["chosen_rewards"]), loose, id);
        close(&all(&|r| r.rewards[1]), &numbers(&expected["rejected_rewards"]), loose, id);
    }
    assert_eq!((cases.len(), checked), (18, 70));
}

/// The losses, loss and gradients of single sequences, chosen first where a file has them so.
#[test]
fn kto_of_trl() {
    let file = load("kto_trl1.16_f64");
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let (id, expected, params) =
            (case["id"].as_str().unwrap(), &case["expected"], &case["params"]);
        let [beta, desirable, undesirable] =
            ["beta", "desirable_weight", "undesirable_weight"].map(|key| number(&params[key]));
        let baseline = if case["loss_type"] == "kto" { number(&expected["kl"]) } else { 0.0 };
        let kto = Kto::new(beta)
            .with_baseline(baseline)
            .with_desirable_weight(desirable)
            .with_undesirable_weight(undesirable);
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let [policy, reference, labels] =
            ["logps", "ref_logps", "label"].map(|key| numbers(&input[key]));
        let results = sequences(AnyObjective::new(kto), &policy, &reference, &labels);
        let of = |label: f64| results.iter().zip(&labels).filter(move |(_, l)| **l == label);
        let losses: Vec<f64> = of(1.0).chain(of(0.0)).map(|(r, _)| r.loss).collect();
        close(&losses, &numbers(&expected["losses_chosen_then_rejected"]), TIGHT, id);
        let count = results.len() as f64;
        let grads: Vec<f64> = results.iter().map(|r| r.grads[0] / count).collect();
        close(&grads, &numbers(&expected["grad_logps"]), TIGHT, id);
        for (key, label) in [("rewards/chosen", 1.0), ("rewards/rejected", 0.0)] {
            if let Some(logged) = expected["metrics"].get(key) {
                let rewards: Vec<f64> = of(label).map(|(r, _)| r.rewards[0]).collect();
                let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
                close(&[mean], &[number(logged)], TIGHT, id);
            }
        }
    }
    assert_eq!(cases.len(), 66);
}

#[test]
fn bco_of_trl() {
    let file = load("bco_trl1.9_f64");
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["expected"]);
        let beta = number(&case["params"]["beta"]);
        let bco = PointwiseLogistic::new(beta).with_shift(number(&expected["delta"]));
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let get = |model: &str, role: &str| numbers(&input[format!("{model}_{role}")]);
        let policy = [get("policy", "chosen"), get("policy", "rejected")].concat();
        let reference = [get("ref", "chosen"), get("ref", "rejected")].concat();
        let chosen = get("policy", "chosen").len();
        let labels: Vec<f64> = (0..policy.len()).map(|i| f64::from(u8::from(i < chosen))).collect();
        let results = sequences(AnyObjective::new(bco), &policy, &reference, &labels);
        let count = results.len() as f64;
        let all = |of: &dyn Fn(&AnyEvaluation) -> f64| results.iter().map(of).collect::<Vec<f64>>();
        close(&all(&|r| r.loss), &numbers(&expected["losses"]), TIGHT, id);
        let both = |keys: [&str; 2]| keys.map(|key| numbers(&expected[key])).concat();
        let grads = both(["grad_policy_chosen", "grad_policy_rejected"]);
        close(&all(&|r| r.grads[0] / count), &grads, TIGHT, id);
        let rewards = both(["chosen_rewards", "rejected_rewards"]);
        close(&all(&|r| r.rewards[0]), &rewards, TIGHT, id);
    }
    assert_eq!(cases.len(), 8);
}

fn sequences(
    objective: AnyObjective,
    policy: &[f64],
    reference: &[f64],
    labels: &[f64],
) -> Vec<AnyEvaluation> {
    let none = Response::default();
    (0..policy.len())
        .map(|i| {
            let response = Response::new(policy[i], 1.0).with_reference(reference[i]);
            let given = Given { soft_label: labels[i], ..Given::NEUTRAL };
            objective.evaluate(&[response, none, none, none], given)
        })
        .collect()
}

#[test]
fn reward_models_of_trl() {
    let file = load("reward_bt_trl1.16_f64");
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let (id, expected, params) =
            (case["id"].as_str().unwrap(), &case["expected"], &case["params"]);
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let [chosen, rejected, margin] =
            ["rewards_chosen", "rewards_rejected", "margin"].map(|key| numbers(&input[key]));
        let count = chosen.len();
        let mut pairs = Pairs::halves(count).unwrap();
        if params["use_margin"].as_bool().unwrap() {
            pairs = pairs.with_margin(margin).unwrap();
        }
        let centering = params["center_rewards_coefficient"].as_f64().unwrap_or(0.0);
        let batch = Batch::of_sequences(2 * count).unwrap().with_pairs(pairs).unwrap();
        let term = Term::reward_pairs(BradleyTerry::new().with_centering(centering));
        let loss = ScalarLoss::new(batch, [term]).unwrap();
        let rewards = [chosen, rejected].concat();
        let forward = loss.forward(&Reference::new(), Slice::new(&rewards), None).unwrap();
        close(&[forward.loss()], &[number(&expected["loss"])], TIGHT, id);
        let grads = forward.grads(&Reference::new(), Upstream::Loss(1.0)).unwrap();
        close(&grads[..count], &numbers(&expected["grad_rewards_chosen"]), TIGHT, id);
        close(&grads[count..], &numbers(&expected["grad_rewards_rejected"]), TIGHT, id);
        let (got, logged) = (forward.metrics().unwrap(), &expected["metrics"]);
        let mean = (got.rewards_chosen + got.rewards_rejected) / 2.0;
        let ours = [got.rewards_min, mean, got.rewards_max, got.rewards_margin];
        let keys = ["min_reward", "mean_reward", "max_reward", "margin"];
        // Means of +-1000 and 1e-7: the order of their sum shows at 1e-13 of 1000.
        close(&ours, &keys.map(|key| number(&logged[key])), (1e-9, 1e-10), id);
        // TRL computes the accuracy in f32.
        close(&[got.rewards_accuracy], &[number(&logged["accuracy"])], (1e-6, 0.0), id);
    }
    assert_eq!(cases.len(), 30);
}
