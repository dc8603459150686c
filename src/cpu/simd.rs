//! Instruction sets: which one this processor has, and the row kernels compiled for each.
//!
//! The only file with `unsafe`. Two things need it: calling a function compiled for an instruction
//! set (sound because a [`Simd`] exists only for a set that was detected), and a few conversions that
//! the compiler does not find by itself. AVX2 and AVX-512 give the same bits: same lanes, same
//! order, both fused. The baseline differs on x86-64 (no FMA).

#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod isa;
mod level;

pub(crate) use isa::{Isa, Kernel};
pub use level::SimdLevel;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use crate::cpu::anchored::Anchored;
use crate::cpu::convert::Lanes;
#[cfg(target_arch = "x86_64")]
use crate::cpu::exp::Exponential;
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

    use std::arch::x86_64::{__m512bh, _mm512_cvtne2ps_pbh};
    use std::mem::transmute;

    use super::{Anchored, Exponential, HalfPeak, Isa, LANES, avx2, avx512, bf16, f16};

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

    /// As [`avx512::narrow_turns_bf16`] for numbers that are not subnormal.
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512bw")]
    fn normal_turns_bf16(even: avx512::Floats, odd: avx512::Floats) -> avx512::Halves {
        let halves = _mm512_cvtne2ps_pbh(odd, even);
        // SAFETY: both are 64 bytes without padding.
        avx512::in_turn(unsafe { transmute::<__m512bh, avx512::Halves>(halves) })
    }

    /// 64 lanes are `$floats` registers of f32, and `$halves` of 16 bits.
    macro_rules! by_register {
        ($set:ident, $registers:ident, $floats:literal, $halves:literal, $narrow_turns:path, $flushes:literal) => {
            impl Isa for $set {
                const FMA: bool = true;
                const BY_TABLE: bool = true;
                const FLUSHES: bool = $flushes;

                #[inline(always)]
                fn anchored<const SHORT: bool>(
                    self,
                    anchored: &Anchored,
                    x: &[f32; LANES],
                ) -> [f32; LANES] {
                    // SAFETY: `self` proves the set; for the transmutes see the module.
                    unsafe {
                        let table: $registers::Table = transmute(anchored.table);
                        let mut x: [$registers::Floats; $floats] = transmute(*x);
                        for x in &mut x {
                            *x = $registers::anchored::<SHORT>(*x, table, anchored);
                        }
                        transmute(x)
                    }
                }

                #[inline(always)]
                fn add_anchored(
                    self,
                    anchored: &Anchored,
                    x: &[f32; LANES],
                    sums: &mut [f32; LANES],
                ) -> [f32; LANES] {
                    // SAFETY: as above.
                    unsafe {
                        let table: $registers::Table = transmute(anchored.table);
                        let mut x: [$registers::Floats; $floats] = transmute(*x);
                        let mut added: [$registers::Floats; $floats] = transmute(*sums);
                        for part in 0..$floats {
                            let columns = (x[part], added[part]);
                            [x[part], added[part]] =
                                $registers::add_anchored(columns, table, anchored);
                        }
                        *sums = transmute::<[$registers::Floats; $floats], [f32; LANES]>(added);
                        transmute(x)
                    }
                }

                #[inline(always)]
                fn add_pair(
                    self,
                    exponentials: [Exponential; 2],
                    ratio: f32,
                    [x, others]: [&[f32; LANES]; 2],
                    sums: &mut [[f32; LANES / 2]; 3],
                ) -> [[f32; LANES]; 2] {
                    let anchored =
                        [Anchored::at_zero(exponentials[0]), Anchored::at_zero(exponentials[1])];
                    let [ours, theirs] = &anchored;
                    // SAFETY: as above.
                    unsafe {
                        let table: $registers::Table = transmute(ours.table);
                        let mut x: [$registers::Floats; $floats] = transmute(*x);
                        let mut others: [$registers::Floats; $floats] = transmute(*others);
                        let mut added: [[$registers::Floats; $floats / 2]; 3] = transmute(*sums);
                        for part in 0..$floats {
                            let columns = [x[part], others[part]];
                            let at = part % ($floats / 2);
                            let before = [added[0][at], added[1][at], added[2][at]];
                            let (values, after) = $registers::add_pair(
                                columns,
                                before,
                                (table, ratio),
                                [ours, theirs],
                            );
                            [x[part], others[part]] = values;
                            [added[0][at], added[1][at], added[2][at]] = after;
                        }
                        *sums = transmute::<
                            [[$registers::Floats; $floats / 2]; 3],
                            [[f32; LANES / 2]; 3],
                        >(added);
                        transmute::<[[$registers::Floats; $floats]; 2], [[f32; LANES]; 2]>([
                            x, others,
                        ])
                    }
                }

                #[inline(always)]
                fn raised(self, peak: HalfPeak, bits: &[u16; LANES]) -> HalfPeak {
                    // SAFETY: as above.
                    unsafe {
                        let bits: [$registers::Halves; $halves] = transmute(*bits);
                        let mut signed: [$registers::Halves; $halves] = transmute(peak.signed);
                        let mut unsigned: [$registers::Halves; $halves] = transmute(peak.unsigned);
                        for part in 0..$halves {
                            signed[part] = $registers::larger(signed[part], bits[part]);
                            unsigned[part] = $registers::smaller(unsigned[part], bits[part]);
                        }
                        HalfPeak {
                            signed: transmute::<[$registers::Halves; $halves], [i16; LANES]>(
                                signed,
                            ),
                            unsigned: transmute::<[$registers::Halves; $halves], [u16; LANES]>(
                                unsigned,
                            ),
                        }
                    }
                }

                #[inline(always)]
                fn unordered_bf16(self, lanes: &[bf16; LANES]) -> [f32; LANES] {
                    // SAFETY: as above.
                    unsafe {
                        let pairs: [$registers::Halves; $halves] = transmute(*lanes);
                        let mut values: [[$registers::Floats; $halves]; 2] =
                            transmute([0.0_f32; LANES]);
                        for part in 0..$halves {
                            values[0][part] = $registers::even(pairs[part]);
                            values[1][part] = $registers::odd(pairs[part]);
                        }
                        transmute(values)
                    }
                }

                #[inline(always)]
                fn narrow_unordered_bf16(self, values: &[f32; LANES]) -> [bf16; LANES] {
                    // SAFETY: as above.
                    unsafe {
                        let [even, odd]: [[$registers::Floats; $halves]; 2] = transmute(*values);
                        let mut lanes: [$registers::Halves; $halves] = transmute([0_u16; LANES]);
                        for part in 0..$halves {
                            lanes[part] = $narrow_turns(even[part], odd[part]);
                        }
                        transmute(lanes)
                    }
                }

                #[inline(always)]
                fn narrow_bf16(self, values: &[f32; LANES]) -> [bf16; LANES] {
                    // SAFETY: as above.
                    unsafe {
                        let values: [[$registers::Floats; 2]; $halves] = transmute(*values);
                        let mut lanes: [$registers::Halves; $halves] = transmute([0_u16; LANES]);
                        for part in 0..$halves {
                            let [low, high] = values[part];
                            lanes[part] = $registers::narrow_bf16(low, high);
                        }
                        transmute(lanes)
                    }
                }

                #[inline(always)]
                fn widen_f16(self, lanes: &[f16; LANES]) -> [f32; LANES] {
                    // SAFETY: as above.
                    unsafe {
                        let halves: [$registers::F16; $floats] = transmute(*lanes);
                        let mut values: [$registers::Floats; $floats] = transmute([0.0_f32; LANES]);
                        for part in 0..$floats {
                            values[part] = $registers::widen_f16(halves[part]);
                        }
                        transmute(values)
                    }
                }

                #[inline(always)]
                fn narrow_f16(self, values: &[f32; LANES]) -> [f16; LANES] {
                    // SAFETY: as above.
                    unsafe {
                        let values: [$registers::Floats; $floats] = transmute(*values);
                        let mut halves: [$registers::F16; $floats] = transmute([0_u16; LANES]);
                        for part in 0..$floats {
                            halves[part] = $registers::narrow_f16(values[part]);
                        }
                        transmute(halves)
                    }
                }
            }
        };
    }

    by_register!(Avx2, avx2, 8, 4, avx2::narrow_turns_bf16, false);
    by_register!(Avx512, avx512, 4, 2, avx512::narrow_turns_bf16, false);
    by_register!(Avx512Bf16, avx512, 4, 2, normal_turns_bf16, true);
}

/// Kernels compiled for one instruction set.
macro_rules! instantiate {
    ($run:ident, $features:literal, $isa:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        fn $run<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: running this function at all needs the instruction set.
            kernel.run(x86::$isa(unsafe { x86::Detected::new() }))
        }
    };
}

instantiate!(run_avx2, "avx2,fma,f16c", Avx2);
instantiate!(run_avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c", Avx512);
instantiate!(
    run_avx512_bf16,
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

    /// Whether exponentials are by a table, and those of [`Anchored`] cost no more.
    pub fn has_table(self) -> bool {
        self.0 != SimdLevel::Baseline
    }

    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: a `Simd` of this level exists only if `available` said that the processor has
            // these features.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => unsafe { run_avx2(kernel) },
            _ => kernel.run(Baseline(())),
        }
    }

    /// The same bits for a kernel that stores no subnormal numbers; those of bf16 by AVX-512's conversion where there
    /// is one, an eighth less time for stage 4.
    pub fn store_normal<E: Lanes, K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if E::IS_BF16 && self.0 == SimdLevel::Avx512 && is_x86_feature_detected!("avx512bf16") {
            // SAFETY: as above, and the conversion has just been detected.
            return unsafe { run_avx512_bf16(kernel) };
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
