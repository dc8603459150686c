//! exp for softmax arguments, as scalar code that the compiler vectorises.
//!
//! x = k ln 2 + r with k the nearest integer, so |r| <= ln(2)/2; exp(x) = 2^k p(r), p a polynomial
//! of degree 6 with p(0) = p'(0) = 1. Every step is an instruction that SSE2, AVX2, AVX-512 and
//! NEON all have: no table, no call, no branch, and no rounding-mode or float-to-integer
//! conversion.

use std::f32::consts::LOG2_E;

/// Below this (just above ln 2^-126) the result is exactly 0. No result is subnormal: on x86 a
/// product that is subnormal traps into microcode, some 150 cycles for one element, and rows with
/// far tails have thousands of them.
pub(crate) const EXP_CUTOFF: f32 = -87.336_54;

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

    /// Worst distance from the exact value, in units of the last place of the exact value.
    fn worst_ulps(exp: fn(f32) -> f32, step: usize) -> f64 {
        let (tiny, cutoff) = (2f32.powi(-26).to_bits(), (-EXP_CUTOFF).to_bits());
        let mut worst = 0.0f64;
        for magnitude in (tiny..=cutoff).step_by(step) {
            let x = -f32::from_bits(magnitude);
            let exact = f64::from(x).exp();
            let binade = f64::from_bits(exact.to_bits() & (0x7ff << 52));
            let ulps = (f64::from(exp(x)) - exact).abs() / (binade * 2f64.powi(-23));
            worst = worst.max(ulps);
        }
        worst
    }

    fn check(exp: fn(f32) -> f32, bound: f64, step: usize) {
        let worst = worst_ulps(exp, step);
        println!("worst {worst:.4} ulp");
        assert!(worst <= bound, "{worst} ulp");
    }

    /// `mul_add` here is libm's, with the same result as the instruction.
    #[test]
    fn error_is_below_one_ulp() {
        check(|x| exp_nonpositive::<true>(x, EXP_CUTOFF), 0.87, 9_973);
        check(|x| exp_nonpositive::<false>(x, EXP_CUTOFF), 0.97, 997);
    }

    /// From the cutoff up to -2^-26, above which the exact value rounds to 1 (and so does the
    /// kernel's, see below).
    #[test]
    #[ignore = "277 million inputs, twice: some 20 s optimised"]
    fn error_is_below_one_ulp_for_every_f32() {
        check(|x| exp_nonpositive::<true>(x, EXP_CUTOFF), 0.87, 1);
        check(|x| exp_nonpositive::<false>(x, EXP_CUTOFF), 0.97, 1);
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
        for exp in [
            |x| exp_nonpositive::<true>(x, EXP_CUTOFF),
            |x| exp_nonpositive::<false>(x, EXP_CUTOFF),
        ] {
            assert_eq!(exp(0.0), 1.0);
            assert_eq!(exp(-0.0), 1.0);
            assert_eq!(exp(-f32::MIN_POSITIVE), 1.0);
            assert_eq!(exp(-(2f32.powi(-26))), 1.0);
            assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
            assert_eq!(exp(f32::MIN).to_bits(), 0);
            assert_eq!(exp(EXP_CUTOFF.next_down()).to_bits(), 0);
            assert!(exp(EXP_CUTOFF) >= f32::MIN_POSITIVE);
            assert!((exp(1e-6) - 1.000_001).abs() < 2e-7);
            for bits in [0x7fc0_0000, 0xffc0_0000, 0x7fff_ffff, 0x7f80_0001, 0x7fc0_00ff] {
                assert!(exp(f32::from_bits(bits)).is_nan(), "{bits:#010x}");
            }
        }
    }
}
