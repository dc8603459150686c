//! What a run has measured, and its means and spreads.

use serde::Serialize;

use crate::args::Settings;
use crate::loss::Method;
use crate::measure::Measures;
use crate::train::Point;

/// Everything that goes into `align.json`.
#[derive(Debug, Serialize)]
pub struct Results {
    pub data: String,
    pub training_pairs: usize,
    pub held_out_pairs: usize,
    pub vocabulary: usize,
    pub notes: Vec<String>,
    pub settings: Settings,
    pub runs: Vec<Run>,
    pub summary: Vec<Summary>,
}

/// One method from one start.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub method: Method,
    pub seed: u64,
    pub points: Vec<Point>,
}

/// The last held-out figures of a method.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub method: Method,
    pub metric: Metric,
    /// At the common start.
    pub start: Spread,
    /// At the end; for log-probabilities the change from the start.
    pub end: Spread,
}

/// A mean and a standard deviation over seeds; no deviation for a single seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub mean: f64,
    pub deviation: Option<f64>,
}

impl Spread {
    /// The sample mean and standard deviation; none of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        (!values.is_empty()).then_some(Self { mean, deviation })
    }
}

/// What is reported of the held-out pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Margin,
    Accuracy,
    FactualInRejected,
    NonFactualInRejected,
    FactualInChosen,
}

impl Metric {
    pub const ALL: [Self; 5] = [
        Self::Margin,
        Self::Accuracy,
        Self::FactualInRejected,
        Self::NonFactualInRejected,
        Self::FactualInChosen,
    ];

    fn absolute(self, measures: &Measures) -> Option<f64> {
        match self {
            Self::Margin => Some(measures.margin),
            Self::Accuracy => Some(measures.accuracy),
            Self::FactualInRejected => measures.factual_in_rejected,
            Self::NonFactualInRejected => measures.non_factual_in_rejected,
            Self::FactualInChosen => measures.factual_in_chosen,
        }
    }

    /// Whether the change from the start is reported instead of the figure itself.
    pub fn is_change(self) -> bool {
        !matches!(self, Self::Margin | Self::Accuracy)
    }
}

impl Run {
    /// A metric at one of the run's points, as it is reported.
    pub fn value(&self, metric: Metric, point: usize) -> Option<f64> {
        let value = metric.absolute(&self.points.get(point)?.measures)?;
        if metric.is_change() { Some(value - self.start(metric)?) } else { Some(value) }
    }

    fn start(&self, metric: Metric) -> Option<f64> {
        metric.absolute(&self.points.first()?.measures)
    }

    fn end(&self, metric: Metric) -> Option<f64> {
        self.value(metric, self.points.len().checked_sub(1)?)
    }
}

/// The methods of some runs, each once.
pub fn methods(runs: &[Run]) -> Vec<Method> {
    let methods = [Method::Dpo, Method::MaskDpo];
    methods.into_iter().filter(|&method| runs.iter().any(|run| run.method == method)).collect()
}

/// Means and spreads at the end, metric by metric.
pub fn summarize(runs: &[Run]) -> Vec<Summary> {
    let mut summary = Vec::new();
    for metric in Metric::ALL {
        for method in methods(runs) {
            let of = |figure: fn(&Run, Metric) -> Option<f64>| {
                let runs = runs.iter().filter(|run| run.method == method);
                Spread::of(&runs.filter_map(|run| figure(run, metric)).collect::<Vec<_>>())
            };
            if let (Some(start), Some(end)) = (of(Run::start), of(Run::end)) {
                summary.push(Summary { method, metric, start, end });
            }
        }
    }
    summary
}

/// `(step, spread over the seeds)` in the course of a method.
pub fn course(runs: &[Run], method: Method, metric: Metric) -> Vec<(usize, Spread)> {
    let runs: Vec<_> = runs.iter().filter(|run| run.method == method).collect();
    let Some(first) = runs.first() else { return Vec::new() };
    let spread = |(index, point): (usize, &Point)| {
        let values: Vec<f64> = runs.iter().filter_map(|run| run.value(metric, index)).collect();
        Some((point.step, Spread::of(&values)?))
    };
    first.points.iter().enumerate().filter_map(spread).collect()
}

/// Mask-DPO minus DPO at the end, seed by seed.
pub fn differences(runs: &[Run], metric: Metric) -> Vec<f64> {
    let of = |method| runs.iter().filter(move |run| run.method == method);
    let pairs = of(Method::MaskDpo).zip(of(Method::Dpo));
    pairs.filter_map(|(masked, plain)| Some(masked.end(metric)? - plain.end(metric)?)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run of two points whose figures follow from one number.
    pub(crate) fn run(method: Method, seed: u64, end: f64) -> Run {
        let point = |step, value| Point {
            step,
            measures: Measures {
                margin: 10.0 * value,
                accuracy: value,
                factual_in_rejected: Some(value - 2.0),
                non_factual_in_rejected: None,
                factual_in_chosen: Some(-1.0),
            },
        };
        Run { method, seed, points: vec![point(0, 0.0), point(10, end)] }
    }

    #[test]
    fn spreads_are_sample_spreads() {
        let spread = Spread { mean: 2.0, deviation: Some(1.0) };
        assert_eq!(Spread::of(&[1.0, 2.0, 3.0]), Some(spread));
        assert_eq!(Spread::of(&[2.0]), Some(Spread { mean: 2.0, deviation: None }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn log_probs_are_reported_as_changes_and_absent_ones_not_at_all() {
        let runs = [run(Method::Dpo, 0, 0.5), run(Method::Dpo, 1, 1.5)];
        let summary = summarize(&runs);
        let metrics: Vec<_> = summary.iter().map(|line| line.metric).collect();
        assert_eq!(
            metrics,
            [Metric::Margin, Metric::Accuracy, Metric::FactualInRejected, Metric::FactualInChosen]
        );
        assert_eq!((summary[0].start.mean, summary[0].end.mean), (0.0, 10.0));
        assert_eq!((summary[2].start.mean, summary[2].end.mean), (-2.0, 1.0));
        assert_eq!(course(&runs, Method::Dpo, Metric::FactualInRejected)[1].1.mean, 1.0);
    }

    #[test]
    fn differences_are_paired_by_seed() {
        let runs = [
            run(Method::Dpo, 0, 0.5),
            run(Method::MaskDpo, 0, 0.75),
            run(Method::Dpo, 1, 0.25),
            run(Method::MaskDpo, 1, 0.0),
        ];
        assert_eq!(differences(&runs, Metric::FactualInRejected), [0.25, -0.25]);
        assert!(differences(&runs, Metric::NonFactualInRejected).is_empty());
    }
}
