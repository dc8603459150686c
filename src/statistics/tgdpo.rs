//! TGDPO, which is also SAIL's released loss: DPO with a weight for each token.

use super::check_option;
use super::tokens::Tokens;
use crate::batch::{Labels, Packing, Pairs, Role, Weights};
use crate::element::Element;
use crate::error::Result;
use crate::objectives::{FINITE, POSITIVE};

/// TGDPO's token weights, from an already aligned model: `1 + alpha * beta * rho` in a chosen response
/// and `1 - alpha * beta * rho` in a rejected one, `rho` the aligned model's log-prob of the label minus
/// the reference's.
///
/// They are not clamped: a token whose `rho` is large counts negatively. [`Dpo`](crate::objectives::Dpo)
/// of the same beta under these weights, with the reference's log-probs given for each token, is the
/// loss. Source: TGDPO (Zhu et al., 2025), the released code; SAIL's released code has the same
/// expression, while its paper's weights, from attention, are not known.
///
/// ```
/// use prefuse::batch::{Batch, Labels, Packing, Pairs, ReferenceLogProbs};
/// use prefuse::statistics::TgDpo;
///
/// let (labels, packing) = (Labels::new(&[1, 0, 2]), Packing::new(&[0, 2, 3])?);
/// let (aligned, reference) = ([-0.5_f32, -3.0, -1.0], [-1.0_f32, -1.0, -3.0]);
/// let (pairs, settings) = (Pairs::halves(1)?, TgDpo { alpha: 0.5, beta: 1.0 });
/// let weights = settings.weights(&aligned, &reference, &labels, None, &packing, &pairs)?;
/// assert_eq!(weights.host()?, [1.25, 0.0, 0.0]);
/// let batch = Batch::new(labels, packing)?
///     .with_weights(weights)?
///     .with_reference(ReferenceLogProbs::per_token(&reference))?
///     .with_pairs(pairs)?;
/// # let _ = batch;
/// # Ok::<(), prefuse::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TgDpo {
    /// How far the aligned model's reward enters; any finite number.
    pub alpha: f64,
    /// The loss's beta, 1e-30 to 1e30: `beta * rho` is the aligned model's reward.
    pub beta: f64,
}

impl Default for TgDpo {
    /// The released code's alpha 0.5 and beta 0.1.
    fn default() -> Self {
        Self { alpha: 0.5, beta: 0.1 }
    }
}

impl TgDpo {
    /// `[tokens]` weights, from `[tokens]` log-probs (nats) of the labels under the aligned model and
    /// under the reference. They multiply the weights that are given; tokens that do not count get 0, and
    /// sequences in no pair keep theirs. A weight of exactly 0 masks its token.
    ///
    /// # Errors
    /// A setting outside its range, lengths that differ, labels or weights in device memory, a pair
    /// beyond the pack, a sequence that is chosen in one pair and rejected in another, or a weight that
    /// is no finite f32.
    pub fn weights<T: Element>(
        self,
        aligned: &[T],
        reference: &[T],
        labels: &Labels<'_>,
        weights: Option<&Weights<'_>>,
        packing: &Packing,
        pairs: &Pairs<'_>,
    ) -> Result<Weights<'static>> {
        check_option("alpha", self.alpha, FINITE)?;
        check_option("beta", self.beta, POSITIVE)?;
        let tokens = Tokens::packed(labels, weights, packing)?;
        tokens.check("aligned model's log-probs", aligned)?;
        tokens.check("reference log-probs", reference)?;
        let mut scales = vec![0.0; tokens.len()];
        for (range, role) in packing.ranges().zip(pairs.roles(packing.sequences())?) {
            scales[range].fill(match role {
                Some(Role::Chosen) => self.alpha * self.beta,
                Some(Role::Rejected) => -self.alpha * self.beta,
                None => 0.0,
            });
        }
        tokens.scaled(|token| match scales[token] {
            0.0 => 1.0,
            scale => 1.0 + scale * (aligned[token].to_f64() - reference[token].to_f64()),
        })
    }
}
