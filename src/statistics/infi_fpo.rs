//! InfiFPO: several source models, fused into one reference.

use super::{at_least, check_option};
use crate::batch::{Pairs, Role, check_sequences, same_length};
use crate::error::Result;
use crate::objectives::{Domain, FINITE, POSITIVE};

const LOG_PROB: Domain = Domain {
    expected: "a finite number up to 0",
    contains: |value| value <= 0.0 && value.is_finite(),
};

/// How InfiFPO's clipped sources become one reference.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fusion {
    /// The source that is farthest from the pivot, the paper's best: after clipping, the largest for a
    /// chosen response and the smallest for a rejected one, or the pivot itself.
    #[default]
    MaxMargin,
    /// The mean, which the released scripts set.
    Mean,
    /// A mean weighted by `1 / (epsilon - source)`, the source's average log-prob before clipping.
    Confidence {
        /// Keeps the weight of a certain response finite, 1e-30 to 1e30; the paper gives no value.
        epsilon: f64,
    },
}

/// InfiFPO's fused reference: `[sequences]` average log-probs.
///
/// `sources` and `pivot` are `[sequences]` average log-probs (nats) under each source model and under the
/// pivot before training, each by its own tokenizer's count of tokens. A source is first clipped against
/// the pivot, from below for a chosen response and from above for a rejected one, so that no source pulls
/// the wrong way; then they are fused, response by response. A sequence in no pair keeps the pivot's.
/// Source: InfiFPO (Gu et al., 2025, eq. 12, 13 and the overview figure), read in the paper; the
/// trainer is not published. With the pivot before training, the farthest source is the same in
/// probabilities and in log-probs.
///
/// ```
/// use prefuse::batch::{Batch, Labels, Packing, Pairs};
/// use prefuse::objectives::InfiFpo;
/// use prefuse::statistics::{Fusion, fuse_references};
///
/// let (first, second, pivot) = ([-0.9, -2.0], [-0.4, -1.1], [-0.8, -1.5]);
/// let pairs = Pairs::halves(1)?;
/// let fused = fuse_references(&[&first, &second], &pivot, &pairs, Fusion::MaxMargin)?;
/// assert_eq!(fused, [-0.4, -2.0]);
/// let batch = Batch::new(Labels::new(&[1, 0]), Packing::new(&[0, 1, 2])?)?
///     .with_pairs(pairs)?
///     .with_scores(fused)?; // for `InfiFpo`
/// # let _ = (batch, InfiFpo::new(2.5));
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// No sources, lengths that differ, an average that is not finite (for [`Fusion::Confidence`] also one
/// above 0), an epsilon outside its range, a pair beyond the sequences, or a sequence that is chosen in
/// one pair and rejected in another.
pub fn fuse_references(
    sources: &[&[f64]],
    pivot: &[f64],
    pairs: &Pairs<'_>,
    fusion: Fusion,
) -> Result<Vec<f64>> {
    at_least("sources", 1, sources.len())?;
    let domain = match fusion {
        Fusion::Confidence { epsilon } => {
            check_option("epsilon", epsilon, POSITIVE)?;
            LOG_PROB
        }
        Fusion::MaxMargin | Fusion::Mean => FINITE,
    };
    check_sequences("pivot average", pivot, domain)?;
    for source in sources {
        same_length("source averages", pivot.len(), source.len())?;
        check_sequences("source average", source, domain)?;
    }
    let fused = pairs.roles(pivot.len())?.into_iter().enumerate().map(|(sequence, role)| {
        let pivot = pivot[sequence];
        let clip: fn(f64, f64) -> f64 = match role {
            Some(Role::Chosen) => f64::max,
            Some(Role::Rejected) => f64::min,
            None => return pivot,
        };
        let averages = || sources.iter().map(|source| source[sequence]);
        let mean = |weight: &dyn Fn(f64) -> f64| {
            let total: f64 = averages().map(weight).sum();
            averages().map(|average| weight(average) * clip(average, pivot)).sum::<f64>() / total
        };
        match fusion {
            Fusion::MaxMargin => averages().fold(pivot, clip),
            Fusion::Mean => mean(&|_| 1.0),
            Fusion::Confidence { epsilon } => mean(&|average| 1.0 / (epsilon - average)),
        }
    });
    Ok(fused.collect())
}
