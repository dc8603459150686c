//! Losses on tokens of TRL 1.16: the GRPO family, RLOO and GMPO, through stage 3 and the terms.

use std::collections::BTreeMap;

use prefuse::batch::Advantages;
use prefuse::objectives::{
    AnyObjective, Cispo, EntropyBonus, Given, Gmpo, Gspo, Importance, KlPenalty, PpoClip,
    Reduction, Response, Rloo, Sapo, Vespo,
};
use prefuse::statistics::{mask_low_entropy, mask_off_policy};
use prefuse::{ClipFraction, Sequences, Slice, Term, TokenMetrics};
use serde_json::Value;

use super::rows::Rows;
use super::{TIGHT, close, load, number, numbers};

impl Rows {
    /// The advantages, without those that TRL's masks take out of the policy's term.
    fn advantages(&self, params: &Value) -> Advantages<'static> {
        let all = Advantages::per_sequence(self.advantages.clone()).unwrap();
        let (labels, packing) = (self.labels(), self.packing());
        let masked = if let Some(share) = params.get("quant") {
            mask_low_entropy(&all, &self.entropy, number(share), &labels, None, &packing)
        } else if let Some(threshold) = params.get("off") {
            let (policy, threshold) = (&self.log_probs, number(threshold));
            mask_off_policy(&all, policy, &self.old, threshold, &labels, None, &packing)
        } else {
            Ok(all)
        };
        masked.unwrap()
    }

    /// TRL's mask of an entropy quantile, by token, or of off-policy sequences.
    fn compare_masks(&self, advantages: &Advantages<'_>, expected: &Value, id: &str) {
        let masks = ["entropy_mask", "off_policy_mask"].map(|key| expected.get(key).map(numbers));
        let Some(mask) = masks.into_iter().flatten().next() else { return };
        let width = self.mask.len() / mask.len();
        for (token, got) in advantages.slice().to_vec().unwrap().into_iter().enumerate() {
            let kept = self.advantages[token / self.length] * mask[token / width];
            if self.mask[token] != 0.0 {
                assert_eq!(got, kept, "{id}: token {token}");
            }
        }
    }

    /// What TRL logs under these names; it counts clipped tokens before its masks.
    fn logged(&self, params: &Value) -> Vec<(&'static str, f64)> {
        let old = params["use_old_logps"].as_bool().unwrap();
        let batch = self.batch(old, Advantages::per_sequence(&self.advantages[..]).unwrap());
        let terms = terms(self, params);
        let resolved: Vec<_> = terms.iter().map(|term| term.resolve(&batch).unwrap()).collect();
        let (log_probs, entropy) = (Slice::new(&self.log_probs), Slice::new(&self.entropy));
        let metrics =
            TokenMetrics::new(&batch, &resolved, log_probs, Some(entropy)).unwrap().unwrap();
        let mut logged = vec![("entropy", metrics.entropy.unwrap())];
        if params.get("beta").is_some() {
            logged.push(("kl", metrics.kl_reference.unwrap()));
        }
        let kind = params["loss_type"].as_str().unwrap();
        let mean = |fraction: ClipFraction| match params.get("level") {
            Some(_) => fraction.sequence_mean,
            None => fraction.token_mean,
        };
        match (kind, metrics.clip) {
            ("cispo", Some(clip)) => logged.push(("cispo_clip_ratio", mean(clip.high))),
            ("vespo", None) => logged.push(("vespo/phi_seq_mean", self.mean_weight(old))),
            ("sapo", None) => {}
            (_, clip) => {
                let clip = clip.unwrap();
                logged.push(("clip_ratio/low_mean", mean(clip.low)));
                logged.push(("clip_ratio/high_mean", mean(clip.high)));
                logged.push(("clip_ratio/region_mean", mean(clip.region)));
                logged.push(("clip_ratio/low_min", clip.low.sequence_min));
                logged.push(("clip_ratio/high_max", clip.high.sequence_max));
                assert_eq!(clip.dual, ClipFraction::default());
            }
        }
        if let Some(coefficient) = params.get("ent_coef") {
            let advantages = Advantages::per_sequence(&self.advantages[..]).unwrap();
            logged.push(("policy_loss", self.run(&terms[..2], old, advantages).0));
            logged.push(("entropy_coef", number(coefficient)));
        }
        logged
    }

    /// VESPO's weight, in the mean over the sequences.
    fn mean_weight(&self, old: bool) -> f64 {
        let objective = AnyObjective::new(Vespo::new());
        let weight = |sequence: usize| {
            let tokens = sequence * self.length..(sequence + 1) * self.length;
            let log_ratio = |t: usize| self.mask[t] * (self.log_probs[t] - self.old[t]);
            let sum = if old { tokens.map(log_ratio).sum() } else { 0.0 };
            let sign = if self.advantages[sequence] < 0.0 { -1.0 } else { 1.0 };
            let token = Response::new(-1.0, 1.0).with_score(sign);
            let responses = [token, Response::new(sum, 1.0), token, token];
            -sign * objective.evaluate(&responses, Given::NEUTRAL).grads[0]
        };
        (0..self.count).map(weight).sum::<f64>() / self.count as f64
    }

    /// The value of the terms, and the gradients by log-prob.
    fn run(&self, terms: &[Term], old: bool, advantages: Advantages<'_>) -> (f64, Vec<f64>) {
        let (mut value, mut grads) = (0.0, vec![0.0; self.log_probs.len()]);
        for term in terms {
            let evaluated = self.evaluate(term, old, &advantages);
            value += evaluated.value;
            grads.iter_mut().zip(evaluated.by_log_prob).for_each(|(sum, grad)| *sum += grad);
        }
        (value, grads)
    }
}

/// The rows of an input.
fn rows(input: &Value) -> Rows {
    Rows::new(input, ["token_logps", "old_token_logps", "ref_token_logps"])
}

/// The terms of a case of the GRPO family.
fn terms(rows: &Rows, params: &Value) -> Vec<Term> {
    let get = |key: &str, otherwise: f64| params.get(key).map_or(otherwise, number);
    let tokens: f64 = rows.counts().iter().sum();
    let sequences = rows.count as f64;
    let kind = params["loss_type"].as_str().unwrap();
    let reduction = match kind {
        "grpo" | "sapo" => Reduction::SequenceMean,
        "bnpo" => Reduction::TokenMean,
        // TRL's count of the window is that of the batch times the accumulation steps here.
        "dapo" | "cispo" | "vespo" => Reduction::Divisor(tokens.max(1.0)),
        "dr_grpo" => Reduction::Divisor(sequences * 12.0),
        "luspo" => Reduction::Divisor(sequences),
        other => panic!("{other}"),
    };
    // All but the kinds with a divisor from outside are divided by the accumulation steps.
    let steps = if ["dapo", "cispo", "vespo"].contains(&kind) { 1.0 } else { get("gas", 1.0) };
    let epsilon = get("eps", 0.2);
    let high = get("eps_high", epsilon);
    let sequence = params.get("level").is_some();
    let all = || Sequences::All;
    let policy = match (kind, sequence) {
        ("cispo", _) => Term::tokens(Cispo::new(high), all()),
        ("vespo", _) => Term::tokens(Vespo::new(), all()),
        // TRL holds its temperatures in f32.
        ("sapo", _) => {
            let tau = f64::from(1.05_f32);
            Term::tokens(Sapo::new().with_tau_negative(tau), all())
        }
        (_, true) => Term::tokens(Gspo::new(epsilon, high), all()),
        _ => {
            let cap = get("delta", 1e30);
            Term::tokens(PpoClip::new(epsilon, high).with_ratio_cap(cap), all())
        }
    };
    // On by default in TRL 1.16.
    let corrected = params.get("bias_corr").is_none_or(|value| value.as_bool().unwrap());
    let importance = match (corrected, sequence) {
        (true, false) => Importance::Token,
        (true, true) => Importance::Sequence,
        _ => Importance::None,
    };
    let beta = get("beta", 0.0);
    let kl = Term::tokens(KlPenalty::new().with_importance(importance), all());
    // TRL's bonus is a mean over the tokens, whatever the policy's reduction.
    let bonus = Term::tokens(EntropyBonus::new(), all()).with_weight(get("ent_coef", 0.0) / steps);
    let [policy, kl] = [policy.with_weight(1.0 / steps), kl.with_weight(beta / steps)]
        .map(|term| term.with_reduction(reduction));
    vec![policy, kl, bonus]
}

#[test]
fn grpo_family_of_trl() {
    let file = load("grpo_trl1.16_f64");
    let cases = file["cases"].as_array().unwrap();
    let mut compared = BTreeMap::new();
    for case in cases {
        let (id, params, expected) =
            (case["id"].as_str().unwrap(), &case["params"], &case["expected"]);
        let rows = rows(&file["inputs"][case["input"].as_str().unwrap()]);
        let old = params["use_old_logps"].as_bool().unwrap();
        let advantages = rows.advantages(params);
        rows.compare_masks(&advantages, expected, id);
        let (value, grads) = rows.run(&terms(&rows, params), old, advantages);
        close(&[value], &[number(&expected["loss"])], TIGHT, id);
        close(&grads, &numbers(&expected["grad_token_logps"]), TIGHT, id);
        let (logged, expected) = (rows.logged(params), expected["metrics"].as_object().unwrap());
        assert_eq!(logged.len(), expected.len(), "{id}");
        for (key, got) in logged {
            // Shares are quotients of whole numbers that TRL rounds to f32.
            let share = key.contains("clip_ratio");
            let tolerance = if share { (2f64.powi(-24), 0.0) } else { TIGHT };
            close(&[got], &[number(&expected[key])], tolerance, &format!("{id} {key}"));
            *compared.entry(key).or_insert(0) += 1;
        }
    }
    assert_eq!(cases.len(), 240);
    let compared: Vec<_> = compared.into_iter().collect();
    assert_eq!(
        compared,
        [
            ("cispo_clip_ratio", 20),
            ("clip_ratio/high_max", 180),
            ("clip_ratio/high_mean", 180),
            ("clip_ratio/low_mean", 180),
            ("clip_ratio/low_min", 180),
            ("clip_ratio/region_mean", 180),
            ("entropy", 240),
            ("entropy_coef", 5),
            ("kl", 145),
            ("policy_loss", 5),
            ("vespo/phi_seq_mean", 20),
        ]
    );
}

#[test]
fn rloo_and_gmpo_of_trl() {
    let file = load("rloo_gmpo_trl1.16_f64");
    let mut used = 0;
    for case in file["cases"].as_array().unwrap() {
        let (id, params, expected) =
            (case["id"].as_str().unwrap(), &case["params"], &case["expected"]);
        let rows = rows(&file["inputs"][case["input"].as_str().unwrap()]);
        let epsilon = number(&params["eps"]);
        let all = || Sequences::All;
        let policy = match id.split('/').next().unwrap() {
            "rloo" => Term::tokens(Rloo::new(epsilon), all()),
            _ => Term::tokens(Gmpo::new(epsilon), all()),
        };
        let beta = params.get("beta").map_or(0.0, number);
        let kl = Term::tokens(KlPenalty::new(), all()).with_weight(beta);
        let terms = [policy, kl].map(|term| term.with_reduction(Reduction::SequenceMean));
        let (mut value, grads) = rows.run(&terms, true, rows.advantages(params));
        // TRL counts a sequence without tokens with a ratio of 1, a constant.
        let empty = rows.counts().into_iter().zip(&rows.advantages).filter(|(n, _)| *n == 0.0);
        value -= empty.map(|(_, advantage)| advantage).sum::<f64>() / rows.count as f64;
        close(&[value], &[number(&expected["loss"])], TIGHT, id);
        close(&grads, &numbers(&expected["grad_token_logps"]), TIGHT, id);
        used += 1;
    }
    assert_eq!(used, 15);
}
