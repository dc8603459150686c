//! Units of any objective of the list, and batches that hold them.

use prefuse::batch::{Batch, Labels, Packing, Pairs, ReferenceLogProbs};
use prefuse::objectives::{AnyObjective, Given, MAX_RESPONSES, Response};
use rand::{Rng, RngExt};

use crate::common::rng;

/// A unit: its responses, then what is given for it.
pub type Unit = ([Response; MAX_RESPONSES], Given);

/// Whether scores are exponentials of log-ratios, which soon leave every range.
pub fn is_exponential(objective: &AnyObjective) -> bool {
    let parameters = objective.parameters();
    parameters.iter().any(|&(name, value)| name == "divergence" && (value == 1.0 || value == 3.0))
}

/// Log-probs of up to 30 tokens, scores between 0 and 1, and what the objective uses of the rest.
pub fn random_unit(seed: u64, objective: &AnyObjective) -> Unit {
    let mut rng = rng(seed);
    let scale = if is_exponential(objective) { -3.0 } else { -40.0 };
    let mut response = || {
        let (policy, reference) = (scale * rng.random::<f64>(), scale * rng.random::<f64>());
        let tokens = rng.random_range(0..30) as f64;
        Response::new(policy, tokens)
            .with_reference(reference)
            .with_score(rng.random())
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
        batch = batch.with_scores(numbers(&mut rng, sequences, 0.0..1.0)).unwrap();
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
