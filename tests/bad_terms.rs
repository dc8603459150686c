//! Terms and what is given for their units: every mistake is its own error, and names both sides.

use prefuse::batch::{Batch, Pairs, ReferenceLogProbs, Weights};
use prefuse::objectives::{
    AnyObjective, BradleyTerry, Cispo, Divergence, Dpo, ExoPair, InfiFpo, Irepo, Kto, Lcpo,
    LcpoCpo, LcpoSimPo, NamedError, Nll, Objective, ParameterKind, Reduction, RewardRegression,
    Scir, SimPo, Slic, Sppo, from_named, objectives,
};
use prefuse::{Cpu, Loss, ScalarLoss, Sequences, Slice, Term};

use crate::common::{batch, ready, refused};

#[test]
fn what_is_given_for_sequences() {
    let batch = || batch(&[0; 4], &[0, 2, 4]).unwrap();
    refused(batch().with_scores(&[1.0]), "score: expected length 2, got 1");
    refused(
        batch().with_scores(&[0.5, f64::INFINITY]),
        "score of sequence 1: expected a finite number, got inf",
    );
    refused(
        batch().with_soft_labels(&[0.5, 1.5]),
        "soft label of sequence 1: expected a number from 0 to 1, got 1.5",
    );
    refused(
        batch().with_soft_labels(&[f64::NAN, 0.5]),
        "soft label of sequence 0: expected a number from 0 to 1, got NaN",
    );
    refused(
        batch().with_sequence_weights(&[1.0, f64::NAN]),
        "weight of sequence 1: expected a finite number, got NaN",
    );
    refused(Batch::of_sequences(0), "sequences: expected at least 1, got 0");
    let pairs = || Pairs::halves(1).unwrap();
    refused(pairs().with_verdicts(vec![]), "verdicts: expected length 1, got 0");
    refused(
        pairs().with_verdicts(vec![(1, 1)]),
        "pair 0: expected two different sequences, got 1 twice",
    );
    refused(
        batch().with_pairs(pairs().with_verdicts(vec![(1, 2)]).unwrap()),
        "verdict for rejected of pair 0: expected a sequence below 2, got 2",
    );
}

prefuse::objective! {
    /// Looks at what pairs do not have.
    pub struct OfOld {
        required {}
        optional {}
    }
    uses(old)
    fn evaluate(self, pair: Pair) -> (loss, grad, reward) {
        loss = pair.chosen.old;
        grad.chosen = 1.0;
    }
}

#[test]
fn what_a_term_looks_at() {
    let one = |term: Term| Loss::new(ready(), [term]);
    refused(one(Term::pairs(Sppo::new(0.1))), "Sppo: expected a batch with scores, got none");
    refused(
        one(Term::sequences(Kto::new(0.1), Sequences::All)),
        "Kto: expected a batch with soft labels of the sequences, got none",
    );
    refused(
        one(Term::judged_pairs(Scir::new(0.1, 0.0))),
        "Scir: expected a batch with verdicts on the pairs, got none",
    );
    refused(
        one(Term::pairs(Dpo::new(0.1)).with_sequences(Sequences::Chosen)),
        "Dpo: expected a selection of pairs, got one of sequences",
    );
    refused(
        one(Term::sequences(Nll::new(), Sequences::All).with_pairs([0])),
        "Nll: expected a selection of sequences, got one of pairs",
    );
    refused(
        one(Term::pairs(Dpo::new(0.1)).with_pairs([0, 1])),
        "Dpo: expected selection 1 below 1, the number of pairs, got 1",
    );
    refused(one(Term::pairs(Dpo::new(0.1)).with_pairs([])), "Dpo: expected at least 1 unit, got 0");
    refused(
        one(Term::reward_pairs(BradleyTerry::new())),
        "BradleyTerry: expected a ScalarLoss, whose values are rewards, got a Loss on logits",
    );
    refused(one(Term::pairs(OfOld::new())), "OfOld: expected inputs that its unit has, got old");
    let without = batch(&[0; 4], &[0, 2, 4]).unwrap();
    refused(
        Loss::new(without, [Term::judged_pairs(Scir::new(0.1, 0.0))]),
        "Scir: expected a batch with reference log-probs, got none",
    );
}

/// Where an input that may be given makes the method.
#[test]
fn what_a_method_is_nothing_without() {
    let one = |term: Term| Loss::new(ready(), [term]);
    let required =
        |name: &str, what: &str| format!("{name}: expected a batch with {what}, got none");
    let labels = "soft labels of the pairs";
    refused(one(Term::pairs(Lcpo::new(0.1))), &required("Lcpo", labels));
    refused(one(Term::pairs(LcpoSimPo::new(2.0, 0.5))), &required("LcpoSimPo", labels));
    refused(one(Term::pairs(LcpoCpo::new(0.1))), &required("LcpoCpo", labels));
    let margins = "margins of the pairs";
    refused(one(Term::pairs(Irepo::new(0.1))), &required("Irepo", margins));
    let given = Pairs::halves(1).unwrap().with_margin(&[0.0]).unwrap();
    let batch = ready().with_pairs(given).unwrap();
    assert!(Loss::new(batch, [Term::pairs(Irepo::new(0.1))]).is_ok());
}

/// Each objective says what its scores are.
#[test]
fn scores_of_another_kind() {
    let with = |scores: [f64; 2], term: Term| {
        Loss::new(ready().with_scores(scores.to_vec()).unwrap(), [term])
    };
    refused(
        with([0.5, 2.0], Term::pairs(Sppo::new(0.1))),
        "score of sequence 1: expected a number from 0 to 1, got 2.0",
    );
    refused(
        with([0.5, -1.0], Term::pairs(InfiFpo::new(2.5))),
        "score of sequence 0: expected an average log-prob, at most 0, got 0.5",
    );
    assert!(with([-0.5, -1.0], Term::pairs(InfiFpo::new(2.5))).is_ok());
}

/// A mean over tokens is not to be had from sums.
#[test]
fn reductions_over_tokens() {
    let nll = Term::sequences(Nll::new(), Sequences::All);
    for (name, term) in [("Nll", nll), ("Dpo", Term::pairs(Dpo::new(0.1)))] {
        let expected = format!(
            "{name}: expected Mean or another reduction over units, SequenceMean being over tokens, got \
             SequenceMean"
        );
        let term = term.with_reduction(Reduction::SequenceMean);
        refused(Loss::new(ready(), [term]), &expected);
    }
}

#[test]
fn parameters_outside_their_domains() {
    let check = |objective: AnyObjective| {
        let error = objective.check().unwrap_err();
        format!("{}: expected {}, got {:?}", error.parameter, error.expected, error.got)
    };
    assert_eq!(
        check(AnyObjective::new(ExoPair::new(0.1, 0.6))),
        "label_smoothing: expected a number above 0 and up to 0.5, got 0.6"
    );
    let weight = "expected a number from 0 to 1e30";
    for gamma in [-0.5, 1e308] {
        let got = check(AnyObjective::new(SimPo::new(2.0, gamma)));
        assert_eq!(got, format!("gamma: {weight}, got {gamma:?}"));
    }
    assert_eq!(check(AnyObjective::new(Slic::new(-1.0))), format!("delta: {weight}, got -1.0"));
    assert_eq!(
        check(AnyObjective::new(Dpo::new(0.1).with_alpha(11.0))),
        "alpha: expected a number from -10 to 10, got 11.0"
    );
    let cispo = Cispo::new(1.28).with_floor(2.0);
    let error = "floor: expected a number up to cap, got 2.0";
    assert_eq!(check(AnyObjective::new(cispo)), error);
    assert!(Cispo::new(1.28).with_floor(1.28).check().is_ok());
    let named = Cispo::from_named(&[("cap", 1.28), ("floor", 2.0)]);
    assert_eq!(named.unwrap_err().to_string(), error);
}

/// What a domain's words leave outside: what is no number, no finite one, and what is beside its ends.
fn outside(expected: &str) -> Vec<f64> {
    let numbers: Vec<f64> = expected.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [low, high] = numbers[..] else { panic!("{expected}") };
    let below = if expected.contains("above") { low } else { low.next_down() };
    let above = if expected.contains("to below") { high } else { high.next_up() };
    vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, below, above]
}

#[test]
fn every_parameter_outside_its_domain() {
    for objective in objectives() {
        let made = objective.parameters();
        for (place, parameter) in objective.description().unwrap().parameters.iter().enumerate() {
            let (name, expected) = (parameter.name, parameter.expected);
            let number = parameter.kind == ParameterKind::Number;
            let values = if number { outside(expected) } else { vec![f64::NAN, 0.5, -1.0, 99.0] };
            for got in values {
                let mut given = made.clone();
                assert_eq!(given[place].0, name);
                given[place].1 = got;
                let error = from_named(objective.name(), &given).unwrap_err().to_string();
                let what = format!("{} {error}", objective.name());
                if number {
                    assert_eq!(
                        error,
                        format!("{name}: expected {expected}, got {got:?}"),
                        "{what}"
                    );
                }
                assert!(error.starts_with(name) && error.ends_with(&format!("{got:?}")), "{what}");
            }
        }
    }
}

#[test]
fn what_no_term_looks_at() {
    let with = |batch: Batch<'static>, term: Term| Loss::new(batch, [term]);
    let dpo = || Term::pairs(Dpo::new(0.1));
    let nll = || Term::sequences(Nll::new(), Sequences::All);
    let unused = |what: &str| format!("{what}: expected a term that uses them, got none");
    refused(with(ready().with_scores(&[1.0, 2.0]).unwrap(), dpo()), &unused("scores"));
    refused(
        with(ready().with_soft_labels(&[1.0, 0.0]).unwrap(), nll()),
        &unused("soft labels of the sequences"),
    );
    refused(
        with(ready().with_sequence_weights(&[1.0, 0.0]).unwrap(), dpo()),
        &unused("weights of the sequences"),
    );
    assert!(with(ready().with_sequence_weights(&[1.0, 0.0]).unwrap(), nll()).is_ok());
    let pairs = Pairs::new(vec![(0, 1), (2, 3)]).unwrap();
    let judged = pairs.clone().with_verdicts(vec![(2, 3), (0, 1)]).unwrap();
    let batch = |pairs: Pairs<'static>| {
        let batch = batch(&[0; 4], &[0, 1, 2, 3, 4]).unwrap();
        batch.with_reference(ReferenceLogProbs::per_token(&[-1.0; 4])).unwrap().with_pairs(pairs)
    };
    refused(with(batch(judged).unwrap(), dpo()), &unused("verdicts on the pairs"));
    // What is given for a pair that a term does not select is not that term's.
    let margins = || pairs.clone().with_margin(&[0.0, 0.5]).unwrap();
    let exo = || Term::pairs(ExoPair::new(0.1, 0.1));
    assert!(with(batch(margins()).unwrap(), exo().with_pairs([0])).is_ok());
    refused(
        with(batch(margins()).unwrap(), exo()),
        "margin of pair 1: ExoPair does not use it, expected the neutral 0, got 0.5",
    );
}

#[test]
fn batches_with_and_without_tokens() {
    let scalars =
        || Batch::of_sequences(2).and_then(|batch| batch.with_pairs(Pairs::halves(1)?)).unwrap();
    refused(
        Loss::new(scalars(), [Term::pairs(SimPo::new(2.0, 0.5))]),
        "batch: expected one with tokens, got one of Batch::of_sequences",
    );
    refused(
        ScalarLoss::new(ready(), [Term::reward_pairs(BradleyTerry::new())]),
        "batch: expected one of Batch::of_sequences, got one with tokens",
    );
    let per_token = scalars().with_reference(ReferenceLogProbs::per_token(&[-1.0; 2])).unwrap();
    refused(
        ScalarLoss::new(per_token, [Term::pairs(Dpo::new(0.1))]),
        "batch: expected reference sums per sequence, got log-probs per token",
    );
    refused(
        ScalarLoss::new(scalars(), [Term::rewards(RewardRegression::new(), Sequences::All)]),
        "RewardRegression: expected a batch with scores, got none",
    );
    refused(ScalarLoss::new(scalars(), []), "terms: expected at least 1, got 0");
    let sums = scalars().with_reference(ReferenceLogProbs::per_sequence(&[-1.0; 2])).unwrap();
    refused(
        ScalarLoss::new(sums, [Term::reward_pairs(BradleyTerry::new())]),
        "reference sums: expected a term that uses them, got none",
    );
    let weighted = scalars().with_weights(Weights::new(vec![0.0, 7.0]).unwrap()).unwrap();
    refused(
        ScalarLoss::new(weighted, [Term::reward_pairs(BradleyTerry::new())]),
        "batch: expected no token weights, for which pairs have Pairs::with_weight, got token weights",
    );
}

/// Counts that are none are refused, not divided by; values and counts have the types that are written.
#[test]
fn what_a_scalar_loss_takes() {
    let batch = Batch::of_sequences(2).unwrap().with_pairs(Pairs::halves(1).unwrap()).unwrap();
    let term = Term::reward_pairs(BradleyTerry::new()).with_reduction(Reduction::TokenMean);
    let loss = ScalarLoss::new(batch, [term]).unwrap();
    let run = |values: Slice<'_>, tokens: Slice<'_>| {
        loss.forward(&Cpu::new(), values, Some(tokens)).map(|forward| forward.loss())
    };
    let values = Slice::new(&[1.0_f32, 0.5]);
    let whole = |got: &str, sequence: usize| {
        format!(
            "token count of sequence {sequence}: expected a whole number from 0 to 2^53, got {got}"
        )
    };
    refused(run(values, Slice::new(&[f64::NAN, 1.0])), &whole("NaN", 0));
    refused(run(values, Slice::new(&[1.0, f64::INFINITY])), &whole("inf", 1));
    refused(run(values, Slice::new(&[-5_i64, 1])), &whole("-5.0", 0));
    refused(run(values, Slice::new(&[1.0_f32, 0.5])), &whole("0.5", 1));
    refused(run(values, Slice::new(&[1_i64])), "token counts: expected length 2, got 1");
    let half = [half::f16::ONE; 2];
    refused(run(values, Slice::new(&half)), "token counts: expected i64, f32 or f64, got f16");
    refused(run(Slice::new(&[3_i64, 1]), values), "values: expected f32 or f64, got i64");
    let counts = [Slice::new(&[3_i64, 1]), Slice::new(&[3.0_f32, 1.0]), Slice::new(&[3.0, 1.0])];
    let [a, b, c] = counts.map(|counts| run(values, counts).unwrap());
    assert_eq!([a, b], [b, c]);
}

#[test]
fn objectives_by_name() {
    let dpo = from_named("Dpo", &[("label_smoothing", 0.1), ("beta", 0.2), ("divergence", 2.0)]);
    let expected =
        Dpo::new(0.2).with_label_smoothing(0.1).with_divergence(Divergence::JensenShannon);
    assert_eq!(format!("{:?}", dpo.unwrap()), format!("AnyObjective(On({expected:?}))"));
    // Each of the list is made again by its own parameters.
    for objective in objectives() {
        let made = from_named(objective.name(), &objective.parameters()).unwrap();
        assert_eq!(format!("{made:?}"), format!("{objective:?}"));
    }
    let error = |name: &str, parameters: &[(&str, f64)]| {
        let error = from_named(name, parameters).unwrap_err();
        (error.to_string(), error)
    };
    let got = |name: &str, parameters: &[(&str, f64)]| error(name, parameters).0;
    for name in ["DPO", "dpo"] {
        assert_eq!(got(name, &[]), format!("objective: expected one of [\"Dpo\"], got {name}"));
    }
    assert!(got("sim_po", &[]).ends_with("[\"SimPo\"], got sim_po"));
    let names = got("Rebel", &[]);
    assert!(objectives().iter().all(|objective| names.contains(objective.name())), "{names}");
    assert_eq!(got("Dpo", &[]), "parameter beta: expected a value, got none");
    assert_eq!(
        got("ExoPair", &[("beta", 0.1), ("smoothing", 0.1)]),
        "parameter: expected one of [\"beta\", \"label_smoothing\", \"divergence\", \"alpha\"], got smoothing"
    );
    assert_eq!(
        got("Dpo", &[("beta", 0.1), ("beta", 0.2)]),
        "parameter beta: expected once, got twice"
    );
    assert_eq!(
        got("Dpo", &[("beta", -0.1)]),
        "beta: expected a number from 1e-30 to 1e30, got -0.1"
    );
    assert_eq!(
        got("Dpo", &[("beta", 0.1), ("length_normalized", 2.0)]),
        "length_normalized: expected true or false, got 2.0"
    );
    let (text, outside) = error("Dpo", &[("beta", 0.1), ("divergence", 4.0)]);
    let expected = &["ReverseKl", "ForwardKl", "JensenShannon", "Alpha"];
    assert_eq!(outside, NamedError::Variant { parameter: "divergence", expected, got: 4.0 });
    assert_eq!(text, format!("divergence: expected a position in {expected:?}, got 4.0"));
}
