//! The exponential and the logarithm on f64, for objectives; kernels have the compiler's own.
//!
//! Additions, multiplications and divisions in a fixed order, none fused, without a table or a branch: the
//! compiler evaluates several units at once, with the same bits for each instruction set, and functions of
//! the same argument share what they have in common. Calls into a library are never made one, nor several
//! at a time. Polynomials are minimax, and evaluated in pairs (Estrin), whose steps wait for each other
//! less than Horner's.

/// 1.5 * 2^52. Adding it rounds to an integer, which the low bits of the sum then hold.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// ln 2 = `LN2_HIGH` + `LN2_LOW`; the high part has 32 bits, so that its product with an exponent is exact.
const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// `x = k ln 2 + r` and `exp(r) = 1 + (high + tail)`, `high` being exact.
struct Reduced {
    k: f64,
    high: f64,
    tail: f64,
}

/// Beyond the ends `exp` is 0 or infinite.
#[inline(always)]
fn reduce(x: f64) -> Reduced {
    let x = if x < -746.0 { -746.0 } else { x };
    let x = if x > 710.0 { 710.0 } else { x };
    let k = (x * std::f64::consts::LOG2_E + ROUND) - ROUND;
    let high = x - k * LN2_HIGH;
    let low = k * LN2_LOW;
    let r = high - low;
    let r2 = r * r;
    let r4 = r2 * r2;
    let first = (0.5 + 0.166_666_666_666_666_74 * r)
        + (0.041_666_666_666_628_535 + 0.008_333_333_333_322_042 * r) * r2;
    let second = (0.001_388_888_891_709_110_9 + 1.984_126_988_773_791e-4 * r)
        + (2.480_152_056_816_713_7e-5 + 2.755_724_086_412_651_2e-6 * r) * r2;
    let third = 2.762_058_182_784_790_6e-7 + 2.511_060_734_032_022_2e-8 * r;
    Reduced { k, high, tail: r2 * (first + (second + third * r4) * r4) - low }
}

/// 2 to the power of an integer between -1022 and 1023.
#[inline(always)]
fn power_of_two(k: f64) -> f64 {
    f64::from_bits((k + ROUND).to_bits().wrapping_add(1023) << 52)
}

/// The natural exponential, to 0.95 units of the last place.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    let Reduced { k, high, tail } = reduce(x);
    // In two factors, as 2^k may be subnormal, or twice the largest power.
    let half = (0.5 * k + ROUND) - ROUND;
    (1.0 + (high + tail)) * power_of_two(half) * power_of_two(k - half)
}

/// `exp(x) - 1`, to 1.5 units of the last place.
#[inline(always)]
pub fn expm1(x: f64) -> f64 {
    let Reduced { k, high, tail } = reduce(x);
    // Below, 2^k is nothing beside 1.
    let half = power_of_two(if k < -60.0 { -61.0 } else { k - 1.0 });
    let scaled = 2.0 * ((half * high + (half - 0.5)) + half * tail);
    if k == 0.0 { high + tail } else { scaled }
}

/// `log(x) + correction`, for `x` positive and finite and a small correction.
#[inline(always)]
fn log_and(x: f64, correction: f64) -> f64 {
    /// The bits of the root of 1/2, to 20 digits: the least that is left of `x` over its power of two.
    const LEAST: u64 = 0x3fe6_a09e_0000_0000;
    let subnormal = x < f64::MIN_POSITIVE;
    let normal = if subnormal { x * 18_014_398_509_481_984.0 } else { x };
    let bits = normal.to_bits().wrapping_sub(LEAST);
    // The exponent, 1024 added, as the low bits of 2^52.
    let exponent = f64::from_bits(0x4330_0000_0000_0000 | ((bits >> 52) + 1024) & 0xfff);
    let k = exponent - if subnormal { 4_503_599_627_371_574.0 } else { 4_503_599_627_371_520.0 };
    let f = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) + LEAST) - 1.0;
    let s = f / (2.0 + f);
    let (z, square) = (s * s, 0.5 * f * f);
    let z2 = z * z;
    let first = (0.666_666_666_666_673_4 + 0.399_999_999_994_146_9 * z)
        + (0.285_714_287_423_859_4 + 0.222_221_985_732_594_1 * z) * z2;
    let second =
        (0.181_835_643_259_751_43 + 0.153_140_504_830_688_83 * z) + 0.147_959_509_644_009_47 * z2;
    // log(1 + f) = f - f^2/2 + s (f^2/2 + rest)
    let rest = z * (first + second * (z2 * z2));
    k * LN2_HIGH + (f - (square - (s * (square + rest) + (k * LN2_LOW + correction))))
}

/// `logarithm`, but where the logarithm of `x` is no number.
#[inline(always)]
fn where_finite(x: f64, logarithm: f64) -> f64 {
    let at_most_zero = if x == 0.0 { f64::NEG_INFINITY } else { f64::NAN };
    let finite = if x > 0.0 { logarithm } else { at_most_zero };
    if x == f64::INFINITY { x } else { finite }
}

/// The natural logarithm, to 0.85 units of the last place.
#[inline(always)]
pub fn log(x: f64) -> f64 {
    where_finite(x, log_and(x, 0.0))
}

/// `log(1 + x)`, to 0.85 units of the last place: what the sum rounds away is the correction.
#[inline(always)]
pub fn log1p(x: f64) -> f64 {
    let sum = 1.0 + x;
    let added = sum - 1.0;
    let rounded = (1.0 - (sum - added)) + (x - added);
    where_finite(sum, log_and(sum, rounded / sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units of the last place, by the order of the bits.
    fn units(a: f64, b: f64) -> u64 {
        if a == b || (a.is_nan() && b.is_nan()) {
            return 0;
        }
        let place = |x: f64| match x.to_bits() as i64 {
            bits if bits < 0 => i64::MIN - bits,
            bits => bits,
        };
        place(a).abs_diff(place(b))
    }

    /// Every magnitude of f64 with a dense grid in it, both signs, and where the functions change.
    fn numbers() -> impl Iterator<Item = f64> {
        const STEPS: u64 = 61;
        let magnitudes = (0..2047 * STEPS).map(|i| f64::from_bits(i * ((1 << 52) / STEPS)));
        let near = (-75_000..75_000).map(|i| f64::from(i) / 99.7);
        let ends = [0.0, 1.0, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY, f64::NAN];
        let exponents = [709.78, 709.782_712_893_384, 709.79, 745.13, 745.133_219_101_941, 745.14];
        let all = magnitudes.chain(near).chain(ends).chain(exponents);
        all.flat_map(|x| [x, -x])
    }

    /// The library's exp and log are within 0.52 units, its expm1 and log1p within 1: a difference is a whole
    /// number of units, below the sum of both errors.
    #[test]
    fn as_the_library_has_them() {
        for x in numbers() {
            for (name, expected, got, bound) in [
                ("exp", x.exp(), exp(x), 1),
                ("expm1", x.exp_m1(), expm1(x), 2),
                ("log", x.ln(), log(x), 1),
                ("log1p", x.ln_1p(), log1p(x), 1),
            ] {
                assert!(units(expected, got) <= bound, "{name}({x:e}): {expected:e}, {got:e}");
            }
        }
    }

    #[test]
    fn exact_where_it_matters() {
        assert_eq!((exp(0.0), expm1(0.0), log(1.0), log1p(0.0)), (1.0, 0.0, 0.0, 0.0));
        assert_eq!((exp(f64::NEG_INFINITY), expm1(f64::NEG_INFINITY)), (0.0, -1.0));
        assert_eq!((log(0.0), log1p(-1.0)), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        assert!(log(-1.0).is_nan() && log1p(-1.5).is_nan());
    }
}
