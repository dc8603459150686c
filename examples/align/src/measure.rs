//! What a policy does on held-out pairs, compared with the reference it started from.

use serde::Serialize;

use crate::sequences::{Sequence, SequencePair};

/// Log-probabilities of every row of a pair.
#[derive(Debug, Clone)]
pub struct PairLogProbs {
    pub chosen: Vec<f32>,
    pub rejected: Vec<f32>,
}

/// Held-out figures at one moment. Sentence figures are log-probabilities per token, averaged
/// over tokens; absent where no sentence is marked so.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Measures {
    /// Mean of `(policy - reference)` of chosen minus rejected, in nats.
    pub margin: f64,
    /// Share of pairs with a margin above zero.
    pub accuracy: f64,
    pub factual_in_rejected: Option<f64>,
    pub non_factual_in_rejected: Option<f64>,
    pub factual_in_chosen: Option<f64>,
}

/// Compares a policy with its reference on the same pairs.
pub fn measure(
    pairs: &[SequencePair],
    policy: &[PairLogProbs],
    reference: &[PairLogProbs],
) -> Measures {
    let margins: Vec<f64> = policy
        .iter()
        .zip(reference)
        .map(|(policy, reference)| {
            change(&policy.chosen, &reference.chosen)
                - change(&policy.rejected, &reference.rejected)
        })
        .collect();
    let preferred = margins.iter().filter(|&&margin| margin > 0.0).count();
    let rejected =
        || pairs.iter().zip(policy).map(|(pair, logs)| (&pair.rejected, logs.rejected.as_slice()));
    let chosen =
        pairs.iter().zip(policy).map(|(pair, logs)| (&pair.chosen, logs.chosen.as_slice()));
    Measures {
        margin: margins.iter().sum::<f64>() / margins.len() as f64,
        accuracy: preferred as f64 / margins.len() as f64,
        factual_in_rejected: sentence_mean(rejected(), true),
        non_factual_in_rejected: sentence_mean(rejected(), false),
        factual_in_chosen: sentence_mean(chosen, true),
    }
}

/// Policy minus reference, summed over a sequence.
fn change(policy: &[f32], reference: &[f32]) -> f64 {
    policy.iter().zip(reference).map(|(&policy, &base)| f64::from(policy) - f64::from(base)).sum()
}

/// The mean log-probability of the tokens in sentences marked `factual`.
fn sentence_mean<'a>(
    answers: impl Iterator<Item = (&'a Sequence, &'a [f32])>,
    factual: bool,
) -> Option<f64> {
    let (mut sum, mut tokens) = (0.0, 0usize);
    for (sequence, log_probs) in answers {
        for sentence in sequence.sentences.iter().filter(|sentence| sentence.factual == factual) {
            sum += log_probs[sentence.rows.clone()].iter().map(|&l| f64::from(l)).sum::<f64>();
            tokens += sentence.rows.len();
        }
    }
    (tokens > 0).then(|| sum / tokens as f64)
}
