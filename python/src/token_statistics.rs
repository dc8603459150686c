//! Statistics of tokens: over lists of numbers by token, with labels, weights and offsets of sequences.

use prefuse::batch::{Advantages, Labels, Packing, Weights};
use prefuse::statistics::{self, NextQuill, TgDpo, WpoClamp};
use pyo3::prelude::*;

use crate::error::exception;
use crate::statistics::pairs_of;

/// Which tokens count, and where the sequences start.
struct Tokens {
    labels: Labels<'static>,
    weights: Option<Weights<'static>>,
    packing: Packing,
}

impl Tokens {
    fn new(
        labels: Vec<i64>,
        cu_seqlens: Vec<i64>,
        weights: Option<Vec<f32>>,
        ignore_index: i64,
    ) -> PyResult<Self> {
        Ok(Self {
            labels: Labels::new(labels).with_ignore(ignore_index),
            weights: weights.map(Weights::new).transpose().map_err(exception)?,
            packing: Packing::new(&cu_seqlens).map_err(exception)?,
        })
    }
}

fn numbers(weights: prefuse::Result<Weights<'static>>) -> PyResult<Vec<f32>> {
    let weights = weights.map_err(exception)?;
    weights.host().map(<[f32]>::to_vec).map_err(exception)
}

/// Of `[sequences]` numbers, or of `[tokens]` ones.
fn advantages_of(values: Vec<f64>, by_token: bool) -> PyResult<Advantages<'static>> {
    if by_token {
        return Ok(Advantages::per_token(&values));
    }
    Advantages::per_sequence(values).map_err(exception)
}

fn listed(advantages: prefuse::Result<Advantages<'static>>) -> PyResult<Vec<f64>> {
    advantages.and_then(|of| of.slice().to_vec()).map_err(exception)
}

/// AlignXplore's sums of probabilities, `[sequences]`.
#[pyfunction]
#[pyo3(signature = (log_probs, labels, cu_seqlens, weights = None, ignore_index = -100))]
pub fn probability_sums(
    log_probs: Vec<f64>,
    labels: Vec<i64>,
    cu_seqlens: Vec<i64>,
    weights: Option<Vec<f32>>,
    ignore_index: i64,
) -> PyResult<Vec<f64>> {
    let of = Tokens::new(labels, cu_seqlens, weights, ignore_index)?;
    statistics::probability_sums(&log_probs, &of.labels, of.weights.as_ref(), &of.packing)
        .map_err(exception)
}

/// WPO's weights of sequences (Zhou et al., 2024), from log-probs and logarithms of sums of squared
/// probabilities by token.
#[pyfunction]
#[pyo3(signature = (log_probs, log_sum_squares, labels, cu_seqlens, weights = None, ignore_index = -100))]
pub fn wpo_weights(
    log_probs: Vec<f64>,
    log_sum_squares: Vec<f64>,
    labels: Vec<i64>,
    cu_seqlens: Vec<i64>,
    weights: Option<Vec<f32>>,
    ignore_index: i64,
) -> PyResult<Vec<f64>> {
    let of = Tokens::new(labels, cu_seqlens, weights, ignore_index)?;
    let weights = of.weights.as_ref();
    statistics::wpo_weights(&log_probs, &log_sum_squares, &of.labels, weights, &of.packing)
        .map_err(exception)
}

/// WPO's weights of pairs, for `pair_weights`: products of those of their sequences, at most 1 where
/// `clamp_at_one`.
#[pyfunction]
#[pyo3(signature = (pairs, sequence_weights, clamp_at_one = false))]
pub fn wpo_pair_weights(
    pairs: Vec<(usize, usize)>,
    sequence_weights: Vec<f64>,
    clamp_at_one: bool,
) -> PyResult<Vec<f64>> {
    let clamp = if clamp_at_one { WpoClamp::AtOne } else { WpoClamp::None };
    statistics::wpo_pair_weights(&pairs_of(pairs)?, &sequence_weights, clamp).map_err(exception)
}

/// LD-DPO's token weights: `alpha` beyond the length of the shorter response of a pair.
#[pyfunction]
#[pyo3(signature = (alpha, pairs, labels, cu_seqlens, weights = None, ignore_index = -100))]
pub fn ld_dpo_weights(
    alpha: f64,
    pairs: Vec<(usize, usize)>,
    labels: Vec<i64>,
    cu_seqlens: Vec<i64>,
    weights: Option<Vec<f32>>,
    ignore_index: i64,
) -> PyResult<Vec<f32>> {
    let of = Tokens::new(labels, cu_seqlens, weights, ignore_index)?;
    let (pairs, weights) = (pairs_of(pairs)?, of.weights.as_ref());
    numbers(statistics::ld_dpo_weights(alpha, &of.labels, weights, &of.packing, &pairs))
}

/// Nash-MD's token weights.
#[pyfunction]
#[pyo3(signature = (policy, reference, win_probabilities, beta, labels, cu_seqlens, weights = None, ignore_index = -100))]
#[allow(clippy::too_many_arguments, reason = "Python names them")]
pub fn nash_md_weights(
    policy: Vec<f64>,
    reference: Vec<f64>,
    win_probabilities: Vec<f64>,
    beta: f64,
    labels: Vec<i64>,
    cu_seqlens: Vec<i64>,
    weights: Option<Vec<f32>>,
    ignore_index: i64,
) -> PyResult<Vec<f32>> {
    let of = Tokens::new(labels, cu_seqlens, weights, ignore_index)?;
    numbers(statistics::nash_md_weights(
        &policy,
        &reference,
        &win_probabilities,
        beta,
        &of.labels,
        of.weights.as_ref(),
        &of.packing,
    ))
}

/// TGDPO's token weights, from an aligned model's log-probs.
#[pyfunction]
#[pyo3(signature = (aligned, reference, pairs, labels, cu_seqlens, weights = None, ignore_index = -100, alpha = 0.5, beta = 0.1))]
#[allow(clippy::too_many_arguments, reason = "Python names them")]
pub fn tgdpo_weights(
    aligned: Vec<f64>,
    reference: Vec<f64>,
    pairs: Vec<(usize, usize)>,
    labels: Vec<i64>,
    cu_seqlens: Vec<i64>,
    weights: Option<Vec<f32>>,
    ignore_index: i64,
    alpha: f64,
    beta: f64,
) -> PyResult<Vec<f32>> {
    let of = Tokens::new(labels, cu_seqlens, weights, ignore_index)?;
    let (pairs, weights) = (pairs_of(pairs)?, of.weights.as_ref());
    let tgdpo = TgDpo { alpha, beta };
    numbers(tgdpo.weights(&aligned, &reference, &of.labels, weights, &of.packing, &pairs))
}

/// NextQuill's token weights, and the divisor for `reduction`.
#[pyfunction]
#[pyo3(signature = (with_history, without_history, labels, weights = None, ignore_index = -100, high = 0.9, low = 0.1, threshold = 0.05))]
#[allow(clippy::too_many_arguments, reason = "Python names them")]
pub fn next_quill_weights(
    with_history: Vec<f64>,
    without_history: Vec<f64>,
    labels: Vec<i64>,
    weights: Option<Vec<f32>>,
    ignore_index: i64,
    high: f64,
    low: f64,
    threshold: f64,
) -> PyResult<(Vec<f32>, f64)> {
    let offsets = vec![0, labels.len() as i64];
    let of = Tokens::new(labels, offsets, weights, ignore_index)?;
    let next_quill = NextQuill { high, low, threshold };
    let weights = of.weights.as_ref();
    let (weights, divisor) = next_quill
        .weights(&with_history, &without_history, &of.labels, weights)
        .map_err(exception)?;
    Ok((numbers(Ok(weights))?, divisor))
}

/// Advantages by token, 0 but at the `share` of tokens with the largest entropies.
#[pyfunction]
#[pyo3(signature = (advantages, entropies, share, labels, cu_seqlens, weights = None, ignore_index = -100, by_token = false))]
#[allow(clippy::too_many_arguments, reason = "Python names them")]
pub fn mask_low_entropy(
    advantages: Vec<f64>,
    entropies: Vec<f64>,
    share: f64,
    labels: Vec<i64>,
    cu_seqlens: Vec<i64>,
    weights: Option<Vec<f32>>,
    ignore_index: i64,
    by_token: bool,
) -> PyResult<Vec<f64>> {
    let advantages = advantages_of(advantages, by_token)?;
    let of = Tokens::new(labels, cu_seqlens, weights, ignore_index)?;
    let (labels, weights) = (&of.labels, of.weights.as_ref());
    let masked =
        statistics::mask_low_entropy(&advantages, &entropies, share, labels, weights, &of.packing);
    listed(masked)
}

/// Advantages by token, 0 in sequences of a negative one that have gone off the policy by more than a threshold.
#[pyfunction]
#[pyo3(signature = (advantages, policy, old, threshold, labels, cu_seqlens, weights = None, ignore_index = -100, by_token = false))]
#[allow(clippy::too_many_arguments, reason = "Python names them")]
pub fn mask_off_policy(
    advantages: Vec<f64>,
    policy: Vec<f64>,
    old: Vec<f64>,
    threshold: f64,
    labels: Vec<i64>,
    cu_seqlens: Vec<i64>,
    weights: Option<Vec<f32>>,
    ignore_index: i64,
    by_token: bool,
) -> PyResult<Vec<f64>> {
    let advantages = advantages_of(advantages, by_token)?;
    let of = Tokens::new(labels, cu_seqlens, weights, ignore_index)?;
    let (labels, weights) = (&of.labels, of.weights.as_ref());
    let masked = statistics::mask_off_policy(
        &advantages,
        &policy,
        &old,
        threshold,
        labels,
        weights,
        &of.packing,
    );
    listed(masked)
}
