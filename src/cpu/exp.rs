//! exp for softmax arguments: by a table of sixteen powers of two where registers permute, and else as scalar
//! code that the compiler vectorises.
//!
//! By the table, x log2(e)/T = k/16 + f with k the nearest integer, so |f| <= 1/32, and exp(x/T) = 2^(k/16) 2^f
//! with a cubic polynomial. That is 7 operations for the units that multiply, where the polynomial alone has
//! 11 with the product by 1/T, and those units are what it waits for in Zen 4: 7 cycles for 16 numbers, and
//! 10.4 by the polynomial (2.4 and 3.5 ns at 2.96 GHz, in registers; with AVX2 4.0 and 5.3 ns). `anchored` has
//! the table's arithmetic, also for logits from which no maximum has been subtracted.
//!
//! By the polynomial, x = k ln 2 + r with k the nearest integer, so |r| <= ln(2)/2; exp(x) = 2^k p(r), p of
//! degree 6 with p(0) = p'(0) = 1. Every step is an instruction that SSE2, AVX2, AVX-512 and NEON all have: no
//! table, no call, no branch, and no rounding-mode or float-to-integer conversion.

use std::f32::consts::{LN_2, LOG2_E};

use crate::cpu::rows::LANES;
use crate::cpu::simd::Isa;

/// Below this (just above ln 2^-126) the result is exactly 0. No result is subnormal: on x86 a
/// product that is subnormal traps into microcode, some 150 cycles for one element, and rows with
/// far tails have thousands of them.
pub(crate) const EXP_CUTOFF: f32 = -87.336_54;

/// 2^(j/16).
pub(crate) const SIXTEENTHS: [f64; 16] = [
    1.0,
    1.044_273_782_427_413_8,
    1.090_507_732_665_257_7,
    1.138_788_634_756_691_6,
    1.189_207_115_002_721,
    1.241_857_812_073_484,
    1.296_839_554_651_009_6,
    1.354_255_546_936_892_7,
    std::f64::consts::SQRT_2,
    1.476_826_145_939_499_3,
    1.542_210_825_407_940_7,
    1.610_490_331_949_254_3,
    1.681_792_830_507_429,
    1.756_252_160_373_299_5,
    1.834_008_086_409_342_4,
    1.915_206_561_397_147_4,
];

/// Bits of 2^(j/16) times a factor, less those that `k << 19` has for the j that are the low four of k: together
/// they are that of 2^(k/16).
#[inline(always)]
pub(crate) const fn sixteenths(factor: f64) -> [u32; 16] {
    let mut entries = [0; 16];
    let mut j = 0;
    while j < 16 {
        let power = (SIXTEENTHS[j] * factor) as f32;
        entries[j] = power.to_bits().wrapping_sub((j as u32) << 19);
        j += 1;
    }
    entries
}

/// 1.5 * 2^19. Adding it rounds to a sixteenth, and leaves the number of sixteenths in the low bits of the sum.
pub(crate) const ROUND_TO_SIXTEENTH: f32 = 786_432.0;

/// Factors of f^3 .. f^1 in 2^f - 1: the least relative error for |f| <= 1/32, 1.6e-9.
pub(crate) const CUBIC: [f32; 3] = [0.055_502_135, 0.240_234_29, LN_2];

/// exp(x/T) as the lanes compute it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exponential {
    pub inverse_temperature: f32,
    cutoff: f32,
    /// log2(e)/T = `high` + `low`.
    pub high: f32,
    pub low: f32,
    /// The least sum with [`ROUND_TO_SIXTEENTH`] of which the result is not 0.
    pub least: f32,
}

impl Exponential {
    /// 1/T from 1e-30 to 1e30.
    pub fn new(inverse_temperature: f64) -> Self {
        Self::from_cutoff(inverse_temperature, EXP_CUTOFF)
    }

    /// With 0 where the product with this factor, or one that is larger, could be subnormal.
    pub fn times(inverse_temperature: f64, factor: f64) -> Self {
        Self::from_cutoff(inverse_temperature, cutoff_beside(factor))
    }

    /// With 0 where x/T is below `cutoff`, and by the table in the sixteenth of a binade above it too.
    fn from_cutoff(inverse_temperature: f64, cutoff: f32) -> Self {
        let by = inverse_temperature * std::f64::consts::LOG2_E;
        let high = by as f32;
        let least = least_sixteenth(f64::from(cutoff) * std::f64::consts::LOG2_E);
        let least = f64::from(ROUND_TO_SIXTEENTH) + least;
        Self {
            inverse_temperature: inverse_temperature as f32,
            cutoff,
            high,
            low: (by - f64::from(high)) as f32,
            least: least as f32,
        }
    }

    /// exp(x/T) for x <= 0, or above 0 by as much as rounding can leave it there (in fact up to x/T = 88).
    ///
    /// exp(0) is exactly 1, exp(-inf) exactly 0, NaN stays NaN. Worst error over every f32 in
    /// [`EXP_CUTOFF`, 0]: 0.998 ulp by the table, 0.866 by the polynomial with FMA and 0.960 without.
    #[inline(always)]
    pub fn of<I: Isa>(self, isa: I, x: &[f32; LANES]) -> [f32; LANES] {
        isa.exponentials(self, x)
    }

    #[inline(always)]
    pub fn by_polynomial<I: Isa>(self, x: &[f32; LANES]) -> [f32; LANES] {
        let mut exponentials = [0.0; LANES];
        for lane in 0..LANES {
            let z = x[lane] * self.inverse_temperature;
            exponentials[lane] = match I::FMA {
                true => exp_nonpositive::<true>(z, self.cutoff),
                false => exp_nonpositive::<false>(z, self.cutoff),
            };
        }
        exponentials
    }
}

/// The least x/T of which the exponential times a factor is not subnormal.
pub(crate) fn cutoff_beside(factor: f64) -> f32 {
    // Above by as much as x times the low part of log2(e)/T, and the product's rounding; a factor of 0 has none.
    let least = (f64::from(f32::MIN_POSITIVE) / factor.abs().min(1.0)).ln() + 4e-3;
    EXP_CUTOFF.max(least.min(0.0) as f32)
}

/// The least multiple of a sixteenth whose neighbourhood does not reach below a number of binades.
pub(crate) fn least_sixteenth(binades: f64) -> f64 {
    (16.0 * binades + 0.5).ceil() / 16.0
}

/// 1.5 * 2^23 + 127. Adding it rounds to an integer and leaves that integer, with the bias of an exponent, in
/// the low bits of the sum.
const ROUND: f32 = 12_583_039.0;

/// ln 2 = `LN2_HIGH` + `LN2_LOW`; the high part has few enough bits that its product with |k| <=
/// 126 is exact.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// Factors of r^6 .. r^2.
const POLYNOMIAL: [f32; 5] =
    [1.378_059_4e-3, 8.373_125e-3, 4.166_953_6e-2, 1.666_647_2e-1, 4.999_998_5e-1];

/// a * b + c, fused where `FMA` says that the instruction set of the caller has it: outside of such
/// a function `mul_add` is a call into libm per element, 50 times slower. The compiler never fuses
/// by itself.
#[inline(always)]
pub(crate) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// exp(x) for x <= 0, or above 0 by as much as rounding can leave it there (in fact up to 88); 0 for
/// x below `cutoff`.
///
/// The cutoff is at least [`EXP_CUTOFF`]; higher where a small factor would make the result subnormal
/// after all. exp(0) is exactly 1, exp(-inf) exactly 0, NaN stays NaN. Worst error over every f32 in
/// [`EXP_CUTOFF`, 0]: 0.866 ulp with FMA, 0.960 ulp without.
#[inline(always)]
pub(crate) fn exp_nonpositive<const FMA: bool>(x: f32, cutoff: f32) -> f32 {
    let shifted = multiply_add::<FMA>(x, LOG2_E, ROUND);
    let scale = f32::from_bits(shifted.to_bits() << 23);
    let k = shifted - ROUND;
    let r = multiply_add::<FMA>(k, -LN2_HIGH, x);
    let r = multiply_add::<FMA>(k, -LN2_LOW, r);
    let mut q = POLYNOMIAL[0];
    q = multiply_add::<FMA>(q, r, POLYNOMIAL[1]);
    q = multiply_add::<FMA>(q, r, POLYNOMIAL[2]);
    q = multiply_add::<FMA>(q, r, POLYNOMIAL[3]);
    q = multiply_add::<FMA>(q, r, POLYNOMIAL[4]);
    // Horner's last two steps lose a rounding of (1 + ...) when they are not fused (1.15 ulp);
    // adding the 1 last does not, but is the worse of the two with FMA (0.99 ulp).
    let p = if FMA {
        multiply_add::<FMA>(multiply_add::<FMA>(q, r, 1.0), r, 1.0)
    } else {
        r * r * q + r + 1.0
    };
    // `scale` is a multiplication, not an addition to the exponent bits of p: those would turn some
    // NaNs into numbers. Written so that NaN takes the product.
    if x < cutoff { 0.0 } else { p * scale }
}

/// exp(x) and exp(x) - 1 for x <= 0, with the digits of both.
///
/// Below [`EXP_CUTOFF`] and for NaN they are those of the cutoff: 2^-126 and -1. exp(0) - 1 is exactly 0.
/// Worst errors over every f32 down to the cutoff: 1.002 and 0.919 ulp.
#[inline(always)]
pub(crate) fn exp_and_m1<const FMA: bool>(x: f32) -> [f32; 2] {
    let x = if x > EXP_CUTOFF { x } else { EXP_CUTOFF };
    let shifted = multiply_add::<FMA>(x, LOG2_E, ROUND);
    let scale = f32::from_bits(shifted.to_bits() << 23);
    let k = shifted - ROUND;
    let r = multiply_add::<FMA>(k, -LN2_HIGH, x);
    let r = multiply_add::<FMA>(k, -LN2_LOW, r);
    let mut q = POLYNOMIAL[0];
    q = multiply_add::<FMA>(q, r, POLYNOMIAL[1]);
    q = multiply_add::<FMA>(q, r, POLYNOMIAL[2]);
    q = multiply_add::<FMA>(q, r, POLYNOMIAL[3]);
    q = multiply_add::<FMA>(q, r, POLYNOMIAL[4]);
    let above = multiply_add::<FMA>(q * r, r, r);
    let m1 = multiply_add::<FMA>(scale, above, scale - 1.0);
    [multiply_add::<FMA>(scale, above, scale), m1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::{Kernel, Simd, SimdLevel, levels};

    struct Of<'a>(Exponential, &'a [f32; LANES]);

    impl Kernel for Of<'_> {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [f32; LANES] {
            self.0.of(isa, self.1)
        }
    }

    /// By the polynomial, fused or not. `mul_add` is libm's here, with the same result as the instruction.
    fn polynomial<const FMA: bool>(x: &[f32; LANES]) -> [f32; LANES] {
        x.map(|x| exp_nonpositive::<FMA>(x, EXP_CUTOFF))
    }

    /// More than a sixteenth of a binade: by the table, what lies so near above the cutoff may be 0.
    const SIXTEENTH: f64 = 0.05;

    /// Worst distance from exp(x/T), in units of the last place of the exact value, over every `step`th f32
    /// from `margin` above the cutoff up to -2^-26, above which the exact value rounds to 1 (and so does ours, see below).
    fn worst_ulps(
        exp: impl Fn(&[f32; LANES]) -> [f32; LANES],
        (inverse_temperature, margin): (f64, f64),
        step: usize,
    ) -> f64 {
        let largest = (f64::from(-EXP_CUTOFF) - margin) / inverse_temperature;
        let (tiny, largest) = (2f32.powi(-26).to_bits(), (largest as f32).to_bits());
        let mut worst = 0.0f64;
        let magnitudes: Vec<u32> = (tiny..=largest).step_by(step).collect();
        for magnitudes in magnitudes.chunks(LANES) {
            let mut x = [0.0; LANES];
            for (x, magnitude) in x.iter_mut().zip(magnitudes) {
                *x = -f32::from_bits(*magnitude);
            }
            for (x, got) in x.into_iter().zip(exp(&x)) {
                let exact = (f64::from(x) * inverse_temperature).exp();
                let binade = f64::from_bits(exact.to_bits() & (0x7ff << 52));
                worst = worst.max((f64::from(got) - exact).abs() / (binade * 2f64.powi(-23)));
            }
        }
        worst
    }

    fn check(steps: [usize; 2]) {
        let mut worst = vec![
            ("polynomial, fused", 0.87, worst_ulps(polynomial::<true>, (1.0, 0.0), steps[0])),
            ("polynomial", 0.97, worst_ulps(polynomial::<false>, (1.0, 0.0), steps[1])),
        ];
        for simd in levels().filter(|simd| simd.level() != SimdLevel::Baseline) {
            for inverse_temperature in [1.0, 1.0 / 0.7] {
                let exponential = Exponential::new(inverse_temperature);
                let of = |x: &_| simd.run(Of(exponential, x));
                worst.push((
                    "table",
                    1.0,
                    worst_ulps(of, (inverse_temperature, SIXTEENTH), steps[1]),
                ));
            }
        }
        for (name, bound, worst) in worst {
            println!("{name}: worst {worst:.4} ulp");
            assert!(worst <= bound, "{name}: {worst} ulp");
        }
    }

    #[test]
    fn error_is_below_one_ulp() {
        check([9_973, 997]);
    }

    #[test]
    #[ignore = "277 million inputs for each form: some 30 s optimised"]
    fn error_is_below_one_ulp_for_every_f32() {
        check([1, 1]);
    }

    /// No result is subnormal, and no product with the factor that was named; by the table and not, at
    /// temperatures that reach the ends of f32.
    #[test]
    fn no_product_is_subnormal() {
        for simd in levels() {
            for inverse_temperature in [1.0, 0.3, 1e30, 1e-30] {
                for factor in [1.0, 3.0, 0.9, 1e-7, 1.3e-20, 2e-38, 1e-45, 0.0] {
                    let exponential = Exponential::times(inverse_temperature, factor);
                    for chunk in 0..200 {
                        let z = |lane: usize| -0.007 * (chunk * LANES + lane) as f64;
                        let x = std::array::from_fn(|lane| (z(lane) / inverse_temperature) as f32);
                        for (lane, e) in simd.run(Of(exponential, &x)).into_iter().enumerate() {
                            let product = f64::from(e) * factor;
                            let smallest = f64::from(f32::MIN_POSITIVE);
                            let is_zero = e == 0.0;
                            assert!(is_zero || e >= f32::MIN_POSITIVE, "{} gives {e}", z(lane));
                            // A factor that is subnormal itself is no one's to use.
                            let usable = factor >= smallest && factor < 1.0;
                            assert!(!usable || is_zero || product >= smallest, "{factor} {e}");
                            let lost = z(lane) > -87.2 && product > 1.1 * smallest;
                            assert!(!(is_zero && lost), "{} is lost beside {factor}", z(lane));
                        }
                    }
                }
            }
        }
    }

    /// Worst distances of both numbers, likewise.
    fn check_m1(both: fn(f32) -> [f32; 2], bounds: [f64; 2], step: usize) {
        let (tiny, cutoff) = (2f32.powi(-60).to_bits(), (-EXP_CUTOFF).to_bits());
        let mut worst = [0.0f64; 2];
        for magnitude in (tiny..cutoff).step_by(step) {
            let x = -f32::from_bits(magnitude);
            let exact = [f64::from(x).exp(), f64::from(x).exp_m1()];
            for ((got, exact), worst) in both(x).into_iter().zip(exact).zip(&mut worst) {
                let binade = f64::from_bits(exact.to_bits() & (0x7ff << 52));
                let ulps = (f64::from(got) - exact).abs() / (binade.abs() * 2f64.powi(-23));
                *worst = worst.max(ulps);
            }
        }
        println!("worst {worst:.4?} ulp");
        assert!(worst.iter().zip(bounds).all(|(worst, bound)| *worst <= bound), "{worst:?} ulp");
    }

    #[test]
    fn both_keep_their_digits() {
        check_m1(exp_and_m1::<true>, [1.01, 0.92], 9_973);
        check_m1(exp_and_m1::<false>, [1.01, 0.92], 997);
        for both in [exp_and_m1::<true>, exp_and_m1::<false>] {
            assert_eq!([0.0, -0.0].map(both), [[1.0, 0.0]; 2]);
            for x in [f32::NEG_INFINITY, f32::MIN, EXP_CUTOFF, f32::NAN] {
                let [exp, m1] = both(x);
                assert!((f32::MIN_POSITIVE..1.2e-38).contains(&exp) && m1 == -1.0, "{x}");
            }
        }
    }

    #[test]
    #[ignore = "a billion inputs, twice: a minute optimised"]
    fn both_keep_their_digits_for_every_f32() {
        check_m1(exp_and_m1::<true>, [1.01, 0.92], 1);
        check_m1(exp_and_m1::<false>, [1.01, 0.92], 1);
    }

    #[test]
    fn special_values() {
        let by_level = |simd: Simd| move |x| simd.run(Of(Exponential::new(1.0), &[x; LANES]))[7];
        type Form = Box<dyn Fn(f32) -> f32>;
        let mut forms: Vec<(Form, f32)> = vec![
            (Box::new(|x| polynomial::<true>(&[x; LANES])[7]), 0.0),
            (Box::new(|x| polynomial::<false>(&[x; LANES])[7]), 0.0),
        ];
        for simd in levels() {
            let by_table = simd.level() != SimdLevel::Baseline;
            let margin = if by_table { SIXTEENTH as f32 } else { 0.0 };
            forms.push((Box::new(by_level(simd)), margin));
        }
        for (exp, margin) in forms {
            assert_eq!(exp(0.0), 1.0);
            assert_eq!(exp(-0.0), 1.0);
            assert_eq!(exp(-f32::MIN_POSITIVE), 1.0);
            assert_eq!(exp(-(2f32.powi(-26))), 1.0);
            assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
            assert_eq!(exp(f32::MIN).to_bits(), 0);
            assert_eq!(exp(EXP_CUTOFF.next_down()).to_bits(), 0);
            assert!(exp(EXP_CUTOFF + margin) >= f32::MIN_POSITIVE);
            assert!((exp(1e-6) - 1.000_001).abs() < 2e-7);
            for bits in [0x7fc0_0000, 0xffc0_0000, 0x7fff_ffff, 0x7f80_0001, 0x7fc0_00ff] {
                assert!(exp(f32::from_bits(bits)).is_nan(), "{bits:#010x}");
            }
        }
    }
}
