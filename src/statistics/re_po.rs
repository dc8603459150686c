//! LCPO, later RE-PO: how far each annotator is to be trusted.

use super::{NUMBER, at_least, check_option};
use crate::batch::{check_pairs, same_length, with_capacity};
use crate::error::{Error, Result};
use crate::objectives::scalar::{posterior_log_odds, sigmoid};
use crate::objectives::{Domain, PROBABILITY};

/// The probability that each pair's label is right, by what the policy says and how reliable its
/// annotator is: `sigmoid(log_odds + logit(reliability))`, `[pairs]` each.
///
/// The log-odds `h` of a pair are its loss with the two responses swapped minus its loss;
/// [`Lcpo::log_odds`](crate::objectives::Lcpo::log_odds),
/// [`LcpoSimPo::log_odds`](crate::objectives::LcpoSimPo::log_odds) and
/// [`LcpoCpo::log_odds`](crate::objectives::LcpoCpo::log_odds) are those of the four published bases, by the
/// margins of the logged rewards. A reliability of 0 or 1 is certain and stays what it is. Source: RE-PO (Cao et al., 2026, eq. 4), read in the
/// paper; the form with the logit is the same number without a quotient of small ones.
/// [`Lcpo`](crate::objectives::Lcpo) computes it inside the loss; here it is for
/// [`Reliability::update`].
///
/// # Errors
/// Lengths that differ, log-odds that are NaN, or a reliability outside 0 to 1.
pub fn posteriors(log_odds: &[f64], reliability: &[f64]) -> Result<Vec<f64>> {
    same_length("reliability", log_odds.len(), reliability.len())?;
    check_pairs("log-odds", log_odds, NUMBER)?;
    check_pairs("reliability", reliability, PROBABILITY)?;
    let posterior = |(&h, &eta): (&f64, &f64)| sigmoid(posterior_log_odds(h, eta));
    Ok(log_odds.iter().zip(reliability).map(posterior).collect())
}

const INITIAL: Domain =
    Domain { expected: "a number from 0.5 to 1", contains: |value| (0.5..=1.0).contains(&value) };

/// The reliability `eta` of each annotator: how likely a label of theirs is right.
///
/// It starts at 0.9 and moves by an exponential mean of momentum 0.1 towards the mean posterior of the
/// annotator's pairs in each batch; annotators who are not in the batch keep theirs. Data of one source
/// have one annotator. Source: RE-PO (Cao et al., 2026, eq. 7 and algorithm 1), read in the paper. The
/// order of a step: posteriors under the eta of before, the optimiser's step, then the update.
///
/// ```
/// use prefuse::batch::Pairs;
/// use prefuse::objectives::Lcpo;
/// use prefuse::statistics::{Reliability, posteriors};
///
/// let annotators = [0, 1, 0]; // who labelled each pair
/// let mut reliability = Reliability::new(2)?;
/// let (eta, lcpo) = (reliability.of(&annotators)?, Lcpo::new(0.1));
/// let pairs = Pairs::halves(3)?.with_soft_label(eta.clone())?; // for `lcpo`, or below for `Dpo`
/// let margins = [1.2, -0.3, 0.4]; // of the rewards in `forward.terms()[0].rewards`
/// let labels = posteriors(&margins.map(|margin| lcpo.log_odds(margin)), &eta)?;
/// reliability.update(&annotators, &labels)?;
/// assert!(reliability.values()[0] > reliability.values()[1]);
/// let soft = Pairs::halves(3)?.with_soft_label(labels)?;
/// # let _ = (pairs, soft);
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Reliability {
    values: Vec<f64>,
    momentum: f64,
}

impl Reliability {
    /// Annotators 0 to `annotators - 1`, each at 0.9.
    ///
    /// # Errors
    /// No annotators, or more than fit in memory.
    pub fn new(annotators: usize) -> Result<Self> {
        at_least("annotators", 1, annotators)?;
        let mut values = with_capacity("annotators", annotators)?;
        values.resize(annotators, 0.9);
        Ok(Self { values, momentum: 0.1 })
    }

    /// From the [`values`](Self::values) of an earlier run.
    ///
    /// # Errors
    /// No annotators, or a value outside 0 to 1.
    pub fn from_values(values: impl Into<Vec<f64>>) -> Result<Self> {
        let values = values.into();
        at_least("annotators", 1, values.len())?;
        values.iter().try_for_each(|&eta| check_option("reliability", eta, PROBABILITY))?;
        Ok(Self { values, momentum: 0.1 })
    }

    /// Another reliability for every annotator to start from; the paper takes it from 0.5 to 1.
    ///
    /// # Errors
    /// A number outside 0.5 to 1.
    pub fn with_initial(mut self, initial: f64) -> Result<Self> {
        check_option("initial reliability", initial, INITIAL)?;
        self.values.fill(initial);
        Ok(self)
    }

    /// Another momentum: the share of the batch's mean in the new value.
    ///
    /// # Errors
    /// A number outside 0 to 1.
    pub fn with_momentum(mut self, momentum: f64) -> Result<Self> {
        check_option("momentum", momentum, PROBABILITY)?;
        self.momentum = momentum;
        Ok(self)
    }

    /// `[annotators]` reliabilities.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// `[pairs]` reliabilities of the annotators of the pairs.
    ///
    /// # Errors
    /// An annotator beyond the list.
    pub fn of(&self, annotators: &[usize]) -> Result<Vec<f64>> {
        self.check(annotators)?;
        Ok(annotators.iter().map(|&annotator| self.values[annotator]).collect())
    }

    /// Moves the annotators of a batch towards the mean of their posteriors, `[pairs]` each. Over
    /// several ranks give it the pairs of all, so that every rank keeps the same values.
    ///
    /// # Errors
    /// Lengths that differ, an annotator beyond the list, or a posterior outside 0 to 1; the values
    /// stay as they were.
    pub fn update(&mut self, annotators: &[usize], posteriors: &[f64]) -> Result<()> {
        same_length("posteriors", annotators.len(), posteriors.len())?;
        self.check(annotators)?;
        check_pairs("posterior", posteriors, PROBABILITY)?;
        let mut seen = vec![(0.0, 0_usize); self.values.len()];
        for (&annotator, posterior) in annotators.iter().zip(posteriors) {
            let (sum, count) = &mut seen[annotator];
            *sum += posterior;
            *count += 1;
        }
        for (eta, (sum, count)) in self.values.iter_mut().zip(seen) {
            if count > 0 {
                *eta = (1.0 - self.momentum) * *eta + self.momentum * (sum / count as f64);
            }
        }
        Ok(())
    }

    fn check(&self, annotators: &[usize]) -> Result<()> {
        let known = self.values.len();
        match annotators.iter().position(|&annotator| annotator >= known) {
            None => Ok(()),
            Some(position) => {
                let (what, unit, got) = ("annotator", "pair", annotators[position]);
                Err(Error::Index { what, unit, position, count: known, got })
            }
        }
    }
}
