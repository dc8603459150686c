//! Instruction sets: which one this processor has, and the row kernels compiled for each.
//!
//! The only file with `unsafe`. Two things need it: calling a function compiled for an instruction
//! set (sound because a [`Simd`] exists only for a set that was detected), and a few conversions that
//! the compiler does not find by itself. AVX2 and AVX-512 give the same bits: same lanes, same
//! order, both fused. The baseline differs on x86-64 (no FMA).

#![deny(unsafe_op_in_unsafe_fn)]

mod isa;
mod level;
#[cfg(target_arch = "x86_64")]
mod registers;

pub(crate) use isa::{Isa, Kernel};
pub use level::SimdLevel;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use crate::cpu::anchored::Anchored;
use crate::cpu::convert::Lanes;
#[cfg(target_arch = "x86_64")]
use crate::cpu::peak::HalfPeak;
use crate::cpu::rows::LANES;

/// Bytes. Of 1, 2, 4, 8 and 16 KiB this is the fastest for all three element types; 1 KiB costs f32
/// a third.
const PREFETCH_DISTANCE: usize = 4096;

/// Bytes.
pub(crate) const CACHE_LINE: usize = 64;

#[inline(always)]
fn prefetch_ahead<T>(lanes: &[T; LANES]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(lanes)).step_by(CACHE_LINE) {
        prefetch(lanes.as_ptr().wrapping_byte_add(PREFETCH_DISTANCE + line).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (lanes, PREFETCH_DISTANCE);
}

#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see and faults on no address; SSE
        // is x86-64's baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[derive(Clone, Copy)]
struct Baseline(());

impl Isa for Baseline {
    const FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! 64 lanes as arrays of registers. An array of lanes and one of registers have the same size
    //! and no padding, and any bits are valid in both, which is all that the transmutes between
    //! them need.

    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::registers::{anchored_8, anchored_16, round_8, round_16};
    use super::{Anchored, HalfPeak, Isa, LANES, bf16, f16};

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(pub(super) Detected);

    #[derive(Clone, Copy)]
    pub(super) struct Avx512(pub(super) Detected);

    /// With the conversion to bf16, for kernels that store no subnormal number, which it would make 0.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512Bf16(pub(super) Detected);

    /// Made inside functions compiled for the set, and nowhere else.
    #[derive(Clone, Copy)]
    pub(super) struct Detected(());

    impl Detected {
        /// # Safety
        /// The processor has the instruction set of the type that this goes into.
        #[inline(always)]
        pub(super) unsafe fn new() -> Self {
            Self(())
        }
    }

    /// 2 i + 1: the high halves of two registers' numbers, in order.
    const HIGH_HALVES: [u16; 32] = {
        let mut halves = [0; 32];
        let mut half = 0;
        while half < 32 {
            halves[half] = 2 * half as u16 + 1;
            half += 1;
        }
        halves
    };

    impl Isa for Avx2 {
        const FMA: bool = true;
        const BY_TABLE: bool = true;

        #[inline(always)]
        fn add_anchored(
            self,
            anchored: &Anchored,
            x: &[f32; LANES],
            sums: &mut [f32; LANES],
        ) -> [f32; LANES] {
            // SAFETY: as above.
            unsafe {
                let table: [__m256; 2] = transmute(anchored.table);
                let mut x: [__m256; 8] = transmute(*x);
                let mut added: [__m256; 8] = transmute(*sums);
                for part in 0..8 {
                    let (kept, [power, q, f]) = anchored_8::<false>(x[part], table, anchored);
                    let whole = _mm256_fmadd_ps(q, f, _mm256_set1_ps(1.0));
                    let sum = _mm256_fmadd_ps(power, whole, added[part]);
                    added[part] = _mm256_blendv_ps(added[part], sum, kept);
                    let value = _mm256_fmadd_ps(power, _mm256_mul_ps(q, f), power);
                    x[part] = _mm256_and_ps(kept, value);
                }
                *sums = transmute::<[__m256; 8], [f32; LANES]>(added);
                transmute(x)
            }
        }

        #[inline(always)]
        fn anchored<const NARROW: bool>(
            self,
            anchored: &Anchored,
            x: &[f32; LANES],
        ) -> [f32; LANES] {
            // SAFETY: as above.
            unsafe {
                let table: [__m256; 2] = transmute(anchored.table);
                let mut x: [__m256; 8] = transmute(*x);
                for part in &mut x {
                    let (kept, [power, q, f]) = anchored_8::<NARROW>(*part, table, anchored);
                    let value = _mm256_fmadd_ps(power, _mm256_mul_ps(q, f), power);
                    *part = _mm256_and_ps(kept, value);
                }
                transmute(x)
            }
        }

        #[inline(always)]
        fn unordered_bf16(self, lanes: &[bf16; LANES]) -> [f32; LANES] {
            // SAFETY: as above.
            unsafe {
                let pairs: [__m256i; 4] = transmute(*lanes);
                let mut halves = [[_mm256_setzero_si256(); 4]; 2];
                for part in 0..4 {
                    let odd = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                    halves[0][part] = _mm256_slli_epi32::<16>(pairs[part]);
                    halves[1][part] = _mm256_and_si256(pairs[part], odd);
                }
                transmute(halves)
            }
        }

        #[inline(always)]
        fn raised(self, peak: HalfPeak, bits: &[u16; LANES]) -> HalfPeak {
            // SAFETY: `self` proves AVX2; for the transmutes see the module.
            unsafe {
                let bits: [__m256i; 4] = transmute(*bits);
                let mut signed: [__m256i; 4] = transmute(peak.signed);
                let mut unsigned: [__m256i; 4] = transmute(peak.unsigned);
                for part in 0..4 {
                    signed[part] = _mm256_max_epi16(signed[part], bits[part]);
                    unsigned[part] = _mm256_min_epu16(unsigned[part], bits[part]);
                }
                HalfPeak {
                    signed: transmute::<[__m256i; 4], [i16; LANES]>(signed),
                    unsigned: transmute::<[__m256i; 4], [u16; LANES]>(unsigned),
                }
            }
        }

        #[inline(always)]
        fn widen_f16(self, lanes: &[f16; LANES]) -> [f32; LANES] {
            // SAFETY: `self` proves AVX2 and F16C; for the transmutes see the module.
            unsafe {
                let halves: [__m128i; 8] = transmute(*lanes);
                let mut values = [_mm256_setzero_ps(); 8];
                for part in 0..8 {
                    values[part] = _mm256_cvtph_ps(halves[part]);
                }
                transmute(values)
            }
        }

        #[inline(always)]
        fn narrow_f16(self, values: &[f32; LANES]) -> [f16; LANES] {
            // SAFETY: as above.
            unsafe {
                let values: [__m256; 8] = transmute(*values);
                let mut halves = [_mm_setzero_si128(); 8];
                for part in 0..8 {
                    halves[part] = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values[part]);
                }
                transmute(halves)
            }
        }

        /// The compiler narrows 16 lanes by way of four 128-bit halves (14 % of the gradient
        /// kernel).
        #[inline(always)]
        fn narrow_bf16(self, values: &[f32; LANES]) -> [bf16; LANES] {
            // SAFETY: as above.
            unsafe {
                let values: [__m256; 8] = transmute(*values);
                let mut packed = [_mm256_setzero_si256(); 4];
                for part in 0..4 {
                    let pair = _mm256_packs_epi32(
                        round_8(values[2 * part]),
                        round_8(values[2 * part + 1]),
                    );
                    // The pack works inside 128-bit halves: quarters 0 2 1 3 restore the order.
                    packed[part] = _mm256_permute4x64_epi64::<0b11_01_10_00>(pair);
                }
                transmute(packed)
            }
        }
    }

    impl Isa for Avx512 {
        const FMA: bool = true;
        const BY_TABLE: bool = true;

        #[inline(always)]
        fn add_anchored(
            self,
            anchored: &Anchored,
            x: &[f32; LANES],
            sums: &mut [f32; LANES],
        ) -> [f32; LANES] {
            // SAFETY: as above.
            unsafe {
                let table: __m512i = transmute(anchored.table);
                let mut x: [__m512; 4] = transmute(*x);
                let mut added: [__m512; 4] = transmute(*sums);
                for part in 0..4 {
                    let (kept, [power, q, f]) = anchored_16::<false>(x[part], table, anchored);
                    let whole = _mm512_fmadd_ps(q, f, _mm512_set1_ps(1.0));
                    added[part] = _mm512_mask3_fmadd_ps(power, whole, added[part], kept);
                    x[part] = _mm512_maskz_fmadd_ps(kept, power, _mm512_mul_ps(q, f), power);
                }
                *sums = transmute::<[__m512; 4], [f32; LANES]>(added);
                transmute(x)
            }
        }

        #[inline(always)]
        fn anchored<const NARROW: bool>(
            self,
            anchored: &Anchored,
            x: &[f32; LANES],
        ) -> [f32; LANES] {
            // SAFETY: as above.
            unsafe {
                let table: __m512i = transmute(anchored.table);
                let mut x: [__m512; 4] = transmute(*x);
                for part in &mut x {
                    let (kept, [power, q, f]) = anchored_16::<NARROW>(*part, table, anchored);
                    *part = _mm512_maskz_fmadd_ps(kept, power, _mm512_mul_ps(q, f), power);
                }
                transmute(x)
            }
        }

        #[inline(always)]
        fn unordered_bf16(self, lanes: &[bf16; LANES]) -> [f32; LANES] {
            // SAFETY: as above.
            unsafe {
                let pairs: [__m512i; 2] = transmute(*lanes);
                let mut halves = [[_mm512_setzero_si512(); 2]; 2];
                for part in 0..2 {
                    let odd = _mm512_set1_epi32(0xffff_0000_u32 as i32);
                    halves[0][part] = _mm512_slli_epi32::<16>(pairs[part]);
                    halves[1][part] = _mm512_and_si512(pairs[part], odd);
                }
                transmute(halves)
            }
        }

        #[inline(always)]
        fn raised(self, peak: HalfPeak, bits: &[u16; LANES]) -> HalfPeak {
            // SAFETY: `self` proves AVX-512BW; for the transmutes see the module.
            unsafe {
                let bits: [__m512i; 2] = transmute(*bits);
                let mut signed: [__m512i; 2] = transmute(peak.signed);
                let mut unsigned: [__m512i; 2] = transmute(peak.unsigned);
                for part in 0..2 {
                    signed[part] = _mm512_max_epi16(signed[part], bits[part]);
                    unsigned[part] = _mm512_min_epu16(unsigned[part], bits[part]);
                }
                HalfPeak {
                    signed: transmute::<[__m512i; 2], [i16; LANES]>(signed),
                    unsigned: transmute::<[__m512i; 2], [u16; LANES]>(unsigned),
                }
            }
        }

        #[inline(always)]
        fn widen_f16(self, lanes: &[f16; LANES]) -> [f32; LANES] {
            // SAFETY: `self` proves AVX-512F; for the transmutes see the module.
            unsafe {
                let halves: [__m256i; 4] = transmute(*lanes);
                let mut values = [_mm512_setzero_ps(); 4];
                for part in 0..4 {
                    values[part] = _mm512_cvtph_ps(halves[part]);
                }
                transmute(values)
            }
        }

        #[inline(always)]
        fn narrow_f16(self, values: &[f32; LANES]) -> [f16; LANES] {
            // SAFETY: as above.
            unsafe {
                let values: [__m512; 4] = transmute(*values);
                let mut halves = [_mm256_setzero_si256(); 4];
                for part in 0..4 {
                    halves[part] = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values[part]);
                }
                transmute(halves)
            }
        }

        #[inline(always)]
        fn narrow_bf16(self, values: &[f32; LANES]) -> [bf16; LANES] {
            // SAFETY: `self` proves AVX-512F and BW; for the transmutes see the module.
            unsafe {
                let values: [__m512; 4] = transmute(*values);
                let order: __m512i = transmute(HIGH_HALVES);
                let mut packed = [_mm512_setzero_si512(); 2];
                for part in 0..2 {
                    let [low, high] = [0, 1].map(|half| round_16(values[2 * part + half]));
                    packed[part] = _mm512_permutex2var_epi16(low, order, high);
                }
                transmute(packed)
            }
        }
    }

    impl Isa for Avx512Bf16 {
        const FMA: bool = true;
        const BY_TABLE: bool = true;

        #[inline(always)]
        fn anchored<const NARROW: bool>(
            self,
            anchored: &Anchored,
            x: &[f32; LANES],
        ) -> [f32; LANES] {
            Avx512(self.0).anchored::<NARROW>(anchored, x)
        }

        #[inline(always)]
        fn narrow_bf16(self, values: &[f32; LANES]) -> [bf16; LANES] {
            // SAFETY: `self` proves AVX-512 BF16; for the transmutes see the module.
            unsafe {
                let values: [__m512; 4] = transmute(*values);
                let low = _mm512_cvtne2ps_pbh(values[1], values[0]);
                transmute([low, _mm512_cvtne2ps_pbh(values[3], values[2])])
            }
        }
    }
}

/// Kernels compiled for one instruction set.
macro_rules! instantiate {
    ($module:ident, $features:literal, $isa:ident) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            use super::Kernel;
            use super::x86::{Detected, $isa};

            #[target_feature(enable = $features)]
            pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
                // SAFETY: running this function at all needs the instruction set.
                kernel.run($isa(unsafe { Detected::new() }))
            }
        }
    };
}

instantiate!(avx2, "avx2,fma,f16c", Avx2);
instantiate!(avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c", Avx512);
instantiate!(
    avx512_bf16,
    "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c",
    Avx512Bf16
);

/// An instruction set that this processor has, and the row kernels on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Simd(SimdLevel);

impl Simd {
    /// `None` if the processor does not have it.
    pub fn new(level: SimdLevel) -> Option<Self> {
        level.available().then_some(Self(level))
    }

    pub fn best() -> Self {
        Self(SimdLevel::best())
    }

    pub fn level(self) -> SimdLevel {
        self.0
    }

    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: a `Simd` of this level exists only if `available` said that the processor has
            // these features.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => unsafe { avx512::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => unsafe { avx2::run(kernel) },
            _ => kernel.run(Baseline(())),
        }
    }

    /// The same bits for a kernel that stores no subnormal numbers; those of bf16 by AVX-512's conversion where there
    /// is one, an eighth less time for stage 4.
    pub fn store_normal<E: Lanes, K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if E::IS_BF16 && self.0 == SimdLevel::Avx512 && is_x86_feature_detected!("avx512bf16") {
            // SAFETY: as above, and the conversion has just been detected.
            return unsafe { avx512_bf16::run(kernel) };
        }
        self.run(kernel)
    }
}

/// Those that this processor has.
#[cfg(test)]
pub(crate) fn levels() -> impl Iterator<Item = Simd> {
    SimdLevel::ALL.into_iter().filter_map(Simd::new)
}

#[cfg(test)]
mod tests;
