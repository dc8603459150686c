//! Training on the tokens where the policy is undecided.

use super::check_option;
use super::tokens::Tokens;
use crate::batch::{Advantages, Labels, Packing, Weights};
use crate::element::Element;
use crate::error::Result;
use crate::objectives::PROBABILITY;

/// Advantages that are 0 but at a share of the tokens, those of the highest entropies: `[tokens]`, for
/// objectives on tokens, whose loss and gradient at the others are then 0.
///
/// A token is among them if its entropy is at least the quantile `1 - share` of all counted tokens of
/// the batch: `floor(share * (n - 1)) + 1` of `n`, and those of an entropy equal to the last of them.
/// The others count all the same in what divides the term's losses, and in terms without advantages, such
/// as a KL penalty. `entropies` are `[tokens]`, nats. Source: Wang et al., 2025 ("Beyond the 80/20
/// Rule"), who take a share of 0.2, as TRL 1.16 has it (`top_entropy_quantile`), whose values it
/// reproduces; TRL takes the quantile over all ranks.
///
/// ```
/// use prefuse::batch::{Advantages, Batch, Labels, Logits, Packing};
/// use prefuse::objectives::PpoClip;
/// use prefuse::statistics::mask_low_entropy;
/// use prefuse::{Cpu, Loss, RowOptions, Sequences, Term, token_log_probs};
///
/// let (labels, packing) = (Labels::new(&[1, 0, 2, 2]), Packing::new(&[0, 2, 4])?);
/// let data = [0.1_f32, 0.7, 0.2, 9.0, 0.3, 0.0, 0.5, 9.1, 0.8, 0.2, 0.4, 0.6];
/// let (cpu, logits) = (Cpu::new(), Logits::new(&data, 4, 3)?);
/// let options = RowOptions::default().with_entropy();
/// let tokens = token_log_probs(&cpu, logits, &labels, None, options)?;
/// let entropies = tokens.entropy().unwrap().read::<f32>()?;
/// let advantages = Advantages::per_sequence(&[1.0, -0.5])?;
/// let advantages = mask_low_entropy(&advantages, &entropies, 0.5, &labels, None, &packing)?;
/// let batch = Batch::new(labels, packing)?.with_advantages(advantages)?;
/// let loss = Loss::new(batch, [Term::tokens(PpoClip::new(0.2, 0.2), Sequences::All)])?;
/// let forward = loss.evaluate(&cpu, tokens)?; // the logits are read once
/// // Tokens 0 and 3 have a loss, of ratio 1: minus the advantage.
/// assert_eq!(forward.terms()[0].losses, [-1.0, 0.5]);
/// # Ok::<(), prefuse::Error>(())
/// ```
///
/// # Errors
/// Lengths that differ, a share outside 0 to 1, an entropy of a counted token that is not finite, or
/// advantages, labels or weights in device memory.
pub fn mask_low_entropy<T: Element>(
    advantages: &Advantages<'_>,
    entropies: &[T],
    share: f64,
    labels: &Labels<'_>,
    weights: Option<&Weights<'_>>,
    packing: &Packing,
) -> Result<Advantages<'static>> {
    check_option("share", share, PROBABILITY)?;
    let tokens = Tokens::packed(labels, weights, packing)?;
    tokens.check_finite(["entropy", "entropies"], entropies)?;
    let mut advantages = advantages.by_token(packing)?;
    let entropy = |token: usize| entropies[token].to_f64();
    let mut counted: Vec<f64> = tokens.counted(0..tokens.len()).map(entropy).collect();
    if counted.is_empty() {
        return Ok(Advantages::per_token(&advantages));
    }
    // An interpolated quantile lies between this entropy and the next lower one.
    let last = (share * (counted.len() - 1) as f64) as usize;
    let (_, &mut threshold, _) = counted.select_nth_unstable_by(last, |a, b| b.total_cmp(a));
    for token in tokens.counted(0..tokens.len()).filter(|&token| entropy(token) < threshold) {
        advantages[token] = 0.0;
    }
    Ok(Advantages::per_token(&advantages))
}
