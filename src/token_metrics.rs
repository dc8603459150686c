//! What trainers of policy gradients log, under the definitions of TRL and verl.

use crate::batch::{Advantages, Batch, ReferenceLogProbs, same_length};
use crate::error::{Error, Result};
use crate::memory::Slice;
use crate::objectives::{Clipped, Evaluation, Token};
use crate::reference::Reference;
use crate::resolved::Resolved;
use crate::stages::{CHUNK, TokenAdvantages, TokenInputs, TokenUnits, Tokens};

/// Means over the counted tokens of a term, the first that uses advantages or else the first over tokens.
/// Weights of tokens and sequences do not enter; a mean over no tokens is 0.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenMetrics {
    /// Counted tokens, by which means of several batches or ranks are added up.
    pub tokens: usize,
    /// `entropy`, in nats, where the visit of the logits was asked for entropies.
    pub entropy: Option<f64>,
    /// verl's `ppo_kl`: the old log-prob less the policy's, an estimate of the divergence of the old
    /// policy from the current one; 0 where there are no old ones. verl holds each difference to 20.
    pub kl_old: f64,
    /// TRL's `kl`: the loss, before weight and reduction, of the first term over tokens that uses the
    /// reference, over the tokens of that term.
    pub kl_reference: Option<f64>,
    /// How often the objective's clip holds, if it has one.
    pub clip: Option<ClipMetrics>,
}

/// How often a clip of the ratio holds. It never does where the advantage is 0; TRL counts also what its
/// masks take out, which is the number for the advantages before
/// [`mask_low_entropy`](crate::statistics::mask_low_entropy) or
/// [`mask_off_policy`](crate::statistics::mask_off_policy).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClipMetrics {
    /// `clip_ratio/low`: the ratio is below its range, and the advantage negative.
    pub low: ClipFraction,
    /// `clip_ratio/high`: the ratio is above its range, and the advantage positive; for CISPO
    /// `cispo_clip_ratio`.
    pub high: ClipFraction,
    /// `clip_ratio/region`, verl's `pg_clipfrac`: either. Of CISPO's clip verl counts both signs of the
    /// advantage.
    pub region: ClipFraction,
    /// verl's `pg_clipfrac_lower`: the dual clip is the loss of a negative advantage.
    pub dual: ClipFraction,
}

/// The share of tokens at which a clip holds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClipFraction {
    /// Of all counted tokens: the mean that TRL logs for ratios of tokens, and verl for all.
    pub token_mean: f64,
    /// Mean over the sequences of the shares of their own tokens, a sequence without any counting as 0:
    /// the mean that TRL logs for ratios of sequences, such as GSPO's.
    pub sequence_mean: f64,
    /// The least share of a sequence that has counted tokens: `clip_ratio/low_min`. For ratios of
    /// sequences TRL takes in sequences without tokens too, as 0.
    pub sequence_min: f64,
    /// The largest: `clip_ratio/high_max`.
    pub sequence_max: f64,
}

impl TokenMetrics {
    /// From the log-probs, and entropies where they are known, `[tokens]` each, that stage 1 left; none
    /// where no term is over tokens. Computed on the host: what lies on a device is read.
    /// [`Loss::token_metrics`](crate::Loss::token_metrics) calls it.
    ///
    /// # Errors
    /// Another number of log-probs or entropies than tokens, terms of another batch, or reading the
    /// device.
    pub fn new(
        batch: &Batch<'_>,
        terms: &[Resolved],
        log_probs: Slice<'_>,
        entropy: Option<Slice<'_>>,
    ) -> Result<Option<Self>> {
        let mut over_tokens = terms.iter().filter(|term| term.is_over_tokens());
        let Some(first) = over_tokens.clone().next() else { return Ok(None) };
        let policy = over_tokens.clone().find(|term| term.inputs_used().advantage);
        let reference = over_tokens.find(|term| term.inputs_used().reference);
        let known = Known::new(batch, log_probs, entropy)?;
        let kl_reference = reference.map(|term| known.mean_loss(term)).transpose()?;
        Ok(Some(Self { kl_reference, ..known.measure(policy.unwrap_or(first))? }))
    }
}

/// What is known of a batch's tokens, in host memory.
struct Known {
    batch: Batch<'static>,
    log_probs: Vec<f64>,
    entropy: Option<Vec<f64>>,
    /// `[sequences]` counted tokens.
    counts: Vec<f64>,
}

impl Known {
    fn new(batch: &Batch<'_>, log_probs: Slice<'_>, entropy: Option<Slice<'_>>) -> Result<Self> {
        same_length("log_probs", batch.tokens(), log_probs.len())?;
        if let Some(entropy) = entropy {
            same_length("entropy", batch.tokens(), entropy.len())?;
        }
        let batch = batch.clone().into_owned()?;
        let tokens = Tokens::of(&batch).host()?;
        let counted = |&token: &usize| tokens.counted_label(token).is_some();
        let counts = batch.packing().ranges().map(|range| range.filter(counted).count() as f64);
        Ok(Self {
            counts: counts.collect(),
            log_probs: log_probs.to_vec()?,
            entropy: entropy.map(Slice::to_vec).transpose()?,
            batch,
        })
    }

    /// Hands over what stage 3 reads.
    fn with_units<T>(&self, term: &Resolved, run: impl FnOnce(TokenUnits<'_>) -> T) -> Result<T> {
        let batch = &self.batch;
        if !term.fits(batch) {
            return Err(Error::OtherBatch);
        }
        let packing = batch.packing().place(&Reference::new())?;
        let by_token = batch.advantages().is_some_and(Advantages::is_per_token);
        let advantages = batch.advantages().map(Advantages::slice).map(match by_token {
            true => TokenAdvantages::Tokens,
            false => TokenAdvantages::Sequences,
        });
        let inputs = TokenInputs {
            log_probs: Slice::new(&self.log_probs),
            old: batch.old().and_then(ReferenceLogProbs::tokens),
            reference: batch.reference().and_then(ReferenceLogProbs::tokens),
            entropy: self.entropy.as_deref().map(Slice::new),
            advantages,
        };
        let (tokens, counts) = (Tokens::of(batch).host()?, Slice::new(&self.counts));
        Ok(run(TokenUnits { term, tokens, packing: &packing, counts, inputs }))
    }

    fn mean_loss(&self, term: &Resolved) -> Result<f64> {
        self.with_units(term, |units| {
            let (mut sum, mut evaluations) = (0.0, [Evaluation::default(); CHUNK]);
            for sequence in term.all_members().iter().map(|&sequence| sequence as usize) {
                units.visit(sequence, units.of_sequence(sequence), |_, tokens| {
                    units.evaluate_tokens(tokens, &mut evaluations[..tokens.len()]);
                    evaluations[..tokens.len()].iter().for_each(|of_token| sum += of_token.loss);
                });
            }
            sum / units.count().max(1.0)
        })
    }

    fn measure(&self, term: &Resolved) -> Result<TokenMetrics> {
        self.with_units(term, |units| {
            let (mut entropy, mut kl_old) = (0.0, 0.0);
            let mut sequences = Vec::with_capacity(term.units());
            for sequence in term.all_members().iter().map(|&sequence| sequence as usize) {
                let mut clipped = [0.0; 4];
                units.visit(sequence, units.of_sequence(sequence), |which, tokens| {
                    for (&index, token) in which.iter().zip(tokens) {
                        entropy += self.entropy.as_ref().map_or(0.0, |entropy| entropy[index]);
                        kl_old += token.old - token.policy;
                        let Clipped { low, high, dual } = term.clipped(token).unwrap_or_default();
                        let sides = [low, high, low || high, dual];
                        clipped.iter_mut().zip(sides).for_each(|(n, holds)| {
                            *n += f64::from(u8::from(holds));
                        });
                    }
                });
                sequences.push((clipped, self.counts[sequence]));
            }
            let tokens = units.count();
            let has_clip = term.clipped(&Token::UNKNOWN).is_some();
            TokenMetrics {
                tokens: tokens as usize,
                entropy: self.entropy.as_ref().map(|_| entropy / tokens.max(1.0)),
                kl_old: kl_old / tokens.max(1.0),
                kl_reference: None,
                clip: has_clip.then(|| ClipMetrics::new(&sequences)),
            }
        })
    }
}

impl ClipMetrics {
    /// By sequence: the tokens at which each clip holds, and all that count.
    fn new(sequences: &[([f64; 4], f64)]) -> Self {
        let [low, high, region, dual] = std::array::from_fn(|clip| {
            ClipFraction::new(sequences.iter().map(|(clipped, tokens)| [clipped[clip], *tokens]))
        });
        Self { low, high, region, dual }
    }
}

impl ClipFraction {
    fn new(sequences: impl ExactSizeIterator<Item = [f64; 2]> + Clone) -> Self {
        let sum = |part: usize| sequences.clone().map(|sequence| sequence[part]).sum::<f64>();
        let counted = sequences.clone().filter(|[_, tokens]| *tokens > 0.0);
        let shares = || counted.clone().map(|[clipped, tokens]| clipped / tokens);
        Self {
            token_mean: sum(0) / sum(1).max(1.0),
            sequence_mean: shares().sum::<f64>() / sequences.len() as f64,
            sequence_min: shares().reduce(f64::min).unwrap_or(0.0),
            sequence_max: shares().reduce(f64::max).unwrap_or(0.0),
        }
    }
}
