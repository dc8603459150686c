//! The forward KL of small probabilities straight from the logits, where student and teacher are of one type: two
//! exponentials a column and little else. Rows that are widened to blocks first take half as long again.

use std::ops::Range;

use super::columns::Pair;
use crate::cpu::anchored::Anchored;
use crate::cpu::blocks::{Row, RowMut};
use crate::cpu::convert::Lanes;
use crate::cpu::places::{self, InPlace, Place, Read};
use crate::cpu::rows::{LANES, fused, padded, tree_sum};
use crate::cpu::simd::{Isa, Kernel, Simd};
use crate::cpu::softmax::Softmax;
use crate::cpu::student::Student;

/// Student and teacher of a row, both of one type.
pub(super) struct Direct {
    simd: Simd,
    pair: Pair,
    log_ratios: LogRatios,
    /// q and p, times `scale`.
    probabilities: [Anchored; 2],
    /// A power of two, so that the divergence has the same bits with every factor.
    scale: f64,
    /// What a gradient is to be multiplied by besides; where one is asked for.
    factor: Option<f32>,
    /// Whether every block is flat.
    is_flat: bool,
}

/// Factors of the gradient between the inverse of this and this leave it the digits, and the probabilities that count
/// in the divergence: those below 2^-126 of it are 0.
const LARGEST: f64 = 1e6;

impl Direct {
    /// None where exponentials are not by the table, or logits too far from 0.
    pub fn new(
        simd: Simd,
        (pair, rows): (Pair, &[Softmax; 2]),
        is_narrow: bool,
        factor: Option<f64>,
    ) -> Option<Self> {
        let all = factor.unwrap_or(1.0);
        if !simd.has_table() || !(1.0 / LARGEST..LARGEST).contains(&all.abs()) {
            return None;
        }
        let scale = all.abs().log2().floor().exp2();
        let anchored = |row: &Softmax| {
            let near = (row.inverse_temperature(), row.scale().maximum);
            Anchored::times(is_narrow, near, scale * (-row.log_sum()).exp())
        };
        let probabilities = [anchored(&rows[0])?, anchored(&rows[1])?];
        let is_flat = pair.is_flat(rows.each_ref().map(|row| row.scale().maximum));
        let factor = factor.map(|factor| (factor / scale) as f32);
        let log_ratios = LogRatios::new(rows);
        Some(Self { simd, pair, log_ratios, probabilities, scale, factor, is_flat })
    }

    /// The divergence of a block, with its gradient where one is asked for; None if the block is not flat or student
    /// and teacher not as they have to be.
    pub fn block(
        &self,
        student: &mut Student<'_>,
        teacher: Row<'_>,
        range: Range<usize>,
    ) -> Option<f64> {
        let largest = |row: Row<'_>| row.largest(self.simd, range.clone());
        if !self.is_flat && !self.pair.is_flat([student.logits(), teacher].map(largest)) {
            return None;
        }
        macro_rules! each_type {
            ($($type:ident),*) => {
                match (student, teacher, self.factor) {
                    $(
                        (Student::InPlace(RowMut::$type(x)), Row::$type(t), Some(factor)) => {
                            self.run(InPlace(&mut x[range.clone()]), &t[range], factor)
                        }
                        (
                            Student::Apart { logits: Row::$type(x), grads: RowMut::$type(dx), add: false },
                            Row::$type(t),
                            Some(factor),
                        ) => {
                            let place = places::Apart::new(&x[range.clone()], &mut dx[range.clone()]);
                            self.run(place, &t[range], factor)
                        }
                        (
                            Student::Values(Row::$type(x)) | Student::Apart { logits: Row::$type(x), .. },
                            Row::$type(t),
                            None,
                        ) => self.run(Read(&x[range.clone()]), &t[range], 1.0),
                        (Student::InPlace(RowMut::$type(x)), Row::$type(t), None) => {
                            self.run(Read(&x[range.clone()]), &t[range], 1.0)
                        }
                    )*
                    _ => return None,
                }
            };
        }
        Some(each_type!(F32, F16, BF16))
    }

    fn run<E: Lanes>(&self, place: impl Place<E>, teacher: &[E], factor: f32) -> f64 {
        let Self { probabilities, log_ratios, .. } = self;
        let columns = Columns { probabilities, place, teacher, factor };
        let sum = match *log_ratios {
            LogRatios::Together(ratios) => {
                self.simd.store_normal::<E, _>(ForwardKl { columns, ratios })
            }
            LogRatios::Apart(ratios) => {
                self.simd.store_normal::<E, _>(ForwardKl { columns, ratios })
            }
        };
        sum / self.scale
    }
}

/// How `log p - log q` is computed.
enum LogRatios {
    Together(Together),
    Apart(Apart),
}

trait LogRatio: Copy {
    fn of<I: Isa>(self, student: f32, teacher: f32) -> f32;
}

/// Of a difference of logits.
#[derive(Clone, Copy)]
struct Together {
    inverse_temperature: f32,
    /// What it is where the logits are equal.
    apart: f32,
}

impl LogRatio for Together {
    #[inline(always)]
    fn of<I: Isa>(self, student: f32, teacher: f32) -> f32 {
        fused::<I>(teacher - student, self.inverse_temperature, self.apart)
    }
}

/// Of each one's distance from its maximum.
#[derive(Clone, Copy)]
struct Apart {
    maxima: [f32; 2],
    inverse_temperatures: [f32; 2],
    /// What it is at the maxima.
    apart: f32,
}

impl LogRatio for Apart {
    #[inline(always)]
    fn of<I: Isa>(self, student: f32, teacher: f32) -> f32 {
        let Self { maxima: [maximum, teachers], inverse_temperatures: [ours, theirs], apart } =
            self;
        fused::<I>(teacher - teachers, theirs, fused::<I>(maximum - student, ours, apart))
    }
}

/// An `apart` up to this rounds to no more than the logarithms of probabilities do.
const NEAR: f64 = 4.0;

impl LogRatios {
    fn new([student, teacher]: &[Softmax; 2]) -> Self {
        let apart = student.log_sum() - teacher.log_sum();
        let maxima = [student, teacher].map(|row| row.scale().maximum);
        let inverse_temperatures = [student, teacher].map(Softmax::inverse_temperature);
        let [inverse, others] = inverse_temperatures;
        let together = apart + inverse * (f64::from(maxima[0]) - f64::from(maxima[1]));
        if inverse == others && together.abs() < NEAR {
            return Self::Together(Together {
                inverse_temperature: inverse as f32,
                apart: together as f32,
            });
        }
        let inverse_temperatures = inverse_temperatures.map(|inverse| inverse as f32);
        Self::Apart(Apart { maxima, inverse_temperatures, apart: apart as f32 })
    }
}

struct Columns<'a, E, P> {
    probabilities: &'a [Anchored; 2],
    place: P,
    teacher: &'a [E],
    factor: f32,
}

struct ForwardKl<'a, E, P, R> {
    columns: Columns<'a, E, P>,
    ratios: R,
}

impl<E: Lanes, P: Place<E>, R: LogRatio> ForwardKl<'_, E, P, R> {
    /// The gradient of some columns, whose divergence is added.
    #[inline(always)]
    fn lanes<I: Isa>(
        &self,
        isa: I,
        [student, teacher]: [&[E; LANES]; 2],
        sums: &mut [f32; LANES],
    ) -> [E; LANES] {
        let (student, teacher) = (E::load_unordered(isa, student), E::load_unordered(isa, teacher));
        let [q, p] = self.columns.probabilities;
        let q = q.lanes::<E, I>(isa, &student);
        let mut log_ratios = [0.0; LANES];
        for lane in 0..LANES {
            log_ratios[lane] = self.ratios.of::<I>(student[lane], teacher[lane]);
        }
        let others = [&q, &log_ratios];
        let mut gradient = match E::IS_NARROW {
            true => isa.add_forward_kl::<true>(p, &teacher, others, sums),
            false => isa.add_forward_kl::<false>(p, &teacher, others, sums),
        };
        for value in &mut gradient {
            // What is stored as bf16 may not be subnormal: with one test of its bits, a difference below 2^-125 is 0.
            let is_small = E::IS_NARROW && value.to_bits() & 0x7f00_0000 == 0;
            *value = if is_small { 0.0 } else { *value * self.columns.factor };
        }
        E::store_unordered(isa, &gradient)
    }
}

impl<E: Lanes, P: Place<E>, R: LogRatio> Kernel for ForwardKl<'_, E, P, R> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) -> f64 {
        let mut sums = [0.0; LANES];
        let (chunks, tail) = self.columns.teacher.as_chunks::<LANES>();
        for (chunk, teacher) in chunks.iter().enumerate() {
            self.columns.place.prefetch(isa, chunk);
            isa.prefetch_ahead(teacher);
            let gradient = self.lanes(isa, [self.columns.place.chunk(chunk), teacher], &mut sums);
            self.columns.place.put(chunk, &gradient);
        }
        if let Some(last) = self.columns.place.last() {
            let gradient = self.lanes(isa, [&last, &padded(tail)], &mut sums);
            self.columns.place.put_last(&gradient);
        }
        tree_sum(sums)
    }
}
