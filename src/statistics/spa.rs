//! SPA, first called Selfie: labels that are smoothed where the model is least confident.

use std::collections::VecDeque;

use super::{NUMBER, at_least, check_option, compare};
use crate::batch::check_pairs;
use crate::error::{Error, Result};
use crate::objectives::{FINITE, PROBABILITY};

/// A low quantile of the latest margins: pairs at or below it count as doubtful.
///
/// The margin of a pair is `beta * ((s_w - s_l) - (r_w - r_l))`, `s` the sums of log-probs under mixed
/// logits (in the shipped configuration the policy's own) and `r` those under the reference; the window
/// holds one mean for each micro-batch. The threshold is halfway between the order statistics number
/// `floor(window * quantile)` and the next, counted from 0, smallest first; 0 until the window is full.
/// Source: SPA (Kim et al., 2025), the released code; the paper's decoupled detection extrapolates the
/// logits, which changes what the margins are and nothing here.
///
/// ```
/// use prefuse::batch::Pairs;
/// use prefuse::statistics::ConfidenceThreshold;
///
/// let mut threshold = ConfidenceThreshold::new(4, 0.25)?;
/// for margin in [0.4, 0.1, 0.3, 0.2] {
///     threshold.push(margin)?;
/// }
/// assert_eq!(threshold.value(), 0.25); // between 0.2 and 0.3
/// let labels = threshold.soft_labels(&[0.5, 0.1], 0.1)?;
/// assert_eq!(labels, [1.0, 0.9]);
/// let pairs = Pairs::halves(2)?.with_soft_label(labels)?;
/// # let _ = pairs;
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ConfidenceThreshold {
    window: usize,
    quantile: f64,
    margins: VecDeque<f64>,
}

impl Default for ConfidenceThreshold {
    /// The released code's: the lowest tenth of the last 50.
    fn default() -> Self {
        Self { window: 50, quantile: 0.1, margins: VecDeque::new() }
    }
}

impl ConfidenceThreshold {
    /// Of the last `window` margins.
    ///
    /// # Errors
    /// A window of fewer than 2, or a quantile below 0 or so high that the second order statistic is
    /// beyond the window.
    pub fn new(window: usize, quantile: f64) -> Result<Self> {
        at_least("window", 2, window)?;
        let threshold = Self { window, quantile, margins: VecDeque::new() };
        if !(0.0..1.0).contains(&quantile) || threshold.lower() > window - 2 {
            let expected = "a number from 0 whose order statistics are in the window";
            return Err(Error::Scalar { what: "quantile", expected, got: quantile });
        }
        Ok(threshold)
    }

    /// Takes in the margin of a pair, or the mean of a micro-batch; the oldest leaves a full window.
    ///
    /// # Errors
    /// A margin that is not finite.
    pub fn push(&mut self, margin: f64) -> Result<()> {
        check_option("margin", margin, FINITE)?;
        if self.margins.len() == self.window {
            self.margins.pop_front();
        }
        self.margins.push_back(margin);
        Ok(())
    }

    /// The threshold; 0 until the window is full.
    pub fn value(&self) -> f64 {
        if self.margins.len() < self.window {
            return 0.0;
        }
        let mut sorted: Vec<f64> = self.margins.iter().copied().collect();
        sorted.sort_by(|&a, &b| compare(a, b));
        (sorted[self.lower()] + sorted[self.lower() + 1]) / 2.0
    }

    /// `[pairs]` soft labels: 1 for margins strictly above the threshold, `1 - strength` for the others.
    /// The released code has a strength of 0 in the first fifth of its steps and of 0.1 after.
    ///
    /// # Errors
    /// A margin that is NaN, or a strength outside 0 to 1.
    pub fn soft_labels(&self, margins: &[f64], strength: f64) -> Result<Vec<f64>> {
        check_option("strength", strength, PROBABILITY)?;
        check_pairs("margin", margins, NUMBER)?;
        let threshold = self.value();
        let label = |&margin: &f64| if margin > threshold { 1.0 } else { 1.0 - strength };
        Ok(margins.iter().map(label).collect())
    }

    fn lower(&self) -> usize {
        (self.window as f64 * self.quantile) as usize
    }
}
