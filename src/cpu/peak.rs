//! The largest logit of some lanes, in as few operations as the type allows.

#![expect(
    clippy::needless_range_loop,
    reason = "one index over several lane arrays; the shape that vectorises"
)]

use half::{bf16, f16};

use crate::cpu::convert::Lanes;
use crate::cpu::rows::LANES;
use crate::cpu::simd::Isa;

/// The largest so far of each lane.
pub(crate) trait Peak<E>: Copy {
    const NONE: Self;

    fn raise<I: Isa>(&mut self, isa: I, chunk: &[E; LANES]);

    /// The largest of all, -inf where there are none. A NaN of f16 or bf16 may win.
    fn value(self) -> f32;
}

#[inline(always)]
fn largest<T: Copy>(mut lanes: [T; LANES], larger: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = larger(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// NaN never wins this comparison.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

impl Peak<f32> for [f32; LANES] {
    const NONE: Self = [f32::NEG_INFINITY; LANES];

    #[inline(always)]
    fn raise<I: Isa>(&mut self, _: I, chunk: &[f32; LANES]) {
        for lane in 0..LANES {
            self[lane] = larger(self[lane], chunk[lane]);
        }
    }

    #[inline(always)]
    fn value(self) -> f32 {
        largest(self, larger)
    }
}

/// Sign and magnitude as they are, twice as many to a register as widened: of numbers that are not all
/// negative the largest is the largest signed integer, of those that are it is the smallest unsigned one.
#[derive(Clone, Copy)]
pub(crate) struct HalfPeak {
    pub signed: [i16; LANES],
    pub unsigned: [u16; LANES],
}

impl HalfPeak {
    /// What every instruction set computes.
    #[inline(always)]
    pub fn raised(mut self, bits: &[u16; LANES]) -> Self {
        for lane in 0..LANES {
            self.signed[lane] = self.signed[lane].max(bits[lane] as i16);
            self.unsigned[lane] = self.unsigned[lane].min(bits[lane]);
        }
        self
    }
}

macro_rules! half_peak {
    ($type:ty) => {
        impl Peak<$type> for HalfPeak {
            const NONE: Self = {
                let lowest = <$type>::NEG_INFINITY.to_bits();
                Self { signed: [lowest as i16; LANES], unsigned: [lowest; LANES] }
            };

            #[inline(always)]
            fn raise<I: Isa>(&mut self, isa: I, chunk: &[$type; LANES]) {
                *self = isa.raised(*self, bytemuck::cast_ref(chunk));
            }

            #[inline(always)]
            fn value(self) -> f32 {
                let signed = largest(self.signed, i16::max);
                let bits =
                    if signed < 0 { largest(self.unsigned, u16::min) } else { signed as u16 };
                <$type>::from_bits(bits).load()
            }
        }
    };
}

half_peak!(f16);
half_peak!(bf16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::{Kernel, Simd, levels};

    struct Largest<'a, E>(&'a [E]);

    impl<E: Lanes> Kernel for Largest<'_, E> {
        type Output = f32;

        fn run<I: Isa>(self, isa: I) -> f32 {
            let mut peak = E::Peak::NONE;
            for (index, x) in self.0.iter().enumerate() {
                let mut chunk = [E::NEG_INFINITY; LANES];
                chunk[(17 * index) % LANES] = *x;
                peak.raise(isa, &chunk);
            }
            peak.value()
        }
    }

    fn of<E: Lanes>(simd: Simd, x: &[f32]) -> f32 {
        let x: Vec<E> = x.iter().map(|x| E::store(*x)).collect();
        simd.run(Largest(&x))
    }

    #[test]
    fn is_the_largest() {
        for simd in levels() {
            for of in [of::<f32>, of::<f16>, of::<bf16>] {
                for (x, largest) in [
                    (&[][..], f32::NEG_INFINITY),
                    (&[-3.0, -1.5, -2.0], -1.5),
                    (&[-3.0, 0.0, -2.0], 0.0),
                    (&[-3.0, -0.0, -2.0], 0.0),
                    (&[-3.0, 0.5, 2.0, -4.0], 2.0),
                    (&[1.0, f32::INFINITY], f32::INFINITY),
                    (&[f32::NEG_INFINITY, -65504.0], -65504.0),
                    (&[-1.0, -f32::NAN], -1.0),
                ] {
                    let got = of(simd, x);
                    assert!(got == largest || (got / largest - 1.0).abs() < 4e-3, "{x:?} {got}");
                }
            }
        }
    }
}
