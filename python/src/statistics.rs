//! Numbers that losses take as constants, and labels and weights of tokens, over lists.

use prefuse::batch::{Packing, Pairs, Sentence, Unlabelled, Weights};
use prefuse::statistics::{self, Baseline, EmptySequences, GroupAdvantages, Singleton, Spread};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::exception;

/// What a text stands for.
fn named<T: Copy>(what: &str, name: &str, known: &[(&str, T)]) -> PyResult<T> {
    known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| format!("{name:?}")).collect();
        PyValueError::new_err(format!("{what}: expected {}, got {name:?}", names.join(" or ")))
    })
}

fn pairs_of(pairs: Vec<(usize, usize)>) -> PyResult<Pairs<'static>> {
    Pairs::new(pairs).map_err(exception)
}

/// Functions of lists that return a list or a number.
macro_rules! of_lists {
    ($($(#[doc = $doc:literal])* $name:ident($($argument:ident: $Type:ty),*) -> $Result:ty;)*) => {
        $(
            $(#[doc = $doc])*
            #[pyfunction]
            pub fn $name($($argument: $Type),*) -> PyResult<$Result> {
                statistics::$name($(of(&$argument)),*).map_err(exception)
            }
        )*
    };
}

/// How the core takes an argument.
trait Argument {
    type Taken<'a>
    where
        Self: 'a;
    fn taken(&self) -> Self::Taken<'_>;
}

impl Argument for Vec<f64> {
    type Taken<'a> = &'a [f64];
    fn taken(&self) -> &[f64] {
        self
    }
}

impl Argument for f64 {
    type Taken<'a> = f64;
    fn taken(&self) -> f64 {
        *self
    }
}

impl Argument for usize {
    type Taken<'a> = usize;
    fn taken(&self) -> usize {
        *self
    }
}

fn of<T: Argument>(argument: &T) -> T::Taken<'_> {
    argument.taken()
}

of_lists! {
    /// The share of pairs whose margin is above 0.
    accuracy(margins: Vec<f64>) -> f64;
    /// Expected calibration error of predicted probabilities against outcomes, in bins of equal width.
    expected_calibration_error(probabilities: Vec<f64>, outcomes: Vec<f64>, bins: usize) -> f64;
    /// Kendall's tau of two lists of scores (CREAM; Wang et al., 2024).
    kendall_tau(a: Vec<f64>, b: Vec<f64>) -> f64;
    /// Kendall's tau moved to 0 to 1, which CREAM takes as a soft label.
    consistency(a: Vec<f64>, b: Vec<f64>) -> f64;
    /// Log odds of preference probabilities, IRePO's targets.
    preference_log_odds(probabilities: Vec<f64>) -> Vec<f64>;
    /// The same from strengths of a Bradley-Terry model.
    strength_log_odds(chosen: Vec<f64>, rejected: Vec<f64>) -> Vec<f64>;
    /// MM-DPO's factors of beta from gaps of rewards.
    mm_dpo_beta_factors(reward_gaps: Vec<f64>, weight: f64, k: f64) -> Vec<f64>;
    /// ORPO's log odds of average log-probs.
    log_odds(averages: Vec<f64>) -> Vec<f64>;
    /// ORPO's log odds ratio of each pair of average log-probs.
    log_odds_ratios(chosen: Vec<f64>, rejected: Vec<f64>) -> Vec<f64>;
}

/// AOT's reference sums for distributional preference (Melnyk et al., 2024): the reference's gaps, sorted
/// against the policy's.
#[pyfunction]
pub fn aot_reference(
    pairs: Vec<(usize, usize)>,
    policy: Vec<f64>,
    reference: Vec<f64>,
) -> PyResult<Vec<f64>> {
    statistics::aot_reference(&pairs_of(pairs)?, &policy, &reference).map_err(exception)
}

/// Log-ratios of mismatched prompts and responses, for KTO's baseline; `empty` sequences are skipped
/// (`"skip"`, HALOs), skipped where their log-ratio is 0 (`"skip_zeros"`), or kept (`"keep"`, TRL).
#[pyfunction]
#[pyo3(signature = (policy, reference, tokens, empty = "skip"))]
pub fn kto_log_ratios(
    policy: Vec<f64>,
    reference: Vec<f64>,
    tokens: Vec<f64>,
    empty: &str,
) -> PyResult<Vec<f64>> {
    let known = [
        ("skip", EmptySequences::Skip),
        ("skip_zeros", EmptySequences::SkipZeros),
        ("keep", EmptySequences::Keep),
    ];
    let empty = named("empty", empty, &known)?;
    statistics::kto_log_ratios(&policy, &reference, &tokens, empty).map_err(exception)
}

/// Advantages of rewards among the responses to one prompt. `baseline` is `"mean"` or `"leave_one_out"`;
/// `spread` is `"group"` (unbiased, TRL's GRPO), `"group_population"`, `"batch"` or `"one"` (Dr. GRPO, RLOO).
#[pyfunction]
#[pyo3(signature = (rewards, prompts, baseline = "mean", spread = "group", epsilon = 1e-4))]
pub fn group_advantages(
    rewards: Vec<f64>,
    prompts: Vec<usize>,
    baseline: &str,
    spread: &str,
    epsilon: f64,
) -> PyResult<Vec<f64>> {
    let baselines = [("mean", Baseline::Mean), ("leave_one_out", Baseline::LeaveOneOut)];
    let spreads = [
        ("group", Spread::Group { epsilon }),
        ("group_population", Spread::GroupPopulation { epsilon }),
        ("batch", Spread::Batch { epsilon }),
        ("one", Spread::One),
    ];
    let advantages = GroupAdvantages {
        baseline: named("baseline", baseline, &baselines)?,
        spread: named("spread", spread, &spreads)?,
        singleton: Singleton::Zero,
    };
    advantages.of(&rewards, &prompts).map_err(exception)
}

/// Each label moved to the token that predicts it, within each sequence; the last one predicts nothing.
#[pyfunction]
#[pyo3(signature = (ids, cu_seqlens, ignore_index = -100))]
pub fn shift_labels(ids: Vec<i64>, cu_seqlens: Vec<i64>, ignore_index: i64) -> PyResult<Vec<i64>> {
    let packing = Packing::new(&cu_seqlens).map_err(exception)?;
    prefuse::batch::shift_labels(&ids, &packing, ignore_index).map_err(exception)
}

/// Mask-DPO's token weights (Gu et al., 2025): `sentences` are `(sequence, start, end, factual)`, ranges of
/// labels counted from the sequence's first token, or of ids where `of_ids`. Tokens in no sentence are kept on
/// both sides, or dropped.
#[pyfunction]
#[pyo3(signature = (cu_seqlens, pairs, sentences, *, of_ids = false, keep_unlabelled = true))]
pub fn mask_dpo_weights(
    cu_seqlens: Vec<i64>,
    pairs: Vec<(usize, usize)>,
    sentences: Vec<(usize, usize, usize, bool)>,
    of_ids: bool,
    keep_unlabelled: bool,
) -> PyResult<Vec<f32>> {
    let packing = Packing::new(&cu_seqlens).map_err(exception)?;
    let sentences: Vec<_> = sentences
        .into_iter()
        .map(|(sequence, start, end, factual)| match of_ids {
            true => Sentence::from_ids(sequence, start..end, factual),
            false => Sentence::new(sequence, start..end, factual),
        })
        .collect();
    let unlabelled = if keep_unlabelled { Unlabelled::Keep } else { Unlabelled::Drop };
    let weights = Weights::mask_dpo(&packing, &pairs_of(pairs)?, &sentences, unlabelled);
    let weights = weights.map_err(exception)?;
    weights.host().map(<[f32]>::to_vec).map_err(exception)
}
