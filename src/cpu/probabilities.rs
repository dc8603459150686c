//! Probabilities of a block, and what they are multiplied by.

use super::blocks::{Ahead, Chunk};
use super::exp::EXP_CUTOFF;
use super::gradient::Factor;
use super::rows::{LANES, exp, fused};
use super::simd::{Isa, Kernel};

/// Probabilities in place of logits, from the log-prob of a logit that is `maximum`.
pub(super) struct Probabilities<'a> {
    pub to: &'a mut [Chunk],
    pub maximum: f32,
    pub inverse_temperature: f32,
    pub log_prob: f32,
}

impl Kernel for Probabilities<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for chunk in self.to {
            for x in chunk {
                let z = fused::<I>(*x - self.maximum, self.inverse_temperature, self.log_prob);
                let p = exp::<I>(z, EXP_CUTOFF);
                // Its low half may be that of another part's f32 NaN, see [`Isa::narrow_bf16`].
                *x = if p.is_nan() { f32::NAN } else { p };
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
