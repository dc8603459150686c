//! f32, f16 and bf16 to f32 and back, in branch-free integer arithmetic that vectorises.
//!
//! `half`'s own conversions branch on NaN or call out to a detected instruction per element, and so
//! keep a loop scalar. These give the same bits as `half` for every input (`cargo xtask exhaustive`).

use half::{bf16, f16};

use crate::cpu::peak::{HalfPeak, Peak};
use crate::cpu::rows::LANES;
use crate::cpu::simd::Isa;

/// A logit as it lies in memory.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    /// Pads the tail of a row: adds nothing to a sum of exponentials.
    const NEG_INFINITY: Self;
    const IS_BF16: bool = false;
    type Peak: Peak<Self>;
    /// The exact value.
    fn load(self) -> f32;
    /// The nearest value, ties to even; NaN stays NaN.
    fn store(value: f32) -> Self;

    /// [`load`](Self::load) of every lane, by an instruction where the set has one that gives the
    /// same numbers.
    #[inline(always)]
    fn load_lanes<I: Isa>(_isa: I, lanes: &[Self; LANES]) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            values[lane] = lanes[lane].load();
        }
        values
    }

    /// The same in an order of the type's own, for sums and what else does not ask which column is which.
    #[inline(always)]
    fn load_unordered<I: Isa>(isa: I, lanes: &[Self; LANES]) -> [f32; LANES] {
        Self::load_lanes(isa, lanes)
    }

    /// [`store`](Self::store) of every lane. Any NaN must have a zero low half, see
    /// [`Isa::narrow_bf16`].
    #[inline(always)]
    fn store_lanes<I: Isa>(_isa: I, values: &[f32; LANES]) -> [Self; LANES] {
        let mut lanes = [Self::NEG_INFINITY; LANES];
        for lane in 0..LANES {
            lanes[lane] = Self::store(values[lane]);
        }
        lanes
    }

    /// The same from the order of [`load_unordered`](Self::load_unordered).
    #[inline(always)]
    fn store_unordered<I: Isa>(isa: I, values: &[f32; LANES]) -> [Self; LANES] {
        Self::store_lanes(isa, values)
    }
}

impl Lanes for f32 {
    const NEG_INFINITY: Self = f32::NEG_INFINITY;
    type Peak = [f32; LANES];

    #[inline(always)]
    fn load(self) -> f32 {
        self
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        value
    }
}

impl Lanes for bf16 {
    const NEG_INFINITY: Self = bf16::NEG_INFINITY;
    const IS_BF16: bool = true;
    type Peak = HalfPeak;

    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// AVX-512's own conversion flushes subnormal values to zero, see [`Simd::store_normal`].
    ///
    /// [`Simd::store_normal`]: crate::cpu::simd::Simd::store_normal
    #[inline(always)]
    fn store(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet = (bits >> 16) | 0x40;
        bf16::from_bits(if value.is_nan() { quiet } else { rounded } as u16)
    }

    #[inline(always)]
    fn load_unordered<I: Isa>(isa: I, lanes: &[Self; LANES]) -> [f32; LANES] {
        isa.unordered_bf16(lanes)
    }

    #[inline(always)]
    fn store_lanes<I: Isa>(isa: I, values: &[f32; LANES]) -> [Self; LANES] {
        isa.narrow_bf16(values)
    }

    #[inline(always)]
    fn store_unordered<I: Isa>(isa: I, values: &[f32; LANES]) -> [Self; LANES] {
        isa.narrow_unordered_bf16(values)
    }
}

/// Exponent difference between the two formats, in f32's exponent position.
const REBIAS: u32 = (127 - 15) << 23;

impl Lanes for f16 {
    const NEG_INFINITY: Self = f16::NEG_INFINITY;
    type Peak = HalfPeak;

    /// Rebias the exponent as an integer. Infinity and NaN need the rebias twice. A subnormal gets
    /// an exponent one too high, i.e. an implicit leading one of 2^-14, which is subtracted again.
    /// (The shorter form that multiplies by 2^112 has subnormal f32 operands, each a microcode
    /// assist.)
    #[inline(always)]
    fn load(self) -> f32 {
        let half_bits = u32::from(self.to_bits());
        let sign = (half_bits & 0x8000) << 16;
        let magnitude = (half_bits & 0x7fff) << 13;
        let rebiased = magnitude + REBIAS;
        let special = rebiased + REBIAS;
        let subnormal =
            (f32::from_bits(rebiased + (1 << 23)) - f32::from_bits(113 << 23)).to_bits();
        let number = if magnitude < (1 << 23) { subnormal } else { rebiased };
        let bits = if magnitude >= (0x1f << 23) { special } else { number };
        // `half` quietens a signalling NaN.
        let quiet = if magnitude > (0x1f << 23) { 1 << 22 } else { 0 };
        f32::from_bits(bits | sign | quiet)
    }

    /// Normal results round as integers; a subnormal result rounds in the addition of 0.5, whose
    /// last bit is 2^-24, the smallest f16. From 65520 on the result is infinite.
    #[inline(always)]
    fn store(value: f32) -> Self {
        let bits = value.to_bits();
        let sign = (bits >> 16) & 0x8000;
        let magnitude = bits & 0x7fff_ffff;
        let rounded =
            magnitude.wrapping_sub(REBIAS).wrapping_add(0xfff + ((magnitude >> 13) & 1)) >> 13;
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let number = if magnitude < (113 << 23) { subnormal } else { rounded };
        let finite = if magnitude >= 0x477f_f000 { 0x7c00 } else { number };
        let nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
        let result = if value.is_nan() { nan } else { finite };
        f16::from_bits((result | sign) as u16)
    }

    #[inline(always)]
    fn load_lanes<I: Isa>(isa: I, lanes: &[Self; LANES]) -> [f32; LANES] {
        isa.widen_f16(lanes)
    }

    #[inline(always)]
    fn store_lanes<I: Isa>(isa: I, values: &[f32; LANES]) -> [Self; LANES] {
        isa.narrow_f16(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_exact_for_every_value() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert_eq!(half.load().to_bits(), half.to_f32().to_bits(), "f16 {bits:#06x}");
            assert_eq!(
                brain.load().to_f64_bits(),
                brain.to_f32().to_f64_bits(),
                "bf16 {bits:#06x}"
            );
        }
    }

    /// Bits, with NaN as one value: `half` quietens a signalling bf16 NaN, a shift does not.
    trait ToBits {
        fn to_f64_bits(self) -> u64;
    }

    impl ToBits for f32 {
        fn to_f64_bits(self) -> u64 {
            if self.is_nan() { u64::MAX } else { f64::from(self).to_bits() }
        }
    }

    fn check_store(bits: u32) {
        let value = f32::from_bits(bits);
        assert_eq!(f16::store(value).to_bits(), f16::from_f32(value).to_bits(), "f16 {bits:#010x}");
        assert_eq!(
            bf16::store(value).to_bits(),
            bf16::from_f32(value).to_bits(),
            "bf16 {bits:#010x}"
        );
    }

    #[test]
    fn stores_round_to_nearest_even() {
        // Every rounding boundary (a tie and its neighbours) of both formats, and a prime stride
        // over all of f32.
        for high in 0..=u16::MAX {
            let bits = u32::from(high) << 16;
            for low in [
                0, 1, 0xfff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x3001, 0x7fff, 0x8000, 0x8001, 0xffff,
            ] {
                check_store(bits | low);
            }
        }
        for bits in (0..=u32::MAX).step_by(1009) {
            check_store(bits);
        }
    }

    #[test]
    #[ignore = "all 2^32 inputs: seconds in release, minutes without optimisation"]
    fn stores_round_to_nearest_even_for_every_f32() {
        for bits in 0..=u32::MAX {
            check_store(bits);
        }
    }
}
