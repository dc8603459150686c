//! The forward KL of small probabilities straight from the logits, where student and teacher are of one type: two
//! exponentials a column and little else. Rows that are widened to blocks first take half as long again.

use std::ops::Range;

use super::columns::Pair;
use crate::cpu::anchored::Anchored;
use crate::cpu::blocks::{BLOCK, Row, RowMut};
use crate::cpu::convert::Lanes;
use crate::cpu::places::{Apart, InPlace, Place, Read};
use crate::cpu::rows::{LANES, fused, padded, tree_sum};
use crate::cpu::simd::{Isa, Kernel, Simd};
use crate::cpu::softmax::Softmax;
use crate::cpu::student::Student;

/// Student and teacher of a row, both of one type.
pub(super) struct Direct {
    simd: Simd,
    pair: Pair,
    log_ratios: LogRatios,
    /// q and p.
    probabilities: [Anchored; 2],
    /// Where a gradient is asked for.
    factor: Option<f32>,
    /// Whether every block is flat.
    is_flat: bool,
}

impl Direct {
    /// None where exponentials are not by the table, or no block of a row of so many columns is flat.
    pub fn new(
        simd: Simd,
        (pair, rows): (Pair, &[Softmax; 2]),
        (is_bf16, columns): (bool, usize),
        factor: Option<f64>,
    ) -> Option<Self> {
        let is_flat = pair.is_flat(rows.each_ref().map(|row| row.scale().maximum));
        // A factor that is subnormal leaves nothing.
        let factor = factor.map(|factor| factor as f32);
        let factor = factor.map(|factor| if factor.is_subnormal() { 0.0 } else { factor });
        let has_flat_block = is_flat || columns > BLOCK;
        if !simd.has_table() || !has_flat_block || factor.is_some_and(|factor| !factor.is_finite())
        {
            return None;
        }
        let anchored = |row: &Softmax| {
            Anchored::times(is_bf16, (row.inverse_temperature(), 0.0), (-row.log_sum()).exp())
        };
        let probabilities = [anchored(&rows[0])?, anchored(&rows[1])?];
        let log_ratios = LogRatios::new(rows);
        Some(Self { simd, pair, log_ratios, probabilities, factor, is_flat })
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
                match (student, teacher) {
                    $(
                        (Student::Values(Row::$type(x)), Row::$type(t)) => {
                            self.typed(Typed::Values(&x[range.clone()]), &t[range])
                        }
                        (Student::InPlace(RowMut::$type(x)), Row::$type(t)) => {
                            self.typed(Typed::InPlace(&mut x[range.clone()]), &t[range])
                        }
                        (
                            Student::Apart { logits: Row::$type(x), grads: RowMut::$type(dx), add },
                            Row::$type(t),
                        ) => {
                            let x = Typed::Apart(&x[range.clone()], &mut dx[range.clone()], *add);
                            self.typed(x, &t[range])
                        }
                    )*
                    _ => return None,
                }
            };
        }
        Some(each_type!(F32, F16, BF16))
    }

    fn typed<E: Lanes>(&self, columns: Typed<'_, E>, teacher: &[E]) -> f64 {
        let Some(factor) = self.factor else {
            return self.run(Read(columns.logits()), teacher, 1.0);
        };
        match columns {
            Typed::Values(x) => self.run(Read(x), teacher, factor),
            Typed::InPlace(x) => self.run(InPlace(x), teacher, factor),
            Typed::Apart(x, dx, false) => self.run(Apart::<_, false>::new(x, dx), teacher, factor),
            Typed::Apart(x, dx, true) => self.run(Apart::<_, true>::new(x, dx), teacher, factor),
        }
    }

    fn run<E: Lanes>(&self, place: impl Place<E>, teacher: &[E], factor: f32) -> f64 {
        let (maxima, probabilities) = (self.pair.maxima(), &self.probabilities);
        let columns = Columns { maxima, probabilities, place, teacher, factor };
        match self.log_ratios {
            LogRatios::OneTemperature(ratios) => run(self.simd, ForwardKl { columns, ratios }),
            LogRatios::TwoTemperatures(ratios) => run(self.simd, ForwardKl { columns, ratios }),
        }
    }
}

fn run<E: Lanes, P: Place<E>, R: LogRatio>(simd: Simd, kernel: ForwardKl<'_, E, P, R>) -> f64 {
    match P::ADDS {
        true => simd.run(kernel),
        false => simd.store_normal::<E, _>(kernel),
    }
}

/// Columns of a [`Student`].
enum Typed<'a, E> {
    Values(&'a [E]),
    InPlace(&'a mut [E]),
    /// And whether the gradient is added to what is there.
    Apart(&'a [E], &'a mut [E], bool),
}

impl<E> Typed<'_, E> {
    fn logits(&self) -> &[E] {
        match self {
            Self::Values(x) | Self::Apart(x, ..) => x,
            Self::InPlace(x) => x,
        }
    }
}

/// How `log p - log q` is computed from the distances of student and teacher from their maxima: of one temperature, it
/// is the same wherever the two are, whatever is added to the logits of one.
#[derive(Clone, Copy)]
enum LogRatios {
    OneTemperature(OfOneTemperature),
    TwoTemperatures(OfTwoTemperatures),
}

trait LogRatio: Copy {
    fn of<I: Isa>(self, student: f32, teacher: f32) -> f32;
}

#[derive(Clone, Copy)]
struct OfOneTemperature {
    inverse_temperature: f32,
    /// What it is at the maxima.
    there: f32,
}

impl LogRatio for OfOneTemperature {
    #[inline(always)]
    fn of<I: Isa>(self, student: f32, teacher: f32) -> f32 {
        fused::<I>(teacher - student, self.inverse_temperature, self.there)
    }
}

#[derive(Clone, Copy)]
struct OfTwoTemperatures {
    inverse_temperatures: [f32; 2],
    there: f32,
}

impl LogRatio for OfTwoTemperatures {
    #[inline(always)]
    fn of<I: Isa>(self, student: f32, teacher: f32) -> f32 {
        let [ours, theirs] = self.inverse_temperatures;
        fused::<I>(teacher, theirs, fused::<I>(-student, ours, self.there))
    }
}

impl LogRatios {
    fn new([student, teacher]: &[Softmax; 2]) -> Self {
        let there = (student.log_sum() - teacher.log_sum()) as f32;
        let inverse_temperatures = [student, teacher].map(|row| row.inverse_temperature() as f32);
        let [inverse_temperature, other] = inverse_temperatures;
        match inverse_temperature == other {
            true => Self::OneTemperature(OfOneTemperature { inverse_temperature, there }),
            false => Self::TwoTemperatures(OfTwoTemperatures { inverse_temperatures, there }),
        }
    }
}

struct Columns<'a, E, P> {
    maxima: [f32; 2],
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
    ) -> [f32; LANES] {
        let (mut student, mut teacher) =
            (E::load_unordered(isa, student), E::load_unordered(isa, teacher));
        let Columns { maxima: [maximum, teachers], probabilities: [q, p], .. } = self.columns;
        let mut log_ratios = [0.0; LANES];
        for lane in 0..LANES {
            student[lane] -= maximum;
            teacher[lane] -= teachers;
            log_ratios[lane] = self.ratios.of::<I>(student[lane], teacher[lane]);
        }
        let q = q.lanes::<E, I>(isa, &student);
        let others = [&q, &log_ratios];
        let mut gradient = match E::IS_BF16 {
            true => isa.add_forward_kl::<true>(p, &teacher, others, sums),
            false => isa.add_forward_kl::<false>(p, &teacher, others, sums),
        };
        for value in &mut gradient {
            *value *= self.columns.factor;
            // As the conversion does of itself where it may.
            if E::IS_BF16 && !I::FLUSHES && value.to_bits() & 0x7f80_0000 == 0 {
                *value = 0.0;
            }
        }
        gradient
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
            self.columns.place.put(isa, chunk, &gradient);
        }
        if let Some(last) = self.columns.place.last() {
            let gradient = self.lanes(isa, [&last, &padded(tail)], &mut sums);
            self.columns.place.put_last(isa, &gradient);
        }
        tree_sum(sums)
    }
}
