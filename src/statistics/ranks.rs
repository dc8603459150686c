//! Ranks of scores.

use super::{NUMBER, ascending};
use crate::batch::check_sequences;
use crate::error::Result;

/// Which rank equal scores have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// Each its own, by position: 1, 2, 3, 4 for 5, 2, 2, 1.
    #[default]
    Ordinal,
    /// The first of theirs: 1, 2, 2, 4.
    Min,
    /// The last of theirs: 1, 3, 3, 4.
    Max,
    /// The mean of theirs: 1, 2.5, 2.5, 4.
    Average,
    /// One more than the next better score's: 1, 2, 2, 3.
    Dense,
}

/// The rank of each score, 1 the largest.
///
/// 0 and -0 are equal. The names are those of `scipy.stats.rankdata`, which ranks from the smallest.
///
/// ```
/// use prefuse::statistics::{Ties, ranks};
///
/// assert_eq!(ranks(&[2.0, 5.0, 2.0, 1.0], Ties::Average)?, [2.5, 1.0, 2.5, 4.0]);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// A score that is NaN.
pub fn ranks(scores: &[f64], ties: Ties) -> Result<Vec<f64>> {
    check_sequences("score", scores, NUMBER)?;
    // Ascending order of the negated scores keeps equal ones by position.
    let order = ascending(&scores.iter().map(|score| -score).collect::<Vec<_>>());
    let mut ranks = vec![0.0; scores.len()];
    let (mut before, mut distinct) = (0, 0);
    for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let (first, last) = (before + 1, before + equal.len());
        distinct += 1;
        for (position, &index) in equal.iter().enumerate() {
            ranks[index] = match ties {
                Ties::Ordinal => (first + position) as f64,
                Ties::Min => first as f64,
                Ties::Max => last as f64,
                Ties::Average => 0.5 * (first + last) as f64,
                Ties::Dense => f64::from(distinct),
            };
        }
        before = last;
    }
    Ok(ranks)
}
