//! What is computed register by register with AVX-512, as with AVX2 and to the same bits.

use std::arch::x86_64::*;

use crate::cpu::anchored::{Anchored, SQUARE};
use crate::cpu::exp::CUBIC;

pub(super) type Floats = __m512;
/// Twice as many columns of 16 bits.
pub(super) type Halves = __m512i;
/// As many columns of f16.
pub(super) type F16 = __m256i;
/// Of [`Anchored`].
pub(super) type Table = __m512i;

/// Which lanes are not 0, 2^(k/16), and 2^f as `q f + 1`.
#[inline]
#[target_feature(enable = "avx512f")]
fn parts<const SHORT: bool>(
    x: __m512,
    table: Table,
    anchored: &Anchored,
) -> (__mmask16, [__m512; 3]) {
    let (round, high) = (_mm512_set1_ps(anchored.round), _mm512_set1_ps(anchored.high));
    let shifted = _mm512_fmadd_ps(x, high, round);
    // Exact but for its last rounding, which is that of a number below 1/32.
    let f = _mm512_fmsub_ps(x, high, _mm512_sub_ps(shifted, round));
    let (f, q) = if SHORT {
        let [square, linear] = SQUARE.map(|factor| _mm512_set1_ps(factor));
        (f, _mm512_fmadd_ps(square, f, linear))
    } else {
        let f = _mm512_fmadd_ps(x, _mm512_set1_ps(anchored.low), f);
        let [cubic, square, linear] = CUBIC.map(|factor| _mm512_set1_ps(factor));
        (f, _mm512_fmadd_ps(_mm512_fmadd_ps(cubic, f, square), f, linear))
    };
    let bits = _mm512_castps_si512(shifted);
    let power = _mm512_permutexvar_epi32(bits, table);
    let power = _mm512_add_epi32(power, _mm512_slli_epi32::<19>(bits));
    // Not less, so that NaN takes the product.
    let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(shifted, _mm512_set1_ps(anchored.least));
    (kept, [_mm512_castsi512_ps(power), q, f])
}

#[inline]
#[target_feature(enable = "avx512f")]
fn value(kept: __mmask16, [power, q, f]: [__m512; 3]) -> __m512 {
    _mm512_maskz_fmadd_ps(kept, power, _mm512_mul_ps(q, f), power)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn anchored<const SHORT: bool>(x: Floats, table: Table, anchored: &Anchored) -> Floats {
    let (kept, parts) = parts::<SHORT>(x, table, anchored);
    value(kept, parts)
}

/// The value, and the sum with it.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_anchored(
    (x, sum): (Floats, Floats),
    table: Table,
    anchored: &Anchored,
) -> [Floats; 2] {
    let (kept, [power, q, f]) = parts::<false>(x, table, anchored);
    let whole = _mm512_fmadd_ps(q, f, _mm512_set1_ps(1.0));
    [value(kept, [power, q, f]), _mm512_mask3_fmadd_ps(power, whole, sum, kept)]
}

/// [`Isa::add_pair`](super::Isa::add_pair).
#[inline]
#[target_feature(enable = "avx512f")]
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
    let difference = _mm512_fnmadd_ps(x, _mm512_set1_ps(ratio), other);
    let sums = [
        _mm512_add_ps(sum, q),
        _mm512_add_ps(others, p),
        _mm512_mask3_fmadd_ps(p, difference, log_ratios, kept),
    ];
    ([q, p], sums)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn even(pairs: Halves) -> Floats {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn odd(pairs: Halves) -> Floats {
    _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
}

#[inline]
#[target_feature(enable = "avx512bw")]
pub(super) fn larger(a: Halves, b: Halves) -> Halves {
    _mm512_max_epi16(a, b)
}

#[inline]
#[target_feature(enable = "avx512bw")]
pub(super) fn smaller(a: Halves, b: Halves) -> Halves {
    _mm512_min_epu16(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn widen_f16(halves: F16) -> Floats {
    _mm512_cvtph_ps(halves)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn narrow_f16(values: Floats) -> F16 {
    _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values)
}

/// bf16 in the high halves, made by the arithmetic of the scalar `store` with a test in place of that of the last bit.
#[inline]
#[target_feature(enable = "avx512f")]
fn round(values: __m512) -> __m512i {
    let bits = _mm512_castps_si512(values);
    let is_odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(1 << 16));
    let rounded = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    _mm512_mask_add_epi32(rounded, is_odd, rounded, _mm512_set1_epi32(1))
}

/// One after the other.
#[inline]
#[target_feature(enable = "avx512bw")]
pub(super) fn narrow_bf16(low: Floats, high: Floats) -> Halves {
    let high_halves = _mm512_set_epi16(
        63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19,
        17, 15, 13, 11, 9, 7, 5, 3, 1,
    );
    _mm512_permutex2var_epi16(round(low), high_halves, round(high))
}

/// In turn.
#[inline]
#[target_feature(enable = "avx512bw")]
pub(super) fn narrow_turns_bf16(even: Floats, odd: Floats) -> Halves {
    let low = _mm512_srli_epi32::<16>(round(even));
    _mm512_mask_blend_epi16(0xaaaa_aaaa, low, round(odd))
}

/// The columns of the lower half and of the upper one in turn.
#[inline]
#[target_feature(enable = "avx512bw")]
pub(super) fn in_turn(halves: Halves) -> Halves {
    let order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
        19, 3, 18, 2, 17, 1, 16, 0,
    );
    _mm512_permutexvar_epi16(order, halves)
}
