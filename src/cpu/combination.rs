//! Combinations of logits, made block by block.

#![expect(
    clippy::needless_range_loop,
    reason = "one index over several lane arrays; the shape that vectorises"
)]

use std::ops::Range;

use super::blocks::{Ahead, Block, Chunk, Row, Tensor};
use super::rows::LANES;
use super::simd::{Isa, Kernel, Simd};
use crate::batch::{Combination, MOST_PARTS};
use crate::error::Result;

/// The tensors of a combination.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a>([Option<(f64, Tensor<'a>)>; MOST_PARTS]);

impl<'a> Tensors<'a> {
    pub fn new(backend: &'static str, logits: &Combination<'a>) -> Result<Self> {
        let mut tensors = [None; MOST_PARTS];
        for (tensor, &(coefficient, logits)) in tensors.iter_mut().zip(logits.parts()) {
            *tensor = Some((coefficient, Tensor::new(backend, logits)?));
        }
        Ok(Self(tensors))
    }

    /// Coefficients, and the first columns of a row.
    pub fn row(&self, token: usize, columns: usize) -> impl Iterator<Item = (f64, Row<'a>)> {
        let row = move |(c, tensor): (f64, Tensor<'a>)| (c, tensor.row(token, columns));
        self.0.into_iter().flatten().map(row)
    }

    /// The parts of a row, each block of which is made of differences from its own maxima.
    pub fn parts(&self, token: usize, columns: usize) -> [Option<Part<'a>>; MOST_PARTS] {
        let mut rows = self.row(token, columns);
        std::array::from_fn(|_| {
            rows.next().map(|(coefficient, row)| Part { row, coefficient, anchor: None })
        })
    }
}

/// A row, what it is multiplied by, and what is subtracted before: the maximum of each block of it where that
/// is None.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub row: Row<'a>,
    pub coefficient: f64,
    pub anchor: Option<f32>,
}

/// Makes a block of `sum_i c_i (x_i - anchor_i)`, which keeps its digits where logits have a large common
/// offset, and returns `sum_i c_i anchor_i`. The memory of the columns `next` is asked for meanwhile.
pub(super) fn combine(
    simd: Simd,
    parts: &[Option<Part<'_>>],
    [columns, next]: [Range<usize>; 2],
    [to, other]: [&mut Block; 2],
) -> f64 {
    let (mut offset, mut first) = (0.0, true);
    for part in parts.iter().flatten().filter(|part| part.coefficient != 0.0) {
        let block = if first { &mut *to } else { &mut *other };
        let maximum = part.row.widen(simd, columns.clone(), block);
        let anchor = part.anchor.unwrap_or(maximum);
        // An infinite one is left where it is: the difference would be NaN in columns that the part excludes.
        let anchor = if anchor.is_finite() { anchor } else { 0.0 };
        offset += part.coefficient * f64::from(anchor);
        let scaling = (part.coefficient as f32, anchor);
        let ahead = Ahead([part.row.bytes(next.clone()), &[], &[]]);
        if first {
            simd.run(Scaled { scaling, to: to.chunks_mut(), ahead });
        } else {
            simd.run(Joined { scaling, other: other.chunks(), to: to.chunks_mut(), ahead });
        }
        first = false;
    }
    if first {
        to.fill(columns.len(), 0.0);
    }
    to.exclude_beyond(columns.len());
    offset
}

/// `c (x - anchor)` in place.
struct Scaled<'a> {
    scaling: (f32, f32),
    to: &'a mut [Chunk],
    ahead: Ahead<'a>,
}

impl Kernel for Scaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (coefficient, anchor) = self.scaling;
        for (index, chunk) in self.to.iter_mut().enumerate() {
            self.ahead.prefetch(isa, index);
            for lane in 0..LANES {
                chunk[lane] = coefficient * (chunk[lane] - anchor);
            }
        }
    }
}

/// Adds that of another part. A column that one of them excludes stays excluded, also where the other is
/// infinite.
struct Joined<'a> {
    scaling: (f32, f32),
    other: &'a [Chunk],
    to: &'a mut [Chunk],
    ahead: Ahead<'a>,
}

impl Kernel for Joined<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (coefficient, anchor) = self.scaling;
        for (index, (to, other)) in self.to.iter_mut().zip(self.other).enumerate() {
            self.ahead.prefetch(isa, index);
            for lane in 0..LANES {
                let (a, b) = (to[lane], coefficient * (other[lane] - anchor));
                let excluded = a == f32::NEG_INFINITY || b == f32::NEG_INFINITY;
                to[lane] = if excluded { f32::NEG_INFINITY } else { a + b };
            }
        }
    }
}
