//! What a pass cannot be faster than, on the threads and with the instructions that it has: its bytes moved
//! once, and its exponentials in registers. For the benches.

use rayon::prelude::*;

use super::Cpu;
use super::exp::Exponential;
use super::rows::LANES;
use super::simd::{Isa, Kernel};

/// Bytes that one step moves: lanes of f32.
const STEP: usize = 4 * LANES;

impl Cpu {
    /// Reads every byte, in tasks of `row` bytes.
    #[doc(hidden)]
    pub fn floor_read(&self, bytes: &[u8], row: usize) -> u8 {
        let rows = bytes.par_chunks(row).map(|row| self.simd.run(Read(row)));
        rows.reduce(|| 0, |a, b| a ^ b)
    }

    /// Reads every byte and writes another in its place, likewise; a second time restores them.
    #[doc(hidden)]
    pub fn floor_update(&self, bytes: &mut [u8], row: usize) {
        bytes.par_chunks_mut(row).for_each(|row| self.simd.run(Update(row)));
    }

    /// `tasks` times that many exponentials, and their sum.
    #[doc(hidden)]
    pub fn floor_exponentials(&self, tasks: usize, count: usize) -> f32 {
        (0..tasks).into_par_iter().map(|_| self.simd.run(Exponentials(count / LANES))).sum()
    }
}

struct Read<'a>(&'a [u8]);

impl Kernel for Read<'_> {
    type Output = u8;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u8 {
        let mut all = [0; STEP];
        let (steps, rest) = self.0.as_chunks::<STEP>();
        for step in steps {
            isa.prefetch_ahead::<[u8; 4]>(bytemuck::cast_ref(step));
            for byte in 0..STEP {
                all[byte] ^= step[byte];
            }
        }
        all.iter().chain(rest).fold(0, |a, b| a ^ b)
    }
}

struct Update<'a>(&'a mut [u8]);

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (steps, rest) = self.0.as_chunks_mut::<STEP>();
        for step in steps {
            isa.prefetch_ahead::<[u8; 4]>(bytemuck::cast_ref(step));
            for byte in step {
                *byte ^= 1;
            }
        }
        for byte in rest {
            *byte ^= 1;
        }
    }
}

struct Exponentials(usize);

impl Kernel for Exponentials {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let exponential = Exponential::new(1.0);
        let mut x: [f32; LANES] = std::array::from_fn(|lane| -0.3 * lane as f32);
        let mut sums = [0.0; LANES];
        for _ in 0..self.0 {
            let exponentials = exponential.of(isa, &x);
            for lane in 0..LANES {
                sums[lane] += exponentials[lane];
                // So that no two steps are the same.
                x[lane] -= 1e-4;
            }
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_what_it_is_measured_for() {
        let cpu = Cpu::new();
        let mut bytes: Vec<u8> = (0..1000_u32).map(|index| (index * 37) as u8).collect();
        let before = bytes.clone();
        assert_eq!(cpu.floor_read(&bytes, 300), bytes.iter().fold(0, |a, b| a ^ b));
        cpu.floor_update(&mut bytes, 300);
        assert!(before.iter().zip(&bytes).all(|(a, b)| a ^ b == 1));
        // Two tasks of two steps of exp(-0.3 lane), the second a little further.
        let step: f64 = (0..LANES).map(|lane| (-0.3 * lane as f64).exp()).sum();
        let sum = f64::from(cpu.floor_exponentials(2, 2 * LANES));
        assert!((sum / (2.0 * step * (1.0 + (-1e-4_f64).exp())) - 1.0).abs() < 1e-6, "{sum}");
    }
}
