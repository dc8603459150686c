//! The forward KL of a row whose exponentials are kept from its first sweep, where student and teacher are of one type:
//! two exponentials a column in all, and without a gradient one sweep. The second has `q - p` by two products, and goes
//! together with the first of the thread's next token: what waits for exponentials to come back from a cache, and what
//! computes them.
//!
//! With e the exponentials of distances from an estimate of a block's maxima, and S and T the sums of the student's and
//! the teacher's, `q = a e` and `p = b e'` with factors of the block. Its part of the divergence is
//! `sum p log(p/q) + q - p = b (R + c T) + a S - b T`, where R is `sum e' d` with d the difference of the distances, and
//! c the logarithm of p/q where both are at the estimates. R and c T take from each other what is alike in student and
//! teacher no more than the differences of their logits do.

mod multiples;
mod sweep;

use std::cell::RefCell;
use std::ops::Range;

use super::columns::Pair;
use crate::cpu::blocks::{Row, RowMut, each_type};
use crate::cpu::convert::Lanes;
use crate::cpu::rows::{BLOCK, LANES};
use crate::cpu::simd::Simd;
use crate::cpu::softmax::Softmax;
use crate::cpu::state::RowBlocks;
use crate::cpu::student::{Carry, Student};
use multiples::{Multiples, Owed, Sides};
use sweep::{Swept, sweep};

/// Blocks of a row that are kept: exponentials of 262144 columns are 2 MiB, and no more is asked of a thread.
const MOST_BLOCKS: usize = 64;

/// Blocks without a larger probability go by kept exponentials. Their q - p is known to two ulps of the larger one, 2^-24
/// at most; where one is more likely, the others are to have digits of the difference itself.
const LIKELY: f32 = 0.25;

/// Quotients of the temperatures between the inverse of this and this leave log-ratios their place in an f32.
const MOST_APART: f32 = 1e6;

/// What is kept of a row, on a thread.
#[derive(Default)]
pub(super) struct Kept {
    exponentials: Vec<Sides>,
    blocks: Vec<Option<Swept>>,
    /// Of the blocks whose gradient is still to be written.
    behind: Vec<Option<Multiples>>,
    /// Of the row, those that count.
    columns: usize,
    simd: Option<Simd>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

impl Carry for Kept {
    /// The thread's own.
    fn start() -> Self {
        KEPT.take()
    }

    fn is_behind(&self) -> bool {
        self.behind.iter().any(Option::is_some)
    }

    fn finish(mut self, behind: Option<&mut Student<'_>>) {
        self.catch_up(behind);
        KEPT.set(self);
    }
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
    /// Writes the gradient of the token behind.
    pub fn catch_up(&mut self, behind: Option<&mut Student<'_>>) {
        if let (Some((grads, add)), Some(simd)) = (behind.and_then(Student::grads), self.simd) {
            let blocks = self.behind.iter().zip(self.exponentials.chunks(BLOCK / LANES));
            each_type!(RowMut, grads, row => {
                let grads = row[..self.columns].chunks_mut(BLOCK);
                for (grads, (multiples, exponentials)) in grads.zip(blocks) {
                    if let Some(multiples) = *multiples {
                        Owed { multiples, grads, add }.put(simd, exponentials);
                    }
                }
            });
        }
        self.behind.clear();
    }

    /// The first sweep of a row, whose exponentials are kept for a gradient, and the second of the token behind; None if
    /// the two are not of one type, or their temperatures too far apart.
    pub fn sweep(
        &mut self,
        simd: Simd,
        (rows, keep): (&Rows<'_>, bool),
        behind: Option<&mut Student<'_>>,
    ) -> Option<[Softmax; 2]> {
        if !(1.0 / MOST_APART..MOST_APART).contains(&rows.ratio()) {
            return None;
        }
        let mut behind = behind;
        if !keep {
            self.catch_up(behind.take());
        }
        (self.columns, self.simd) = (rows.columns, Some(simd));
        let grads = behind.and_then(Student::grads);
        macro_rules! each_pair {
            ($($type:ident),*) => {
                match (rows.logits, grads) {
                    $(
                        ([Row::$type(x), Row::$type(t)], Some((RowMut::$type(grads), add))) => {
                            Some(self.typed(simd, (rows, keep), [x, t], (grads, add)))
                        }
                        ([Row::$type(x), Row::$type(t)], None) => {
                            Some(self.typed(simd, (rows, keep), [x, t], (&mut [], false)))
                        }
                    )*
                    _ => None,
                }
            };
        }
        each_pair!(F32, F16, BF16)
    }

    fn typed<E: Lanes>(
        &mut self,
        simd: Simd,
        (rows, keep): (&Rows<'_>, bool),
        [student, teacher]: [&[E]; 2],
        (grads, add): (&mut [E], bool),
    ) -> [Softmax; 2] {
        let Rows { inverse_temperatures, moments, columns, .. } = *rows;
        let (student, teacher) = (&student[..columns], &teacher[..columns]);
        let kept = if keep { columns.min(MOST_BLOCKS * BLOCK).div_ceil(LANES) } else { 0 };
        if self.exponentials.len() < kept {
            self.exponentials.resize(kept, Sides::default());
        }
        let mut room = self.exponentials[..kept].chunks_mut(BLOCK / LANES);
        let used = grads.len().min(columns);
        let mut grads = grads[..used].chunks_mut(BLOCK);
        let mut states = inverse_temperatures.map(RowBlocks::new);
        self.blocks.clear();
        for (block, (x, t)) in student.chunks(BLOCK).zip(teacher.chunks(BLOCK)).enumerate() {
            let (columns, to) = ([x, t], room.next().unwrap_or_default());
            let multiples = self.behind.get(block).copied().flatten();
            let behind = multiples.zip(grads.next());
            let behind = behind.map(|(multiples, grads)| Owed { multiples, grads, add });
            let swept = (block < MOST_BLOCKS).then(|| sweep(simd, rows, columns, (to, behind)));
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
        self.behind.clear();
        let rows = [student, teacher];
        [0, 1].map(|side| Softmax::of_state(&simd.merged(rows[side], states[side], moments[side])))
    }

    /// Of a row whose sums are known, and what its gradient waits for.
    pub fn second(
        &mut self,
        (pair, rows): (Pair, [Softmax; 2]),
        factor: Option<f64>,
    ) -> (Second<'_>, &mut Vec<Option<Multiples>>) {
        (Second { blocks: &self.blocks, pair, rows, factor }, &mut self.behind)
    }
}

/// The second sweep, of a row whose sums are known.
pub(super) struct Second<'k> {
    blocks: &'k [Option<Swept>],
    pair: Pair,
    rows: [Softmax; 2],
    /// What a gradient is multiplied by.
    factor: Option<f64>,
}

impl Second<'_> {
    /// The columns of every block.
    pub fn blocks(&self, columns: usize) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let starts = (0..columns).step_by(BLOCK);
        starts.map(move |start| start..columns.min(start + BLOCK)).enumerate()
    }

    /// The sums of a block, if they are known and no column is too likely.
    fn swept(&self, block: usize) -> Option<&Swept> {
        let swept = self.blocks.get(block)?.as_ref()?;
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

    /// What the gradient of a block is, by its exponentials; None where no numbers can be that.
    pub fn multiples(&self, block: usize) -> Option<Multiples> {
        let (swept, factor) = (self.swept(block)?, self.factor?);
        Multiples::new([0, 1].map(|side| (factor * self.log_factor(swept, side).exp()) as f32))
    }
}
