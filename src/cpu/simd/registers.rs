//! What is computed register by register on x86-64: no loop over lanes that the compiler finds a form for by itself
//! is as good.

use std::arch::x86_64::*;

use crate::cpu::anchored::{Anchored, SQUARE};
use crate::cpu::exp::CUBIC;

/// The parts of [`Anchored`]: which lanes are not 0, 2^(k/16), and 2^f as `q f + 1`. A register holds half of the
/// table, and the fourth bit of k says which.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn anchored_8<const NARROW: bool>(
    x: __m256,
    [first, second]: [__m256; 2],
    anchored: &Anchored,
) -> (__m256, [__m256; 3]) {
    let (round, high) = (_mm256_set1_ps(anchored.round), _mm256_set1_ps(anchored.high));
    let shifted = _mm256_fmadd_ps(x, high, round);
    // Exact but for its last rounding, which is that of a number below 1/32.
    let f = _mm256_fmsub_ps(x, high, _mm256_sub_ps(shifted, round));
    let (f, q) = if NARROW {
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

/// The same.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn anchored_16<const NARROW: bool>(
    x: __m512,
    table: __m512i,
    anchored: &Anchored,
) -> (__mmask16, [__m512; 3]) {
    let (round, high) = (_mm512_set1_ps(anchored.round), _mm512_set1_ps(anchored.high));
    let shifted = _mm512_fmadd_ps(x, high, round);
    // Exact but for its last rounding, which is that of a number below 1/32.
    let f = _mm512_fmsub_ps(x, high, _mm512_sub_ps(shifted, round));
    let (f, q) = if NARROW {
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
    let power = _mm512_castsi512_ps(power);
    // Not less, so that NaN takes the product.
    let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(shifted, _mm512_set1_ps(anchored.least));
    (kept, [power, q, f])
}

/// bf16 in the high halves, made by the same arithmetic as the scalar `store`; the shift keeps
/// the sign, so that a saturating pack of signed numbers leaves the value alone.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn round_8(values: __m256) -> __m256i {
    let bits = _mm256_castps_si256(values);
    let last = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let increment = _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff));
    _mm256_srai_epi32::<16>(_mm256_add_epi32(bits, increment))
}

/// The same with a test of the last bit in place of its arithmetic, and without the shift.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn round_16(values: __m512) -> __m512i {
    let bits = _mm512_castps_si512(values);
    let is_odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(1 << 16));
    let rounded = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    _mm512_mask_add_epi32(rounded, is_odd, rounded, _mm512_set1_epi32(1))
}
