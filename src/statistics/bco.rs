//! BCO: the running mean of the rewards.

use super::check_option;
use crate::error::Result;
use crate::objectives::{Domain, FINITE};

/// Beyond it a count is not exact as f64.
const COUNT: Domain =
    Domain { expected: "a number up to 2^53", contains: |count| count <= 9_007_199_254_740_992.0 };

/// A sum of squares of numbers of any size.
const SQUARES: Domain = Domain {
    expected: "a finite number of at least 0",
    contains: |sum| sum >= 0.0 && sum.is_finite(),
};

/// Count, mean and sum of squared deviations of a stream of numbers, one number at a time (Welford,
/// 1962), or of several streams together (Chan, Golub and LeVeque, 1979).
///
/// BCO's shift is the mean of the rewards `beta * log-ratio` of all examples so far, over all ranks,
/// and TRL takes the current batch in before it reads the mean (checked against TRL 1.9's values, which
/// it keeps in f32). In evaluation the mean stays as training left it. A number that is NaN or infinite
/// makes the mean so for good; objectives refuse such a shift.
///
/// ```
/// use prefuse::objectives::{BcoPair, PointwiseLogistic};
/// use prefuse::statistics::Moments;
///
/// let mut rewards = Moments::new();
/// rewards.extend([0.5, 1.5]); // this batch, this rank
/// let other_rank = Moments::from_parts(2, 4.0, 0.5)?;
/// rewards.merge(&other_rank);
/// assert_eq!((rewards.count(), rewards.mean()), (4, 2.5));
/// let unpaired = PointwiseLogistic::new(0.1).with_shift(rewards.mean());
/// let paired = BcoPair::new(0.1).with_shift(rewards.mean());
/// # let _ = (paired, unpaired);
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    deviations: f64,
}

impl Moments {
    /// Of no numbers.
    pub fn new() -> Self {
        Self::default()
    }

    /// From [`count`](Self::count), [`mean`](Self::mean) and [`deviations`](Self::deviations), such as
    /// another rank sends them.
    ///
    /// # Errors
    /// A count beyond 2^53, a mean that is not finite, or a sum of squares that is not or is below 0.
    pub fn from_parts(count: u64, mean: f64, deviations: f64) -> Result<Self> {
        check_option("count", count as f64, COUNT)?;
        check_option("mean", mean, FINITE)?;
        check_option("sum of squared deviations", deviations, SQUARES)?;
        Ok(if count == 0 { Self::new() } else { Self { count, mean, deviations } })
    }

    /// Takes a number in.
    pub fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.deviations += delta * (value - self.mean);
    }

    /// Takes in what other moments have seen, such as those of another rank.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            // No difference from a mean of nothing, which may be beyond f64.
            *self = *other;
            return;
        }
        let (own, others) = (self.count as f64, other.count as f64);
        let (delta, share) = (other.mean - self.mean, others / (own + others));
        self.count = self.count.saturating_add(other.count);
        self.mean += delta * share;
        self.deviations += other.deviations + delta * delta * own * share;
    }

    /// How many numbers were taken in.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 of none, with which TRL starts too.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The sum of their squared deviations from the mean.
    pub fn deviations(&self) -> f64 {
        self.deviations
    }

    /// The population variance: deviations over the count; NaN of none.
    pub fn variance(&self) -> f64 {
        self.deviations / self.count as f64
    }

    /// The unbiased variance: deviations over the count less 1; NaN of fewer than two, as in torch.
    pub fn unbiased_variance(&self) -> f64 {
        match self.count {
            0 | 1 => f64::NAN,
            count => self.deviations / (count - 1) as f64,
        }
    }

    /// The square root of [`variance`](Self::variance).
    pub fn std(&self) -> f64 {
        self.variance().sqrt()
    }

    /// The square root of [`unbiased_variance`](Self::unbiased_variance).
    pub fn unbiased_std(&self) -> f64 {
        self.unbiased_variance().sqrt()
    }
}

impl Extend<f64> for Moments {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.add(value));
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut moments = Self::new();
        moments.extend(values);
        moments
    }
}
