//! The forward KL of a row whose exponentials are kept from its first sweep, where student and teacher are of one type:
//! two exponentials a column in all, and without a gradient one sweep. The second has `q - p` by two products.
//! (Exponentials of the logits once more, and nothing kept, take a sixth longer with rows of 151936 bf16, whose
//! exponentials a second-level cache of 2 MiB shares with what streams by, and half as long again with rows of 37984.)
//!
//! With e the exponentials of distances from an estimate of a block's maxima, and S and T the sums of the student's and
//! the teacher's, `q = a e` and `p = b e'` with factors of the block. Its part of the divergence is
//! `sum p log(p/q) + q - p = b (R + c T) + a S - b T`, where R is `sum e' d` with d the difference of the distances, and
//! c the logarithm of p/q where both are at the estimates. R and c T take from each other what is alike in student and
//! teacher no more than the differences of their logits do.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use super::columns::Pair;
use crate::cpu::blocks::{Chunk, Row, RowMut};
use crate::cpu::convert::Lanes;
use crate::cpu::exp::{EXP_CUTOFF, Exponential};
use crate::cpu::peak::Peak;
use crate::cpu::places::{AddTo, InPlace, Place};
use crate::cpu::rows::{BLOCK, FAR, GROUP, LANES, Scale, estimate, fused, padded, tree_sum};
use crate::cpu::simd::{Isa, Kernel, Simd};
use crate::cpu::softmax::Softmax;
use crate::cpu::state::{BlockState, RowBlocks};

/// Blocks of a row that are kept: exponentials of 262144 columns are 2 MiB, and no more is asked of a thread.
const MOST_BLOCKS: usize = 64;

/// Blocks without a larger probability go by kept exponentials. Their q - p is known to two ulps of the larger one, 2^-24
/// at most; where one is more likely, the others are to have digits of the difference itself.
const LIKELY: f32 = 0.25;

/// Quotients of the temperatures between the inverse of this and this leave log-ratios their place in an f32.
const MOST_APART: f32 = 1e6;

/// Exponentials of student and teacher.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Sides([Chunk; 2]);

/// What is kept of a row.
#[derive(Default)]
pub(super) struct Kept {
    exponentials: Vec<Sides>,
    blocks: Vec<Option<Swept>>,
}

/// Of a block, of student and teacher.
#[derive(Clone, Copy)]
struct Swept {
    estimates: [f32; 2],
    maxima: [f32; 2],
    sums: [f64; 2],
    /// sum e z T, where moments are asked for.
    weighted: [f64; 2],
    /// sum e' d
    log_ratios: f64,
}

impl Swept {
    fn state(&self, side: usize, inverse_temperature: f64) -> BlockState {
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
    fn is_good(&self, inverse_temperatures: [f64; 2]) -> bool {
        [0, 1].into_iter().all(|side| {
            self.sums[side].is_finite() && self.above(side, inverse_temperatures[side]) <= FAR
        }) && !self.log_ratios.is_nan()
    }
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// Student and teacher of a token.
pub(super) struct Rows<'a> {
    pub logits: [Row<'a>; 2],
    /// Those that count, the first.
    pub columns: usize,
    pub inverse_temperatures: [f64; 2],
    /// Whose moments are asked for.
    pub moments: [bool; 2],
}

impl Rows<'_> {
    /// Of the student's 1/T to the teacher's.
    fn ratio(&self) -> f32 {
        (self.inverse_temperatures[0] / self.inverse_temperatures[1]) as f32
    }
}

impl Kept {
    /// Lends the thread's own.
    pub fn with<T>(body: impl FnOnce(&mut Self) -> T) -> T {
        KEPT.with_borrow_mut(body)
    }

    /// The first sweep of a row, whose exponentials are kept for a gradient; None if the two are not of one type, or
    /// their temperatures too far apart.
    pub fn sweep(&mut self, simd: Simd, rows: &Rows<'_>, keep: bool) -> Option<[Softmax; 2]> {
        self.blocks.clear();
        if !(1.0 / MOST_APART..MOST_APART).contains(&rows.ratio()) {
            return None;
        }
        macro_rules! each_type {
            ($($type:ident),*) => {
                match rows.logits {
                    $([Row::$type(x), Row::$type(t)] => {
                        let columns = [&x[..rows.columns], &t[..rows.columns]];
                        Some(self.typed(simd, (rows, keep), columns))
                    })*
                    _ => None,
                }
            };
        }
        each_type!(F32, F16, BF16)
    }

    fn typed<E: Lanes>(
        &mut self,
        simd: Simd,
        (rows, keep): (&Rows<'_>, bool),
        [student, teacher]: [&[E]; 2],
    ) -> [Softmax; 2] {
        let Rows { inverse_temperatures, moments, .. } = *rows;
        let kept = if keep { student.len().min(MOST_BLOCKS * BLOCK).div_ceil(LANES) } else { 0 };
        if self.exponentials.len() < kept {
            self.exponentials.resize(kept, Sides([[0.0; LANES]; 2]));
        }
        let mut room = self.exponentials[..kept].chunks_mut(BLOCK / LANES);
        let mut states = inverse_temperatures.map(RowBlocks::new);
        for (block, (x, t)) in student.chunks(BLOCK).zip(teacher.chunks(BLOCK)).enumerate() {
            let (columns, to) = ([x, t], room.next().unwrap_or_default());
            let swept = (block < MOST_BLOCKS).then(|| sweep(simd, rows, columns, to));
            let swept = swept.filter(|swept| swept.is_good(inverse_temperatures));
            for side in [0, 1] {
                let of = (inverse_temperatures[side], moments[side]);
                states[side].push(match swept {
                    Some(swept) => swept.state(side, of.0),
                    None => simd.block_state(columns[side], of),
                });
            }
            if block < MOST_BLOCKS {
                self.blocks.push(swept);
            }
        }
        let rows = [student, teacher];
        [0, 1].map(|side| Softmax::of_state(&simd.merged(rows[side], states[side], moments[side])))
    }
}

fn sweep<E: Lanes>(simd: Simd, rows: &Rows<'_>, columns: [&[E]; 2], to: &mut [Sides]) -> Swept {
    let exponentials = rows.inverse_temperatures.map(Exponential::new);
    let ratio = rows.ratio();
    match rows.moments.contains(&true) {
        true => simd.run(Sweep::<_, true> { columns, exponentials, ratio, to }),
        false => simd.run(Sweep::<_, false> { columns, exponentials, ratio, to }),
    }
}

/// The second sweep, of a row whose sums are known.
pub(super) struct Second<'k> {
    simd: Simd,
    kept: &'k Kept,
    pair: Pair,
    rows: [Softmax; 2],
    /// What a gradient is multiplied by.
    factor: Option<f64>,
}

impl<'k> Second<'k> {
    pub fn new(
        simd: Simd,
        kept: &'k Kept,
        (pair, rows): (Pair, [Softmax; 2]),
        factor: Option<f64>,
    ) -> Self {
        Self { simd, kept, pair, rows, factor }
    }

    /// The columns of every block.
    pub fn blocks(&self, columns: usize) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let starts = (0..columns).step_by(BLOCK);
        starts.map(move |start| start..columns.min(start + BLOCK)).enumerate()
    }

    /// The sums of a block, if they are known and no column is too likely.
    fn swept(&self, block: usize) -> Option<&Swept> {
        let swept = self.kept.blocks.get(block)?.as_ref()?;
        (self.pair.likeliest(swept.maxima) < LIKELY.ln()).then_some(swept)
    }

    /// The divergence of a block, where its exponentials were kept or could have been.
    pub fn divergence(&self, block: usize) -> Option<f64> {
        let swept = self.swept(block)?;
        let logs = [0, 1].map(|side| self.log_factor(swept, side));
        let [q, p] = logs.map(f64::exp);
        let [student, teacher] = swept.sums;
        let log_ratios = swept.log_ratios * self.rows[1].inverse_temperature();
        Some(p * (log_ratios + (logs[1] - logs[0]) * teacher) + (q * student - p * teacher))
    }

    /// The log-prob at the estimate.
    fn log_factor(&self, swept: &Swept, side: usize) -> f64 {
        let row = &self.rows[side];
        let below = f64::from(swept.estimates[side]) - f64::from(row.scale().maximum);
        below * row.inverse_temperature() - row.log_sum()
    }

    /// Writes the gradient of a block, or adds it; whether that could be done.
    pub fn gradient(
        &self,
        block: usize,
        columns: Range<usize>,
        (grads, add): (&mut RowMut<'_>, bool),
    ) -> bool {
        let (Some(swept), Some(factor)) = (self.swept(block), self.factor) else {
            return false;
        };
        let factors = [0, 1].map(|side| (factor * self.log_factor(swept, side).exp()) as f32);
        if !factors.iter().all(|factor| factor.is_normal()) {
            return false;
        }
        let first = block * (BLOCK / LANES);
        let exponentials = &self.kept.exponentials[first..first + columns.len().div_ceil(LANES)];
        let multiples = Multiples::new(exponentials, factors);
        macro_rules! each_type {
            ($($type:ident),*) => {
                match grads {
                    $(RowMut::$type(grads) => multiples.put(self.simd, &mut grads[columns], add),)*
                }
            };
        }
        each_type!(F32, F16, BF16);
        true
    }
}

/// The first sweep of a block. Exponentials are kept where there is memory for them.
struct Sweep<'a, E, const MOMENTS: bool> {
    columns: [&'a [E]; 2],
    exponentials: [Exponential; 2],
    /// Of the student's 1/T to the teacher's.
    ratio: f32,
    to: &'a mut [Sides],
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

impl<E: Lanes, const MOMENTS: bool> Kernel for Sweep<'_, E, MOMENTS> {
    type Output = Swept;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Swept {
        let Self { columns: [student, teacher], exponentials: [ours, theirs], ratio, to } = self;
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

/// Multiples of the exponentials of student and teacher, and their difference.
#[derive(Clone, Copy)]
struct Multiples<'a> {
    exponentials: &'a [Sides],
    factors: [f32; 2],
    /// Exponentials below it count as 0: their multiples would be subnormal, for what that costs see [`EXP_CUTOFF`].
    least: [f32; 2],
}

impl<'a> Multiples<'a> {
    fn new(exponentials: &'a [Sides], factors: [f32; 2]) -> Self {
        // An ulp more than the division rounds to.
        let least = factors.map(|factor| (f32::MIN_POSITIVE / factor.abs()).next_up());
        Self { exponentials, factors, least }
    }

    fn put<E: Lanes>(self, simd: Simd, to: &mut [E], add: bool) {
        match add {
            true => simd.run(Put(self, AddTo(to), PhantomData)),
            false => simd.store_normal::<E, _>(Put(self, InPlace(to), PhantomData)),
        }
    }

    #[inline(always)]
    fn difference<E: Lanes, I: Isa>(&self, chunk: usize) -> Chunk {
        let (Sides([student, teacher]), mut difference) = (&self.exponentials[chunk], [0.0; LANES]);
        let [(a, least), (b, others)] = [0, 1].map(|side| (self.factors[side], self.least[side]));
        for lane in 0..LANES {
            let (e, other) = (student[lane], teacher[lane]);
            let q = if e < least { 0.0 } else { e * a };
            let p = if other < others { 0.0 } else { other * b };
            let value = q - p;
            // As the conversion does of itself where it may.
            let is_subnormal = value.to_bits() & 0x7f80_0000 == 0;
            difference[lane] = if E::IS_BF16 && !I::FLUSHES && is_subnormal { 0.0 } else { value };
        }
        difference
    }
}

struct Put<'a, E, P>(Multiples<'a>, P, PhantomData<E>);

impl<E: Lanes, P: Place<E>> Kernel for Put<'_, E, P> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self(multiples, mut place, _) = self;
        let chunks = place.chunks();
        for chunk in 0..chunks {
            place.prefetch(isa, chunk);
            let difference = multiples.difference::<E, I>(chunk);
            place.put(isa, chunk, &difference);
        }
        if place.last().is_some() {
            let difference = multiples.difference::<E, I>(chunks);
            place.put_last(isa, &difference);
        }
    }
}
