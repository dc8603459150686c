//! `c exp(x/T)` of logits as they are, for instruction sets that have [`Exponential`]'s table.
//!
//! A softmax asks for exponentials of `(x - m)/T` with m near the maximum. With `M` the sixteenth nearest to
//! `m log2(e)/T`, the sum that rounds `x log2(e)/T - M` to a sixteenth takes no more operations than that of a
//! difference: the subtraction is gone, and with it its rounding. What the reference `2^M` lacks of the wanted
//! factor goes into the table's sixteen numbers, once a row, or into the sums in f64.

use std::f64::consts::{LN_2, LOG2_E};

use crate::cpu::convert::Lanes;
use crate::cpu::exp::{CUBIC, Exponential, ROUND_TO_SIXTEENTH};
use crate::cpu::exp::{cutoff_beside, least_sixteenth, sixteenths};
use crate::cpu::rows::LANES;
use crate::cpu::simd::Isa;

/// Factors of f^2 and f in 2^f, in the short form: the least relative error for |f| <= 1/32 is 4.3e-7, a 4500th of half
/// an ulp of bf16.
pub(crate) const SQUARE: [f32; 2] = [0.240_226_43, 0.693_187_7];

/// Logits up to this many binades from 0 leave the sixteenths their place in an f32.
const MOST: f64 = 131_072.0;

/// Factors between the inverse of this and this leave the exponentials theirs.
const LARGEST: f64 = 1e30;

/// The exponential as the lanes compute it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchored {
    /// log2(e)/T = `high` + `low`. The short form goes without `low`, whose part is up to |x - logit|/T times 2^-24:
    /// 1.2e-6 where a probability is e^-20.
    pub high: f32,
    pub low: f32,
    /// [`ROUND_TO_SIXTEENTH`] - M.
    pub round: f32,
    /// The least sum of x log2(e)/T and `round` of which the result is not 0.
    pub least: f32,
    /// [`sixteenths`] of what 2^M lacks of the factor.
    pub table: [u32; 16],
}

impl Anchored {
    /// exp(x/T) of differences from a maximum.
    #[inline(always)]
    pub fn at_zero(exponential: Exponential) -> Self {
        const PLAIN: [u32; 16] = sixteenths(1.0);
        let Exponential { high, low, least, .. } = exponential;
        Self { high, low, round: ROUND_TO_SIXTEENTH, least, table: PLAIN }
    }

    /// exp(x/T) by 2^M, with M for a logit; None if that lies too far from 0.
    #[inline(always)]
    pub fn near(exponential: Exponential, logit: f32) -> Option<Self> {
        let zero = Self::at_zero(exponential);
        let by = f64::from(zero.high) + f64::from(zero.low);
        let anchor = nearest_sixteenth(f64::from(logit) * by)? as f32;
        Some(Self { round: zero.round - anchor, ..zero })
    }

    /// `factor exp((x - logit)/T)`, with the digits that bf16 keeps or f32's, and 0 where that could be subnormal; None if
    /// the logit lies too far from 0, or the factor from 1.
    pub fn times(
        is_bf16: bool,
        (inverse_temperature, logit): (f64, f32),
        factor: f64,
    ) -> Option<Self> {
        let by = inverse_temperature * LOG2_E;
        let high = by as f32;
        // Without `low` what is lost grows with the distance from the logit alone.
        let reference = f64::from(logit) * if is_bf16 { f64::from(high) } else { by };
        let anchor = nearest_sixteenth(reference)?;
        let lacking = anchor - reference;
        let scale = lacking.exp2() * factor;
        if !(1.0 / LARGEST..LARGEST).contains(&scale.abs()) {
            return None;
        }
        let cutoff = f64::from(cutoff_beside(factor)) * LOG2_E - lacking;
        Some(Self {
            high,
            low: (by - f64::from(high)) as f32,
            round: ROUND_TO_SIXTEENTH - anchor as f32,
            least: ROUND_TO_SIXTEENTH + least_sixteenth(cutoff) as f32,
            table: sixteenths(scale),
        })
    }

    /// What [`Anchored::times`] says of some logits.
    #[inline(always)]
    pub fn lanes<E: Lanes, I: Isa>(&self, isa: I, x: &[f32; LANES]) -> [f32; LANES] {
        match E::IS_BF16 {
            true => isa.anchored::<true>(self, x),
            false => isa.anchored::<false>(self, x),
        }
    }

    /// How far a logit lies above the reference, as x/T.
    pub fn above(&self, logit: f32) -> f64 {
        let by = f64::from(self.high) + f64::from(self.low);
        let anchor = f64::from(ROUND_TO_SIXTEENTH) - f64::from(self.round);
        (f64::from(logit) * by - anchor) * LN_2
    }

    /// 2^(k/16) times the table's factor, and 2^f as `q f + 1`; None where the result is 0. Without fused
    /// multiplications f would not be what is left of x.
    #[inline(always)]
    fn parts<const SHORT: bool>(&self, x: f32) -> Option<[f32; 3]> {
        let shifted = x.mul_add(self.high, self.round);
        if shifted < self.least {
            return None;
        }
        let mut f = x.mul_add(self.high, -(shifted - self.round));
        let q = if SHORT {
            SQUARE[0].mul_add(f, SQUARE[1])
        } else {
            f = x.mul_add(self.low, f);
            CUBIC[0].mul_add(f, CUBIC[1]).mul_add(f, CUBIC[2])
        };
        let bits = shifted.to_bits();
        let power = self.table[bits as usize % 16].wrapping_add(bits << 19);
        Some([f32::from_bits(power), q, f])
    }

    /// As every instruction set computes it. NaN stays NaN.
    #[inline(always)]
    pub fn of<const SHORT: bool>(&self, x: f32) -> f32 {
        self.parts::<SHORT>(x).map_or(0.0, |[power, q, f]| power.mul_add(q * f, power))
    }

    /// `sum + of(x)`, rounded once.
    #[inline(always)]
    pub fn add(&self, x: f32, sum: f32) -> f32 {
        self.parts::<false>(x).map_or(sum, |[power, q, f]| power.mul_add(q.mul_add(f, 1.0), sum))
    }
}

/// None if that is not a number that leaves room.
fn nearest_sixteenth(binades: f64) -> Option<f64> {
    (binades.abs() < MOST).then(|| (binades * 16.0).round_ties_even() / 16.0)
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use half::bf16;

    use super::*;
    use crate::cpu::simd::{Kernel, levels};

    struct Of<'a, E>(Anchored, &'a [f32; LANES], PhantomData<E>);

    impl<E: Lanes> Kernel for Of<'_, E> {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [f32; LANES] {
            self.0.lanes::<E, I>(isa, self.1)
        }
    }

    struct Added<'a>(Anchored, &'a [f32; LANES], &'a mut [f32; LANES]);

    impl Kernel for Added<'_> {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [f32; LANES] {
            isa.add_anchored(&self.0, self.1, self.2)
        }
    }

    /// Logits from 90 below an anchor to 10 above it, in chunks.
    fn chunks(anchor: f32, temperature: f64) -> impl Iterator<Item = [f32; LANES]> {
        let steps = 40_000 / LANES;
        (0..steps).map(move |chunk| {
            std::array::from_fn(|lane| {
                let z = 10.0 - 100.0 * (chunk * LANES + lane) as f64 / 40_000.0;
                (f64::from(anchor) + z * temperature) as f32
            })
        })
    }

    /// Worst relative error of `factor exp((x - anchor)/T)` where that is not 0.
    fn worst<E: Lanes>(anchor: f32, temperature: f64, factor: f64) -> f64 {
        let anchored =
            Anchored::times(E::IS_BF16, (1.0 / temperature, anchor), factor).expect("in range");
        let mut worst = 0.0_f64;
        for x in chunks(anchor, temperature) {
            for simd in levels() {
                for (got, x) in simd.run(Of::<E>(anchored, &x, PhantomData)).into_iter().zip(x) {
                    let z = (f64::from(x) - f64::from(anchor)) / temperature;
                    let wanted = factor * z.exp();
                    let lost = z < -86.0 || wanted.abs() < 1.2 * f64::from(f32::MIN_POSITIVE);
                    assert!(got == 0.0 || got.abs() >= f32::MIN_POSITIVE, "{x}: {got}");
                    if !(got == 0.0 && lost) {
                        worst = worst.max((f64::from(got) / wanted - 1.0).abs());
                    }
                }
            }
        }
        worst
    }

    /// f32 to an ulp and the half that the table's rounding has; the short form to what it lacks at z = -90. A logit's
    /// own distance is exact, so a large offset costs nothing.
    #[test]
    fn keeps_its_digits() {
        let ulp = f64::from(f32::EPSILON);
        for anchor in [0.0, 3.3, -17.0, 88.25, 1e4, -4e4] {
            for temperature in [1.0, 0.7, 2.5] {
                for factor in [1.0, 1e-5, -0.3, 1e20] {
                    let off = worst::<f32>(anchor, temperature, factor);
                    assert!(off < 1.5 * ulp, "{anchor} {temperature} {factor}: {off:.2e}");
                    let (off, low) = (worst::<bf16>(anchor, temperature, factor), 90.0 * ulp / 2.0);
                    assert!(off < 4.3e-7 + low + ulp, "{anchor} {temperature} {factor}: {off:.2e}");
                }
            }
        }
    }

    /// Every instruction set has the bits of the scalar form, sums included.
    #[test]
    fn sets_agree() {
        for (anchor, temperature) in [(5.0, 1.0), (-2e4, 0.7)] {
            let exponential = Exponential::new(1.0 / temperature);
            let anchored = Anchored::near(exponential, anchor).expect("in range");
            let mut wanted = [0.25_f32; LANES];
            let mut sums = levels().map(|simd| (simd, wanted)).collect::<Vec<_>>();
            for mut x in chunks(anchor, temperature) {
                x[3] = f32::NEG_INFINITY;
                x[9] = -3e38;
                let values = x.map(|x| anchored.of::<false>(x));
                for (sum, x) in wanted.iter_mut().zip(x) {
                    *sum = anchored.add(x, *sum);
                }
                for (simd, sums) in &mut sums {
                    assert_eq!(simd.run(Added(anchored, &x, sums)), values);
                    assert_eq!(*sums, wanted);
                }
            }
            let above = anchored.above(anchor);
            assert!(above.abs() <= LN_2 / 32.0 * 1.0001, "{above}");
        }
    }

    #[test]
    fn special_values() {
        for simd in levels() {
            let anchored = Anchored::near(Exponential::new(1.0), 7.0).expect("in range");
            let x = [f32::NAN, f32::NEG_INFINITY, f32::MIN, -1e30, f32::INFINITY];
            let mut lanes = [7.0; LANES];
            lanes[..x.len()].copy_from_slice(&x);
            let got = simd.run(Of::<f32>(anchored, &lanes, PhantomData));
            assert!(got[0].is_nan() && got[1..4] == [0.0; 3] && !got[4].is_finite(), "{got:?}");
        }
        let exponential = Exponential::new(1.0);
        for far in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e6, -1e30] {
            assert!(Anchored::near(exponential, far).is_none(), "{far}");
            assert!(Anchored::times(true, (1.0, far), 1.0).is_none(), "{far}");
        }
        for factor in [0.0, 1e-40, f64::INFINITY, f64::NAN] {
            assert!(Anchored::times(false, (1.0, 0.0), factor).is_none(), "{factor}");
        }
    }
}
