//! AOT: DPO over the order of a batch in place of its pairs.

use super::{ascending, check_neutral, check_separate};
use crate::batch::{Pairs, check_sequences, same_length};
use crate::error::Result;
use crate::objectives::FINITE;

/// `[sequences]` reference sums, exchanged among the pairs so that DPO on them is the paired AOT loss.
///
/// AOT sorts the pairs' gaps `policy chosen - policy rejected` and `reference chosen - reference
/// rejected`, each by itself, and compares them rank by rank (stochastic dominance). Here each pair gets
/// both reference sums of the pair whose reference gap has the rank of its own policy gap: every loss
/// over pairs that looks only at the difference of the two gaps, such as
/// [`Dpo`](crate::objectives::Dpo) with its label smoothing, is then AOT's. Equal gaps rank by
/// position. The losses are in the order of the pairs, and what is given for a pair stays with its
/// policy gap; the rewards that are logged are against the exchanged sums. Sequences in no pair keep
/// theirs.
///
/// `policy` and `reference` are `[sequences]` sums of log-probs (nats) of one batch; ranks beyond it,
/// such as other devices', do not enter. Source: AOT (Melnyk et al., 2024) as TRL 1.16's `aot`, whose
/// values it reproduces.
///
/// ```
/// use prefuse::batch::{Pairs, ReferenceLogProbs};
/// use prefuse::statistics::aot_reference;
///
/// let pairs = Pairs::halves(2)?;
/// let policy = [-5.0, -9.0, -7.0, -8.0]; // gaps 2 and -1
/// let reference = [-6.0, -8.0, -7.0, -12.0]; // gaps 1 and 4
/// let matched = aot_reference(&pairs, &policy, &reference)?;
/// assert_eq!(matched, [-8.0, -6.0, -12.0, -7.0]);
/// let reference = ReferenceLogProbs::per_sequence(&matched); // for a batch with the same pairs
/// # let _ = reference;
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ, a pair beyond the sequences, a sequence in two pairs, or a sum that is not
/// finite.
pub fn aot_reference(pairs: &Pairs<'_>, policy: &[f64], reference: &[f64]) -> Result<Vec<f64>> {
    check(pairs, policy, reference)?;
    let gaps = |sums: &[f64]| -> Vec<f64> {
        pairs.indices().iter().map(|&(chosen, rejected)| sums[chosen] - sums[rejected]).collect()
    };
    let mut matched = reference.to_vec();
    for (own, other) in ascending(&gaps(policy)).into_iter().zip(ascending(&gaps(reference))) {
        let (chosen, rejected) = pairs.indices()[own];
        let (from_chosen, from_rejected) = pairs.indices()[other];
        matched[chosen] = reference[from_chosen];
        matched[rejected] = reference[from_rejected];
    }
    Ok(matched)
}

/// Pairs of the chosen and the rejected sequences, matched anew by the rank of their log-ratios, so that
/// DPO over them is the unpaired AOT loss.
///
/// The lowest log-ratio of the chosen sequences stands against the lowest of the rejected ones, and so
/// on; the pairs come in that order, and equal log-ratios rank by position. `policy` and `reference` are
/// `[sequences]` sums of log-probs (nats) of one batch. Source: AOT (Melnyk et al., 2024) as TRL 1.16's
/// `aot_unpaired` (`aot_pair` in TRL up to 0.27), whose values it reproduces.
///
/// ```
/// use prefuse::batch::Pairs;
/// use prefuse::statistics::aot_unpaired;
///
/// let pairs = Pairs::halves(2)?;
/// let (policy, reference) = ([-5.0, -9.0, -7.0, -8.0], [-6.0, -12.0, -7.0, -9.0]);
/// let matched = aot_unpaired(&pairs, &policy, &reference)?; // log-ratios 1, 3 against 0, 1
/// assert_eq!(matched.indices(), [(0, 2), (1, 3)]);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// As [`aot_reference`]; also betas, margins, soft labels, weights or verdicts of pairs, which would
/// belong to none of the new ones.
pub fn aot_unpaired(
    pairs: &Pairs<'_>,
    policy: &[f64],
    reference: &[f64],
) -> Result<Pairs<'static>> {
    check(pairs, policy, reference)?;
    check_neutral(pairs, "aot_unpaired")?;
    let ranked = |sequences: Vec<usize>| -> Vec<usize> {
        let log_ratio = |&sequence: &usize| policy[sequence] - reference[sequence];
        let log_ratios: Vec<f64> = sequences.iter().map(log_ratio).collect();
        ascending(&log_ratios).into_iter().map(|position| sequences[position]).collect()
    };
    let (chosen, rejected) = pairs.indices().iter().copied().unzip();
    Pairs::new(ranked(chosen).into_iter().zip(ranked(rejected)).collect::<Vec<_>>())
}

fn check(pairs: &Pairs<'_>, policy: &[f64], reference: &[f64]) -> Result<()> {
    same_length("reference sums", policy.len(), reference.len())?;
    check_separate(pairs, policy.len())?;
    check_sequences("policy sum", policy, FINITE)?;
    check_sequences("reference sum", reference, FINITE)
}
