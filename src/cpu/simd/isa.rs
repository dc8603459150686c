//! What an instruction set is to the kernels.

use half::{bf16, f16};

use super::{prefetch, prefetch_ahead};
use crate::cpu::anchored::Anchored;
use crate::cpu::convert::Lanes;
use crate::cpu::exp::Exponential;
use crate::cpu::peak::HalfPeak;
use crate::cpu::rows::{LANES, fused};

/// What the row kernels ask of an instruction set. A value of an implementing type is the proof
/// that the set is there: only the functions below, compiled for it, make one.
pub(crate) trait Isa: Copy {
    const FMA: bool;
    /// Whether exponentials are by the table; then those of [`Anchored`] cost no more.
    const BY_TABLE: bool = false;
    /// Whether subnormal numbers become 0 as bf16.
    const FLUSHES: bool = false;

    /// Asks for the memory [`PREFETCH_DISTANCE`] after `lanes`, which may lie beyond the tensor.
    #[inline(always)]
    fn prefetch_ahead<T>(self, lanes: &[T; LANES]) {
        prefetch_ahead(lanes);
    }

    /// Asks for the cache line of an address, which may lie beyond the tensor.
    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        prefetch(address);
    }

    /// [`Exponential::of`].
    #[inline(always)]
    fn exponentials(self, exponential: Exponential, x: &[f32; LANES]) -> [f32; LANES] {
        match Self::BY_TABLE {
            true => self.anchored::<false>(&Anchored::at_zero(exponential), x),
            false => exponential.by_polynomial::<Self>(x),
        }
    }

    /// [`Anchored::add`] for each lane, and the exponentials themselves.
    #[inline(always)]
    fn add_anchored(
        self,
        anchored: &Anchored,
        x: &[f32; LANES],
        sums: &mut [f32; LANES],
    ) -> [f32; LANES] {
        for lane in 0..LANES {
            sums[lane] = anchored.add(x[lane], sums[lane]);
        }
        self.anchored::<false>(anchored, x)
    }

    /// [`Anchored::of`] for each lane. The vector forms go one register after another: loops over all lanes hold
    /// more numbers than AVX2 has registers for, and loops over a few lanes the compiler takes apart before it
    /// vectorises (four times as slow).
    #[inline(always)]
    fn anchored<const SHORT: bool>(self, anchored: &Anchored, x: &[f32; LANES]) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            values[lane] = anchored.of::<SHORT>(x[lane]);
        }
        values
    }

    /// Exponentials of student and teacher, which are added to the first two sums; the third takes the teacher's times
    /// `x' - ratio x`, except where it is 0: the difference may be infinite or NaN there.
    #[inline(always)]
    fn add_pair(
        self,
        exponentials: [Exponential; 2],
        ratio: f32,
        columns: [&[f32; LANES]; 2],
        sums: &mut [[f32; LANES / 2]; 3],
    ) -> [[f32; LANES]; 2] {
        let q = exponentials[0].of(self, columns[0]);
        let p = exponentials[1].of(self, columns[1]);
        for lane in 0..LANES {
            let at = lane % (LANES / 2);
            sums[0][at] += q[lane];
            sums[1][at] += p[lane];
            let difference = fused::<Self>(-columns[0][lane], ratio, columns[1][lane]);
            let difference = if p[lane] == 0.0 { 0.0 } else { difference };
            sums[2][at] = fused::<Self>(p[lane], difference, sums[2][at]);
        }
        [q, p]
    }

    /// Even columns, then odd ones: one operation each, where two put them into order.
    #[inline(always)]
    fn unordered_bf16(self, lanes: &[bf16; LANES]) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        for lane in 0..LANES / 2 {
            values[lane] = lanes[2 * lane].load();
            values[LANES / 2 + lane] = lanes[2 * lane + 1].load();
        }
        values
    }

    /// [`HalfPeak::raised`]; as loops over lanes its maxima stay in memory.
    #[inline(always)]
    fn raised(self, peak: HalfPeak, bits: &[u16; LANES]) -> HalfPeak {
        peak.raised(bits)
    }

    #[inline(always)]
    fn widen_f16(self, lanes: &[f16; LANES]) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            values[lane] = lanes[lane].load();
        }
        values
    }

    #[inline(always)]
    fn narrow_f16(self, values: &[f32; LANES]) -> [f16; LANES] {
        let mut lanes = [f16::ZERO; LANES];
        for lane in 0..LANES {
            lanes[lane] = f16::store(values[lane]);
        }
        lanes
    }

    /// Rounds to nearest even. The low half of any NaN must be zero: the vector forms leave out the
    /// test for NaN (6 % of the gradient kernel with AVX-512, 20 % with AVX2), and a low half that
    /// rounds up could carry into the sign.
    #[inline(always)]
    fn narrow_bf16(self, values: &[f32; LANES]) -> [bf16; LANES] {
        let mut lanes = [bf16::ZERO; LANES];
        for lane in 0..LANES {
            lanes[lane] = bf16::store(values[lane]);
        }
        lanes
    }

    /// The same from the order of [`Isa::unordered_bf16`].
    #[inline(always)]
    fn narrow_unordered_bf16(self, values: &[f32; LANES]) -> [bf16; LANES] {
        let mut lanes = [bf16::ZERO; LANES];
        for lane in 0..LANES / 2 {
            lanes[2 * lane] = bf16::store(values[lane]);
            lanes[2 * lane + 1] = bf16::store(values[LANES / 2 + lane]);
        }
        lanes
    }
}

/// Code that is compiled for each instruction set as a whole.
pub(crate) trait Kernel {
    type Output;

    /// `#[inline(always)]`, like everything that it calls: what stays outlined is compiled for the baseline.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}
