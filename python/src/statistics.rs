//! Numbers that losses take as constants, and labels and weights of tokens, over lists.

use prefuse::batch::{Packing, Pairs, Sentence, Unlabelled, Weights};
use prefuse::statistics::{
    self, Baseline, EmptySequences, Fusion, GroupAdvantages, P3oAdvantages, Singleton, Spread, Ties,
};
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

pub fn pairs_of(pairs: Vec<(usize, usize)>) -> PyResult<Pairs<'static>> {
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

impl Argument for Vec<usize> {
    type Taken<'a> = &'a [usize];
    fn taken(&self) -> &[usize] {
        self
    }
}

impl Argument for Vec<bool> {
    type Taken<'a> = &'a [bool];
    fn taken(&self) -> &[bool] {
        self
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
    /// SPPO's mean win probability of each response among all.
    win_rates(scores: Vec<f64>) -> Vec<f64>;
    /// The responses of the highest and of the lowest score.
    best_and_worst(scores: Vec<f64>) -> (usize, usize);
    /// RE-PO's posteriors that a label is right, from log-odds and the annotators' reliabilities.
    posteriors(log_odds: Vec<f64>, reliability: Vec<f64>) -> Vec<f64>;
    /// CRM's pairs: the `share` of largest margins, as indices.
    keep_largest(margins: Vec<f64>, share: f64) -> Vec<usize>;
    /// MPO's easy pairs: those whose rewards are farther apart than the threshold, as indices.
    easy_pairs(reward_gaps: Vec<f64>, threshold: f64) -> Vec<usize>;
    /// Advantages times a factor of each one's prompt.
    prompt_scaled(advantages: Vec<f64>, prompts: Vec<usize>, factors: Vec<f64>) -> Vec<f64>;
    /// Advantages, 0 for neutral responses.
    without_neutral(advantages: Vec<f64>, neutral: Vec<bool>) -> Vec<f64>;
    /// The beta of MM-DPO's released code for a whole batch; `draws` are uniform numbers, one for each margin.
    mm_dpo_batch_beta(margins: Vec<f64>, draws: Vec<f64>, beta: f64, weight: f64) -> f64;
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

/// AOT's pairs for unpaired data: chosen and rejected sequences matched by the ranks of their log-ratios.
#[pyfunction]
pub fn aot_unpaired(
    pairs: Vec<(usize, usize)>,
    policy: Vec<f64>,
    reference: Vec<f64>,
) -> PyResult<Vec<(usize, usize)>> {
    let matched = statistics::aot_unpaired(&pairs_of(pairs)?, &policy, &reference);
    matched.map(|pairs| pairs.indices().to_vec()).map_err(exception)
}

/// AlignXplore's rewards of pairs, from sums of probabilities with and without the inferred preference.
#[pyfunction]
#[pyo3(signature = (pairs, with_preference, without, threshold = statistics::ALIGN_XPLORE_THRESHOLD))]
pub fn align_xplore_rewards(
    pairs: Vec<(usize, usize)>,
    with_preference: Vec<f64>,
    without: Vec<f64>,
    threshold: f64,
) -> PyResult<Vec<f64>> {
    statistics::align_xplore_rewards(&pairs_of(pairs)?, &with_preference, &without, threshold)
        .map_err(exception)
}

/// InfiFPO's fused references. `fusion` is `"max_margin"`, `"mean"` or `"confidence"`, which needs `epsilon`.
#[pyfunction]
#[pyo3(signature = (sources, pivot, pairs, fusion = "max_margin", epsilon = None))]
pub fn fuse_references(
    sources: Vec<Vec<f64>>,
    pivot: Vec<f64>,
    pairs: Vec<(usize, usize)>,
    fusion: &str,
    epsilon: Option<f64>,
) -> PyResult<Vec<f64>> {
    let confidence = Fusion::Confidence { epsilon: epsilon.unwrap_or(f64::NAN) };
    let known =
        [("max_margin", Fusion::MaxMargin), ("mean", Fusion::Mean), ("confidence", confidence)];
    let fusion = named("fusion", fusion, &known)?;
    let sources: Vec<&[f64]> = sources.iter().map(Vec::as_slice).collect();
    statistics::fuse_references(&sources, &pivot, &pairs_of(pairs)?, fusion).map_err(exception)
}

/// Ranks of scores, 1 the largest. `ties` is `"ordinal"`, `"min"`, `"max"`, `"average"` or `"dense"`.
#[pyfunction]
#[pyo3(signature = (scores, ties = "ordinal"))]
pub fn ranks(scores: Vec<f64>, ties: &str) -> PyResult<Vec<f64>> {
    let known = [
        ("ordinal", Ties::Ordinal),
        ("min", Ties::Min),
        ("max", Ties::Max),
        ("average", Ties::Average),
        ("dense", Ties::Dense),
    ];
    statistics::ranks(&scores, named("ties", ties, &known)?).map_err(exception)
}

/// KTO's baseline: the mean of the log-ratios that `kto_log_ratios` makes, at least 0.
#[pyfunction]
pub fn kto_baseline(log_ratios: Vec<f64>) -> f64 {
    statistics::kto_baseline(&log_ratios.into_iter().collect())
}

/// P3O's advantages by sequence (Wu et al., 2023), with the ratios of each sample apart (`form = "separate"`,
/// V1) or of both together (`"by_token"`, V3).
#[pyfunction]
#[pyo3(signature = (pairs, policy, old, reference, rewards, form = "separate", beta = 0.05, truncation = 10.0, scaled = false))]
#[allow(clippy::too_many_arguments, reason = "Python names them")]
pub fn p3o_advantages(
    pairs: Vec<(usize, usize)>,
    policy: Vec<f64>,
    old: Vec<f64>,
    reference: Vec<f64>,
    rewards: Vec<f64>,
    form: &str,
    beta: f64,
    truncation: f64,
    scaled: bool,
) -> PyResult<Vec<f64>> {
    let (p3o, pairs) = (P3oAdvantages { beta, truncation, scaled }, pairs_of(pairs)?);
    match named("form", form, &[("separate", true), ("by_token", false)])? {
        true => p3o.separate(&pairs, &policy, &old, &reference, &rewards),
        false => p3o.by_token(&pairs, &policy, &old, &reference, &rewards),
    }
    .map_err(exception)
}

/// Pairs, margins, weights.
type JointPairs = (Vec<(usize, usize)>, Vec<f64>, Vec<f64>);

/// P3O's pairs for the joint clip (V2), `prefuse.P3o`: pairs, `margin` and `pair_weights`.
#[pyfunction]
#[pyo3(signature = (pairs, policy, old, reference, rewards, beta = 0.05, truncation = 10.0, scaled = false))]
#[allow(clippy::too_many_arguments, reason = "Python names them")]
pub fn p3o_pairs(
    pairs: Vec<(usize, usize)>,
    policy: Vec<f64>,
    old: Vec<f64>,
    reference: Vec<f64>,
    rewards: Vec<f64>,
    beta: f64,
    truncation: f64,
    scaled: bool,
) -> PyResult<JointPairs> {
    let p3o = P3oAdvantages { beta, truncation, scaled };
    let joint =
        p3o.joint(&pairs_of(pairs)?, &policy, &old, &reference, &rewards).map_err(exception)?;
    let [_, margin, _, weight] = joint.inputs().map(|of| of.unwrap_or_default().to_vec());
    Ok((joint.indices().to_vec(), margin, weight))
}

/// Count, mean and variance of a stream of numbers, such as BCO's rewards; merged over ranks.
#[pyclass]
#[derive(Default)]
pub struct Moments(statistics::Moments);

#[pymethods]
impl Moments {
    /// Of as many numbers, with their mean and the sum of their squared deviations; of none by default.
    #[new]
    #[pyo3(signature = (count = 0, mean = 0.0, deviations = 0.0))]
    fn new(count: u64, mean: f64, deviations: f64) -> PyResult<Self> {
        statistics::Moments::from_parts(count, mean, deviations).map(Self).map_err(exception)
    }

    /// Takes in more numbers.
    fn extend(&mut self, values: Vec<f64>) {
        self.0.extend(values);
    }

    /// Takes in those of another rank.
    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    #[getter]
    fn count(&self) -> u64 {
        self.0.count()
    }

    #[getter]
    fn mean(&self) -> f64 {
        self.0.mean()
    }

    #[getter]
    fn deviations(&self) -> f64 {
        self.0.deviations()
    }

    /// The population variance.
    #[getter]
    fn variance(&self) -> f64 {
        self.0.variance()
    }

    /// The unbiased standard deviation.
    #[getter]
    fn unbiased_std(&self) -> f64 {
        self.0.unbiased_std()
    }
}

/// RE-PO's reliability of each annotator (LCPO), moved towards the mean posterior of their labels.
#[pyclass]
pub struct Reliability(statistics::Reliability);

#[pymethods]
impl Reliability {
    #[new]
    #[pyo3(signature = (annotators, initial = 0.9, momentum = 0.1))]
    fn new(annotators: usize, initial: f64, momentum: f64) -> PyResult<Self> {
        statistics::Reliability::new(annotators)
            .and_then(|of| of.with_initial(initial))
            .and_then(|of| of.with_momentum(momentum))
            .map(Self)
            .map_err(exception)
    }

    /// `[annotators]` reliabilities.
    #[getter]
    fn values(&self) -> Vec<f64> {
        self.0.values().to_vec()
    }

    /// `[pairs]` reliabilities of the annotators of the pairs.
    fn of(&self, annotators: Vec<usize>) -> PyResult<Vec<f64>> {
        self.0.of(&annotators).map_err(exception)
    }

    /// Moves the annotators of a batch towards the mean of their posteriors.
    fn update(&mut self, annotators: Vec<usize>, posteriors: Vec<f64>) -> PyResult<()> {
        self.0.update(&annotators, &posteriors).map_err(exception)
    }
}

/// SPA's threshold of confidence: a quantile of the last margins, below which labels are smoothed.
#[pyclass]
pub struct ConfidenceThreshold(statistics::ConfidenceThreshold);

#[pymethods]
impl ConfidenceThreshold {
    #[new]
    #[pyo3(signature = (window = 50, quantile = 0.1))]
    fn new(window: usize, quantile: f64) -> PyResult<Self> {
        statistics::ConfidenceThreshold::new(window, quantile).map(Self).map_err(exception)
    }

    /// Takes in a margin.
    fn push(&mut self, margin: f64) -> PyResult<()> {
        self.0.push(margin).map_err(exception)
    }

    /// The threshold; 0 until the window is full.
    #[getter]
    fn value(&self) -> f64 {
        self.0.value()
    }

    /// Soft labels of pairs: 1 above the threshold, `1 - strength` for the others.
    fn soft_labels(&self, margins: Vec<f64>, strength: f64) -> PyResult<Vec<f64>> {
        self.0.soft_labels(&margins, strength).map_err(exception)
    }
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
