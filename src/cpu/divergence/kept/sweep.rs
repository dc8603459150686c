//! The first sweep of a block: its exponentials, where there is memory for them, and its sums.

use super::Rows;
use super::multiples::{Behind, Owed, Put, Sides};
use crate::cpu::blocks::Chunk;
use crate::cpu::convert::Lanes;
use crate::cpu::exp::{EXP_CUTOFF, Exponential};
use crate::cpu::peak::Peak;
use crate::cpu::places::{AddTo, InPlace};
use crate::cpu::rows::{FAR, GROUP, LANES, Scale, estimate, fused, padded, tree_sum};
use crate::cpu::simd::{Isa, Kernel, Simd};
use crate::cpu::state::BlockState;

/// Of a block, of student and teacher.
#[derive(Clone, Copy)]
pub(super) struct Swept {
    pub estimates: [f32; 2],
    pub maxima: [f32; 2],
    pub sums: [f64; 2],
    /// sum e z T, where moments are asked for.
    weighted: [f64; 2],
    /// sum e' d
    pub log_ratios: f64,
}

impl Swept {
    pub fn state(&self, side: usize, inverse_temperature: f64) -> BlockState {
        let (maximum, sum) = (self.maxima[side], self.sums[side]);
        let above = self.above(side, inverse_temperature);
        let factor = (-above).exp();
        let weighted = factor * (self.weighted[side] * inverse_temperature - above * sum);
        BlockState { maximum, excess: factor * sum - 1.0, weighted, squares: 0.0 }
    }

    /// z of the maximum from the estimate.
    fn above(&self, side: usize, inverse_temperature: f64) -> f64 {
        (f64::from(self.maxima[side]) - f64::from(self.estimates[side])) * inverse_temperature
    }

    /// Whether all is as it has to be.
    pub fn is_good(&self, inverse_temperatures: [f64; 2]) -> bool {
        [0, 1].into_iter().all(|side| {
            self.sums[side].is_finite() && self.above(side, inverse_temperatures[side]) <= FAR
        }) && !self.log_ratios.is_nan()
    }
}

/// The first sweep of a block, and the gradient of the token behind, whose exponentials are where these will be kept.
pub(super) fn sweep<E: Lanes>(
    simd: Simd,
    rows: &Rows<'_>,
    columns: [&[E]; 2],
    (to, behind): (&mut [Sides], Option<Owed<'_, E>>),
) -> Swept {
    match rows.moments.contains(&true) {
        true => with::<E, true>(simd, rows, columns, (to, behind)),
        false => with::<E, false>(simd, rows, columns, (to, behind)),
    }
}

fn with<E: Lanes, const MOMENTS: bool>(
    simd: Simd,
    rows: &Rows<'_>,
    columns: [&[E]; 2],
    (to, behind): (&mut [Sides], Option<Owed<'_, E>>),
) -> Swept {
    let exponentials = rows.inverse_temperatures.map(Exponential::new);
    let of = (columns, exponentials, rows.ratio(), to);
    let Some(Owed { multiples, grads, add }) = behind else {
        return simd.run(Sweep::<_, _, MOMENTS>::new(of, ()));
    };
    match add {
        true => simd.run(Sweep::<_, _, MOMENTS>::new(of, Put(multiples, AddTo(grads)))),
        false => {
            let put = Put(multiples, InPlace(grads));
            simd.store_normal::<E, _>(Sweep::<_, _, MOMENTS>::new(of, put))
        }
    }
}

struct Sweep<'a, E, B, const MOMENTS: bool> {
    columns: [&'a [E]; 2],
    exponentials: [Exponential; 2],
    /// Of the student's 1/T to the teacher's.
    ratio: f32,
    to: &'a mut [Sides],
    behind: B,
}

impl<'a, E, B, const MOMENTS: bool> Sweep<'a, E, B, MOMENTS> {
    fn new(
        (columns, exponentials, ratio, to): ([&'a [E]; 2], [Exponential; 2], f32, &'a mut [Sides]),
        behind: B,
    ) -> Self {
        Self { columns, exponentials, ratio, to, behind }
    }
}

struct Sums<const MOMENTS: bool> {
    /// Of exponentials, and of the teacher's times differences.
    plain: [[f32; LANES / 2]; 3],
    weighted: [Chunk; 2],
}

impl<const MOMENTS: bool> Sums<MOMENTS> {
    #[inline(always)]
    fn new() -> Self {
        Self { plain: [[0.0; LANES / 2]; 3], weighted: [[0.0; LANES]; 2] }
    }

    #[inline(always)]
    fn add_sums(&mut self, other: &Self) {
        for sum in 0..3 {
            for lane in 0..LANES / 2 {
                self.plain[sum][lane] += other.plain[sum][lane];
            }
        }
        if MOMENTS {
            for side in 0..2 {
                for lane in 0..LANES {
                    self.weighted[side][lane] += other.weighted[side][lane];
                }
            }
        }
    }

    #[inline(always)]
    fn add<E: Lanes, I: Isa>(
        &mut self,
        isa: I,
        columns: [&[E; LANES]; 2],
        scales: [Scale; 2],
        ratio: f32,
    ) -> Sides {
        let student = scales[0].differences(&E::load_unordered(isa, columns[0]));
        let teacher = scales[1].differences(&E::load_unordered(isa, columns[1]));
        let exponentials = [scales[0].exponential, scales[1].exponential];
        let [q, p] = isa.add_pair(exponentials, ratio, [&student, &teacher], &mut self.plain);
        if MOMENTS {
            self.add_moments::<I>([&student, &teacher], [&q, &p], scales);
        }
        Sides([q, p])
    }

    #[inline(always)]
    fn add_moments<I: Isa>(
        &mut self,
        differences: [&Chunk; 2],
        exponentials: [&Chunk; 2],
        scales: [Scale; 2],
    ) {
        for side in 0..2 {
            let least = EXP_CUTOFF / scales[side].exponential.inverse_temperature;
            for lane in 0..LANES {
                let difference = differences[side][lane];
                let finite = if difference > least { difference } else { least };
                self.weighted[side][lane] =
                    fused::<I>(exponentials[side][lane], finite, self.weighted[side][lane]);
            }
        }
    }
}

impl<E: Lanes, B: Behind<E>, const MOMENTS: bool> Kernel for Sweep<'_, E, B, MOMENTS> {
    type Output = Swept;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Swept {
        let Self {
            columns: [student, teacher],
            exponentials: [ours, theirs],
            ratio,
            to,
            mut behind,
        } = self;
        let estimates = [estimate(isa, student), estimate(isa, teacher)];
        let scales = [
            Scale { maximum: estimates[0], exponential: ours },
            Scale { maximum: estimates[1], exponential: theirs },
        ];
        let mut peaks = [E::Peak::NONE; 2];
        let mut sums = Sums::<MOMENTS>::new();
        let ((student, last), (teacher, teachers_last)) =
            (student.as_chunks::<LANES>(), teacher.as_chunks::<LANES>());
        let mut first = 0;
        while first < student.len() {
            let mut group = Sums::<MOMENTS>::new();
            let end = if first + GROUP < student.len() { first + GROUP } else { student.len() };
            for chunk in first..end {
                let columns = [&student[chunk], &teacher[chunk]];
                isa.prefetch_ahead(columns[0]);
                isa.prefetch_ahead(columns[1]);
                let sides = group.add(isa, columns, scales, ratio);
                if let Some(to) = to.get_mut(chunk) {
                    behind.put(isa, chunk, to);
                    *to = sides;
                }
            }
            for chunk in first..end {
                peaks[0].raise(isa, &student[chunk]);
                peaks[1].raise(isa, &teacher[chunk]);
            }
            sums.add_sums(&group);
            first = end;
        }
        if !last.is_empty() {
            let columns = [&padded(last), &padded(teachers_last)];
            peaks[0].raise(isa, columns[0]);
            peaks[1].raise(isa, columns[1]);
            let sides = sums.add(isa, columns, scales, ratio);
            if let Some(to) = to.get_mut(student.len()) {
                behind.put_last(isa, to);
                *to = sides;
            }
        }
        let Sums { plain, weighted } = sums;
        Swept {
            estimates,
            maxima: [peaks[0].value(), peaks[1].value()],
            sums: [tree_sum(plain[0]), tree_sum(plain[1])],
            weighted: match MOMENTS {
                true => [tree_sum(weighted[0]), tree_sum(weighted[1])],
                false => [0.0; 2],
            },
            log_ratios: tree_sum(plain[2]),
        }
    }
}
