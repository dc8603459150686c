//! What is computed register by register with AVX2: no loop over lanes that the compiler finds a form for by itself is
//! as good.

use std::arch::x86_64::*;

use crate::cpu::anchored::{Anchored, SQUARE};
use crate::cpu::exp::CUBIC;

pub(super) type Floats = __m256;
/// Twice as many columns of 16 bits.
pub(super) type Halves = __m256i;
/// As many columns of f16.
pub(super) type F16 = __m128i;
/// Of [`Anchored`]: a register holds half of it, and the fourth bit of k says which.
pub(super) type Table = [__m256; 2];

/// Which lanes are not 0, 2^(k/16), and 2^f as `q f + 1`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn parts<const SHORT: bool>(
    x: __m256,
    [first, second]: Table,
    anchored: &Anchored,
) -> (__m256, [__m256; 3]) {
    let (round, high) = (_mm256_set1_ps(anchored.round), _mm256_set1_ps(anchored.high));
    let shifted = _mm256_fmadd_ps(x, high, round);
    // Exact but for its last rounding, which is that of a number below 1/32.
    let f = _mm256_fmsub_ps(x, high, _mm256_sub_ps(shifted, round));
    let (f, q) = if SHORT {
        let [square, linear] = SQUARE.map(|factor| _mm256_set1_ps(factor));
        (f, _mm256_fmadd_ps(square, f, linear))
    } else {
        let f = _mm256_fmadd_ps(x, _mm256_set1_ps(anchored.low), f);
        let [cubic, square, linear] = CUBIC.map(|factor| _mm256_set1_ps(factor));
        (f, _mm256_fmadd_ps(_mm256_fmadd_ps(cubic, f, square), f, linear))
    };
    let bits = _mm256_castps_si256(shifted);
    let half = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(bits));
    let first = _mm256_permutevar8x32_ps(first, bits);
    let second = _mm256_permutevar8x32_ps(second, bits);
    let power = _mm256_castps_si256(_mm256_blendv_ps(first, second, half));
    let power = _mm256_add_epi32(power, _mm256_slli_epi32::<19>(bits));
    // Not less, so that NaN takes the product.
    let kept = _mm256_cmp_ps::<_CMP_NLT_UQ>(shifted, _mm256_set1_ps(anchored.least));
    (kept, [_mm256_castsi256_ps(power), q, f])
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn value(kept: __m256, [power, q, f]: [__m256; 3]) -> __m256 {
    _mm256_and_ps(kept, _mm256_fmadd_ps(power, _mm256_mul_ps(q, f), power))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn anchored<const SHORT: bool>(x: Floats, table: Table, anchored: &Anchored) -> Floats {
    let (kept, parts) = parts::<SHORT>(x, table, anchored);
    value(kept, parts)
}

/// The value, and the sum with it.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_anchored(
    (x, sum): (Floats, Floats),
    table: Table,
    anchored: &Anchored,
) -> [Floats; 2] {
    let (kept, [power, q, f]) = parts::<false>(x, table, anchored);
    let added = _mm256_fmadd_ps(power, _mm256_fmadd_ps(q, f, _mm256_set1_ps(1.0)), sum);
    [value(kept, [power, q, f]), _mm256_blendv_ps(sum, added, kept)]
}

/// [`Isa::add_pair`](super::Isa::add_pair).
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_pair(
    [x, other]: [Floats; 2],
    [sum, others, log_ratios]: [Floats; 3],
    (table, ratio): (Table, f32),
    [ours, theirs]: [&Anchored; 2],
) -> ([Floats; 2], [Floats; 3]) {
    let (kept, parts_of_x) = parts::<false>(x, table, ours);
    let q = value(kept, parts_of_x);
    let (kept, parts_of_other) = parts::<false>(other, table, theirs);
    let p = value(kept, parts_of_other);
    let difference = _mm256_fnmadd_ps(x, _mm256_set1_ps(ratio), other);
    let sums = [
        _mm256_add_ps(sum, q),
        _mm256_add_ps(others, p),
        _mm256_fmadd_ps(p, _mm256_and_ps(kept, difference), log_ratios),
    ];
    ([q, p], sums)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn even(pairs: Halves) -> Floats {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn odd(pairs: Halves) -> Floats {
    _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32)))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn larger(a: Halves, b: Halves) -> Halves {
    _mm256_max_epi16(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn smaller(a: Halves, b: Halves) -> Halves {
    _mm256_min_epu16(a, b)
}

#[inline]
#[target_feature(enable = "f16c")]
pub(super) fn widen_f16(halves: F16) -> Floats {
    _mm256_cvtph_ps(halves)
}

#[inline]
#[target_feature(enable = "f16c")]
pub(super) fn narrow_f16(values: Floats) -> F16 {
    _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values)
}

/// bf16 in the high halves, made by the same arithmetic as the scalar `store`.
#[inline]
#[target_feature(enable = "avx2")]
fn round(values: __m256) -> __m256i {
    let bits = _mm256_castps_si256(values);
    let last = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let increment = _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff));
    _mm256_add_epi32(bits, increment)
}

/// One after the other. The compiler narrows 16 lanes by way of four 128-bit halves (14 % of the gradient kernel).
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn narrow_bf16(low: Floats, high: Floats) -> Halves {
    // The shifts keep the sign, so that a saturating pack of signed numbers leaves the value alone.
    let (low, high) = (_mm256_srai_epi32::<16>(round(low)), _mm256_srai_epi32::<16>(round(high)));
    // The pack works inside 128-bit halves: quarters 0 2 1 3 restore the order.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high))
}

/// In turn.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn narrow_turns_bf16(even: Floats, odd: Floats) -> Halves {
    let low = _mm256_srli_epi32::<16>(round(even));
    _mm256_blend_epi16::<0b1010_1010>(low, round(odd))
}
