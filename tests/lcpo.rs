//! What LCPO's losses are beside the rest: the log-odds that its statistic needs, and labels that are almost
//! certain.

use prefuse::objectives::{
    AnyObjective, Given, Lcpo, LcpoBase, LcpoCpo, LcpoSimPo, MAX_RESPONSES, Response,
};
use prefuse::statistics::posteriors;

use crate::units::random_unit;

type LogOdds = Box<dyn Fn(f64) -> f64>;

/// Each base with the beta of `factor` pairs, and its log-odds by the margin of the rewards.
fn bases(factor: f64) -> Vec<(AnyObjective, LogOdds)> {
    let beta = 0.3 * factor;
    let mut bases: Vec<(AnyObjective, LogOdds)> = vec![];
    for base in [LcpoBase::Dpo, LcpoBase::Ipo] {
        for normalized in [false, true] {
            let of = move |beta| Lcpo::new(beta).with_base(base).with_length_normalized(normalized);
            let log_odds = move |margin| of(beta).log_odds(margin);
            bases.push((AnyObjective::new(of(0.3)), Box::new(log_odds)));
        }
    }
    let sim_po = move |margin| LcpoSimPo::new(beta, 0.5).log_odds(margin);
    bases.push((AnyObjective::new(LcpoSimPo::new(0.3, 0.5)), Box::new(sim_po)));
    let cpo = move |margin| LcpoCpo::new(beta).log_odds(margin);
    bases.push((AnyObjective::new(LcpoCpo::new(0.3)), Box::new(cpo)));
    bases
}

/// By the paper's definition they are the loss of the exchanged label minus the loss.
#[test]
fn log_odds_are_those_of_the_loss() {
    for seed in 0..100 {
        let (responses, given) = random_unit(seed, &AnyObjective::new(Lcpo::new(0.3)));
        for (objective, log_odds) in bases(given.beta) {
            let at = |soft_label| objective.evaluate(&responses, Given { soft_label, ..given });
            let (right, wrong) = (at(1.0), at(0.0));
            let got = log_odds(right.rewards[0] - right.rewards[1]);
            // Either loss is right to an ulp of the larger, which is at least the log-odds.
            let (expected, ulp) = (wrong.loss - right.loss, f64::EPSILON * (1.0 + right.loss));
            approx::assert_relative_eq!(got, expected, max_relative = 1e-13, epsilon = 8.0 * ulp);
            // And the label of the statistic is the loss's own.
            let label = posteriors(&[got], &[given.soft_label]).unwrap()[0];
            let mix = label * right.loss + (1.0 - label) * wrong.loss;
            let loss = at(given.soft_label).loss;
            let digits = 8.0 * f64::EPSILON * (right.loss + wrong.loss);
            approx::assert_relative_eq!(loss, mix, max_relative = 1e-12, epsilon = digits);
        }
    }
}

/// Where the policy is sure, what is left of the loss is in the label's complement, which `1 - label` has no
/// digits of. Expected values: Python's decimal, 50 digits, at eta 0.9.
#[test]
fn almost_certain_labels() {
    let lcpo = AnyObjective::new(Lcpo::new(1.0));
    for (log_odds, loss, slope) in EXPECTED {
        let response = |sum: f64| Response::new(sum, 1.0).with_reference(-50.0);
        let mut responses = [Response::default(); MAX_RESPONSES];
        responses[0] = response(log_odds - 50.0);
        responses[1] = response(-50.0);
        let got = lcpo.evaluate(&responses, Given { soft_label: 0.9, ..Given::NEUTRAL });
        // The quotient 0.9 / (1 - 0.9), its logarithm, two exponentials and three products; an ulp of
        // the exponents is 35 of the result's.
        approx::assert_relative_eq!(got.loss, loss, max_relative = 2e-14);
        approx::assert_relative_eq!(got.grads[0], slope, max_relative = 2e-14);
    }
}

/// Log-odds, loss and its derivative.
const EXPECTED: [(f64, f64, f64); 4] = [
    (35.0, 3.082501527182972e-15, -5.604548231241764e-16),
    (38.0, 1.6393249025139708e-16, -2.7903402595982486e-17),
    (40.0, 2.31299287232542e-17, -3.776314893592524e-18),
    (-40.0, 1.533655886160264e-15, -3.398683404233272e-17),
];
