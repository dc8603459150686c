//! NextQuill: tokens that the user's history makes likelier count more.

use super::check_option;
use super::tokens::Tokens;
use crate::batch::{Labels, Weights};
use crate::element::Element;
use crate::error::Result;
use crate::objectives::FINITE;

/// NextQuill's token weights: `high` where the user's history raises the label's probability by more
/// than `threshold`, `low` elsewhere.
///
/// Source: NextQuill, the paper's lambda, epsilon and delta by a description of it, the values by its
/// released code. The paper takes the probabilities from a frozen model trained on the data, the code
/// from the model in training: whose log-probs they are is the caller's choice.
///
/// ```
/// use prefuse::batch::{Batch, Labels, Packing};
/// use prefuse::objectives::{Nll, Reduction};
/// use prefuse::statistics::NextQuill;
/// use prefuse::{Loss, Sequences, Term};
///
/// let labels = Labels::new(&[1, 0, -100]);
/// let (with_history, without) = ([-0.5_f32, -3.0, 0.0], [-1.0_f32, -2.9, 0.0]);
/// let (weights, sum) =
///     NextQuill::default().weights(&with_history, &without, &labels, None)?;
/// assert_eq!(weights.host()?, [0.9, 0.1, 0.0]);
/// let batch = Batch::new(labels, Packing::new(&[0, 3])?)?.with_weights(weights)?;
/// let nll = Term::sequences(Nll::new(), Sequences::All);
/// let loss = Loss::new(batch, [nll.with_reduction(Reduction::Divisor(sum))])?;
/// # let _ = loss;
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NextQuill {
    /// The weight above the threshold, the paper's lambda.
    pub high: f64,
    /// The weight at or below the threshold, the paper's epsilon.
    pub low: f64,
    /// The difference of probabilities, the paper's delta.
    pub threshold: f64,
}

impl Default for NextQuill {
    /// The released code's: 0.9, 0.1 and 0.05.
    fn default() -> Self {
        Self { high: 0.9, low: 0.1, threshold: 0.05 }
    }
}

impl NextQuill {
    /// `[tokens]` weights, from `[tokens]` log-probs (nats) of the labels with and without the history
    /// in the prompt, and the sum of the weights. The released code divides by that sum
    /// ([`Reduction::Divisor`](crate::objectives::Reduction::Divisor), which refuses 0); the paper takes
    /// the mean over the sequences.
    ///
    /// They multiply the weights that are given; tokens that do not count get 0.
    ///
    /// # Errors
    /// A setting that is not finite, lengths that differ, labels or weights in device memory, a log-prob
    /// that is NaN at a counted token, or a weight that is no finite f32.
    pub fn weights<T: Element>(
        self,
        with_history: &[T],
        without_history: &[T],
        labels: &Labels<'_>,
        weights: Option<&Weights<'_>>,
    ) -> Result<(Weights<'static>, f64)> {
        check_option("high", self.high, FINITE)?;
        check_option("low", self.low, FINITE)?;
        check_option("threshold", self.threshold, FINITE)?;
        let tokens = Tokens::new(labels, weights)?;
        tokens.check("log-probs with history", with_history)?;
        tokens.check("log-probs without history", without_history)?;
        let weights = tokens.scaled(|token| {
            let [with, without] = [with_history, without_history].map(|list| list[token].to_f64());
            match with.exp() - without.exp() {
                effect if effect > self.threshold => self.high,
                effect if effect.is_nan() => f64::NAN,
                _ => self.low,
            }
        })?;
        let sum = weights.host()?.iter().copied().map(f64::from).sum();
        Ok((weights, sum))
    }
}
