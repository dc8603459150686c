//! Units of any objective of the list, and batches that hold them.

use prefuse::batch::{Batch, Labels, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::{
    AVERAGE, AnyObjective, Divergence, Given, MAX_RESPONSES, Parameter, Response,
};
use rand::{Rng, RngExt};

use crate::common::rng;

/// A unit: its responses, then what is given for it.
pub type Unit = ([Response; MAX_RESPONSES], Given);

/// The rate `k` of an objective whose scores are exponentials `exp(k * log-ratio)`.
pub fn exponent_rate(objective: &AnyObjective) -> Option<f64> {
    let parameters = objective.parameters();
    let value = |name| parameters.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    match value("divergence")? {
        kind if kind == Divergence::ForwardKl.value() => Some(-1.0),
        kind if kind == Divergence::Alpha.value() => Some(value("alpha")? - 1.0),
        _ => None,
    }
}

/// Whether scores are exponentials of log-ratios, which soon leave every range.
pub fn is_exponential(objective: &AnyObjective) -> bool {
    exponent_rate(objective).is_some()
}

/// Of scores that are drawn from the 1 below it.
fn highest_score(objective: &AnyObjective) -> f64 {
    if objective.score_domain().expected == AVERAGE.expected { 0.0 } else { 1.0 }
}

/// Log-probs of up to 30 tokens, scores between 0 and 1 or averages between -1 and 0, and what the objective uses of the rest.
pub fn random_unit(seed: u64, objective: &AnyObjective) -> Unit {
    let mut rng = rng(seed);
    let scale = if is_exponential(objective) { -3.0 } else { -40.0 };
    let highest = highest_score(objective);
    let mut response = || {
        let (policy, reference) = (scale * rng.random::<f64>(), scale * rng.random::<f64>());
        let tokens = rng.random_range(0..30) as f64;
        Response::new(policy, tokens)
            .with_reference(reference)
            .with_score(highest - rng.random::<f64>())
            .with_old(policy + rng.random_range(-0.5..0.5))
    };
    let mut responses = [response(), response(), response(), response()];
    if objective.unit()[0] == "Token" {
        // The sequence's log-ratio, and an entropy; an advantage of either sign.
        responses[0].score = rng.random_range(-2.0..2.0);
        responses[1] = Response::new(rng.random_range(-0.5..0.5), rng.random_range(1..9) as f64);
        responses[2] = Response::new(rng.random_range(0.0..9.0), 1.0);
    }
    let inputs = objective.inputs();
    let mut or = |used: bool, range: std::ops::Range<f64>, neutral: f64| {
        let value = rng.random_range(range);
        if used { value } else { neutral }
    };
    let beta = or(inputs.beta, 0.3..3.0, 1.0);
    let margin = or(inputs.margin, -1.0..1.0, 0.0);
    let soft_label = or(inputs.soft_label, 0.0..1.0, 1.0);
    (responses, Given { beta, margin, soft_label })
}

/// Adds what the objective uses to a batch of at least 4 sequences that has none of it yet: pairs, each
/// with verdicts where there have to be some, scores, soft labels, and per-pair inputs.
pub fn complete<'a>(
    batch: Batch<'a>,
    indices: Vec<(usize, usize)>,
    objective: &AnyObjective,
    seed: u64,
) -> Batch<'a> {
    let mut rng = rng(seed);
    let inputs = objective.inputs();
    let sequences = batch.packing().sequences();
    let count = indices.len();
    let numbers = |rng: &mut dyn Rng, count: usize, range: std::ops::Range<f64>| {
        (0..count).map(|_| rng.random_range(range.clone())).collect::<Vec<f64>>()
    };
    let mut batch = batch;
    if inputs.score {
        let highest = highest_score(objective);
        let scores = numbers(&mut rng, sequences, highest - 1.0..highest);
        batch = batch.with_scores(scores).unwrap();
    }
    if objective.responses().len() == 1 {
        if inputs.soft_label {
            batch = batch.with_soft_labels(numbers(&mut rng, sequences, 0.0..1.0)).unwrap();
        }
        let weights = numbers(&mut rng, sequences, -1.0..2.0);
        return batch.with_sequence_weights(weights).unwrap();
    }
    let other = |&(chosen, rejected): &(usize, usize)| {
        let mut others = (0..sequences).filter(|s| *s != chosen && *s != rejected);
        (others.next().unwrap(), others.next().unwrap())
    };
    let verdicts: Vec<_> = indices.iter().map(other).collect();
    let mut pairs = Pairs::new(indices).unwrap();
    if objective.responses().len() == 4 {
        pairs = pairs.with_verdicts(verdicts).unwrap();
    }
    if inputs.beta {
        pairs = pairs.with_beta(numbers(&mut rng, count, 0.3..3.0)).unwrap();
    }
    if inputs.margin {
        pairs = pairs.with_margin(numbers(&mut rng, count, -1.0..1.0)).unwrap();
    }
    if inputs.soft_label {
        pairs = pairs.with_soft_label(numbers(&mut rng, count, 0.0..1.0)).unwrap();
    }
    batch.with_pairs(pairs.with_weight(numbers(&mut rng, count, -1.0..2.0)).unwrap()).unwrap()
}

/// `sequences` of one token each, for stages that never see the tokens.
pub fn single_tokens(sequences: usize, reference: &[f64]) -> Batch<'static> {
    let labels = Labels::new(vec![0; sequences]);
    Batch::new(labels, Packing::padded(sequences, 1).unwrap())
        .and_then(|batch| batch.with_reference(ReferenceLogProbs::per_sequence(reference)))
        .unwrap()
}
