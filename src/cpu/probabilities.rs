//! Probabilities of a block, and what they are multiplied by.

use super::blocks::{Ahead, Chunk};
use super::exp::Exponential;
use super::gradient::Factor;
use super::rows::{LANES, Scale};
use super::simd::{Isa, Kernel};

/// Probabilities in place of logits.
pub(super) struct Probabilities<'a> {
    to: &'a mut [Chunk],
    scale: Scale,
    /// Of a logit that is the scale's maximum.
    probability: f32,
}

impl<'a> Probabilities<'a> {
    /// From the log-prob of a logit that is `maximum`, whether the chunks hold it or not.
    pub fn new(
        to: &'a mut [Chunk],
        maximum: f32,
        (log_prob, inverse_temperature): (f64, f64),
    ) -> Self {
        // Above 1 by rounding, or where no logit is the maximum.
        let probability = log_prob.exp().min(1.0);
        let exponential = Exponential::times(inverse_temperature, probability);
        let is_subnormal = probability < f64::from(f32::MIN_POSITIVE);
        let probability = if is_subnormal { 0.0 } else { probability as f32 };
        Self { to, scale: Scale { maximum, exponential }, probability }
    }
}

impl Kernel for Probabilities<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for chunk in self.to {
            let exponentials = self.scale.exponential.of(isa, &self.scale.differences(chunk));
            for lane in 0..LANES {
                let p = exponentials[lane] * self.probability;
                // Its low half may be that of another part's f32 NaN, see [`Isa::narrow_bf16`].
                chunk[lane] = if p.is_nan() { f32::NAN } else { p };
            }
        }
    }
}

pub(super) struct Times<'a> {
    pub from: &'a [Chunk],
    pub to: &'a mut [Chunk],
    pub factor: Factor,
    pub ahead: Ahead<'a>,
}

impl Kernel for Times<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (index, (to, from)) in self.to.iter_mut().zip(self.from).enumerate() {
            self.ahead.prefetch(isa, index);
            for lane in 0..LANES {
                to[lane] = self.factor.times(from[lane]);
            }
        }
    }
}
