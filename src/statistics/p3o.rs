//! P3O: what a pair of samples says of both, for its three losses.

use super::{Moments, at_least, check_neutral, check_option, check_separate};
use crate::batch::{Pairs, check_pairs, check_sequences, same_length};
use crate::error::Result;
use crate::objectives::{Domain, FINITE, NOT_NEGATIVE, POSITIVE};

const TRUNCATION: Domain =
    Domain { expected: "a number from 1 to 1e30", contains: |value| (1.0..=1e30).contains(&value) };

/// Pairwise Proximal Policy Optimization (P3O; Wu et al., 2023): `D = (r_1 - r_2) - beta * (d_1 - d_2)` of
/// two samples for the same prompt, `d` the log-ratio of the policy as it is, times ratios to the policy
/// that sampled them, which are held to `1 / truncation` to `truncation`.
///
/// All methods take `[sequences]` sums of log-probs (nats) under the policy, under the policy that sampled
/// and under the reference, and `[sequences]` rewards, and are to be called at each step: all of it is
/// constant for the gradient. Both samples of a pair are equals, whichever is called chosen. Source: the
/// authors' code.
///
/// ```
/// use prefuse::batch::{Batch, Labels, Packing, Pairs, ReferenceLogProbs};
/// use prefuse::objectives::P3o;
/// use prefuse::statistics::P3oAdvantages;
/// use prefuse::{Loss, Term};
///
/// let (policy, old, reference) = ([-2.0, -1.0], [-2.5, -1.0], [-2.0, -2.0]);
/// let settings = P3oAdvantages { beta: 0.5, ..P3oAdvantages::default() };
/// let pairs = settings.joint(&Pairs::halves(1)?, &policy, &old, &reference, &[0.0, 1.0])?;
/// // D is -1 - 0.5 * (0 - 1): the second sample is the better one.
/// assert_eq!(pairs.indices(), [(1, 0)]);
/// let batch = Batch::new(Labels::new(&[1, 0]), Packing::new(&[0, 1, 2])?)?
///     .with_reference(ReferenceLogProbs::per_sequence(&reference))?
///     .with_pairs(pairs)?;
/// let loss = Loss::new(batch, [Term::pairs(P3o::new(0.2))])?;
/// # let _ = loss;
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct P3oAdvantages {
    /// How strongly the policy is held to the reference, 0 to 1e30.
    pub beta: f64,
    /// The bound of the ratios that are constants, 1 to 1e30: the code's `cliprange_ratio`.
    pub truncation: f64,
    /// Divides every `D` by the unbiased standard deviation of all of them: the code's `scale_q`.
    pub scaled: bool,
}

impl Default for P3oAdvantages {
    /// The released code's: 0.05 and 10, not scaled.
    fn default() -> Self {
        Self { beta: 0.05, truncation: 10.0, scaled: false }
    }
}

impl P3oAdvantages {
    /// For the separate clip (V1), [`Rloo`](crate::objectives::Rloo) on both samples with
    /// [`SequenceMean`](crate::objectives::Reduction::SequenceMean): `[sequences]` advantages, `D * t_2` of
    /// the first sample and `-D * t_1` of the second, `t` the ratio that is held; 0 of a sequence in no
    /// pair.
    ///
    /// # Errors
    /// A setting outside its range, lengths that differ, a sum or reward that is not finite, a pair beyond
    /// the sequences, a sequence in two pairs, something given for the pairs, or, scaled, fewer than 2
    /// pairs or a deviation of 0.
    pub fn separate(
        self,
        pairs: &Pairs<'_>,
        policy: &[f64],
        old: &[f64],
        reference: &[f64],
        rewards: &[f64],
    ) -> Result<Vec<f64>> {
        let others = |first, second| [self.held(second), self.held(first)];
        self.advantages(pairs, [policy, old, reference, rewards], others)
    }

    /// For the joint clip (V2), [`P3o`](crate::objectives::P3o): the same pairs, the sample with the
    /// larger side of `D` as chosen, with the weight `|D| * t`, `t` the product of both ratios that is
    /// held, and as margin the difference of the log-ratios of the policy that sampled.
    ///
    /// # Errors
    /// As [`separate`](Self::separate), but for a sequence in two pairs.
    pub fn joint(
        self,
        pairs: &Pairs<'_>,
        policy: &[f64],
        old: &[f64],
        reference: &[f64],
        rewards: &[f64],
    ) -> Result<Pairs<'static>> {
        let differences = self.differences(pairs, [policy, old, reference, rewards])?;
        let all = pairs.indices().iter().zip(&differences);
        let ordered: Vec<(usize, usize)> = all
            .map(|(&(first, second), &d)| if d < 0.0 { (second, first) } else { (first, second) })
            .collect();
        let margins = ordered.iter().map(|&(chosen, rejected)| {
            (old[chosen] - reference[chosen]) - (old[rejected] - reference[rejected])
        });
        let weights = ordered.iter().zip(&differences).map(|(&(chosen, rejected), d)| {
            d.abs() * self.held(policy[chosen] - old[chosen] + (policy[rejected] - old[rejected]))
        });
        let (margins, weights) = (margins.collect::<Vec<_>>(), weights.collect::<Vec<_>>());
        Pairs::new(ordered)?.with_margin(margins)?.with_weight(weights)
    }

    /// For the clip of log-probs by token (V3), [`LogProbClip`](crate::objectives::LogProbClip) on both
    /// samples: `[sequences]` advantages, `D * t` of the first and `-D * t` of the second, `t` the product
    /// of both ratios that is held; 0 of a sequence in no pair.
    ///
    /// # Errors
    /// As [`separate`](Self::separate).
    pub fn by_token(
        self,
        pairs: &Pairs<'_>,
        policy: &[f64],
        old: &[f64],
        reference: &[f64],
        rewards: &[f64],
    ) -> Result<Vec<f64>> {
        let both = |first: f64, second: f64| [self.held(first + second); 2];
        self.advantages(pairs, [policy, old, reference, rewards], both)
    }

    /// By sequence: `D` times a factor for the first sample of each pair, `-D` times one for the second;
    /// `factors` makes them from the samples' log-ratios to the policy that sampled.
    fn advantages(
        self,
        pairs: &Pairs<'_>,
        known: [&[f64]; 4],
        factors: impl Fn(f64, f64) -> [f64; 2],
    ) -> Result<Vec<f64>> {
        let [policy, old, ..] = known;
        check_separate(pairs, policy.len())?;
        let differences = self.differences(pairs, known)?;
        let mut advantages = vec![0.0; policy.len()];
        for (&(first, second), difference) in pairs.indices().iter().zip(differences) {
            let [of_first, of_second] =
                factors(policy[first] - old[first], policy[second] - old[second]);
            advantages[first] = difference * of_first;
            advantages[second] = -difference * of_second;
        }
        Ok(advantages)
    }

    /// `D` of each pair, from sums under the policy, the one that sampled and the reference, and rewards.
    fn differences(self, pairs: &Pairs<'_>, known: [&[f64]; 4]) -> Result<Vec<f64>> {
        let [policy, old, reference, rewards] = known;
        check_option("beta", self.beta, NOT_NEGATIVE)?;
        check_option("truncation", self.truncation, TRUNCATION)?;
        for (lists, what, values) in [
            ("policy sums", "policy sum", policy),
            ("old sums", "old sum", old),
            ("reference sums", "reference sum", reference),
            ("rewards", "reward", rewards),
        ] {
            same_length(lists, policy.len(), values.len())?;
            check_sequences(what, values, FINITE)?;
        }
        pairs.check(policy.len())?;
        check_neutral(pairs, "P3oAdvantages")?;
        let log_ratio = |sequence: usize| policy[sequence] - reference[sequence];
        let difference = |&(first, second): &(usize, usize)| {
            rewards[first] - rewards[second] - self.beta * (log_ratio(first) - log_ratio(second))
        };
        let mut differences: Vec<f64> = pairs.indices().iter().map(difference).collect();
        if self.scaled {
            at_least("pairs", 2, differences.len())?;
            let std = differences.iter().copied().collect::<Moments>().unbiased_std();
            check_option("standard deviation of the differences", std, POSITIVE)?;
            differences.iter_mut().for_each(|difference| *difference /= std);
        }
        check_pairs("difference", &differences, FINITE)?;
        Ok(differences)
    }

    /// A ratio that is a constant, from its logarithm.
    fn held(self, log_ratio: f64) -> f64 {
        let bound = self.truncation.ln();
        log_ratio.clamp(-bound, bound).exp()
    }
}
