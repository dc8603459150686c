//! Rows of any element type, widened to f32 block by block: what sweeps them is compiled for one type.

use half::{bf16, f16};

use crate::batch::{Logits, LogitsMut};
use crate::cpu::DTYPES;
use crate::cpu::convert::Lanes;
use crate::cpu::peak::Peak;
use crate::cpu::rows::{LANES, padded};
use crate::cpu::simd::{CACHE_LINE, Isa, Kernel, Simd};
use crate::cpu::state::RowState;
use crate::element::{DType, Element};
use crate::error::{Error, Result};
use std::ops::Range;

/// Columns of a block. Those of student and teacher are 16 KiB, which a first-level cache holds beside what
/// they are made from.
pub(super) const BLOCK: usize = 2048;

pub(super) type Chunk = [f32; LANES];

/// Columns of a row; a last block ends in -inf up to whole chunks.
#[repr(align(64))]
pub(super) struct Block {
    chunks: [Chunk; BLOCK / LANES],
    used: usize,
}

impl Block {
    pub fn new() -> Self {
        Self { chunks: [[0.0; LANES]; BLOCK / LANES], used: 0 }
    }

    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks[..self.used]
    }

    pub fn chunks_mut(&mut self) -> &mut [Chunk] {
        &mut self.chunks[..self.used]
    }

    /// That many columns of one number.
    pub fn fill(&mut self, columns: usize, value: f32) {
        self.resize(columns).fill([value; LANES]);
    }

    /// Chunks to overwrite, as many as another has.
    pub fn like(&mut self, other: &Self) -> &mut [Chunk] {
        self.used = other.used;
        self.chunks_mut()
    }

    pub fn set(&mut self, column: usize, value: f32) {
        self.chunks_mut().as_flattened_mut()[column] = value;
    }

    /// The largest number, which NaN never is.
    pub fn maximum(&self, simd: Simd) -> f32 {
        simd.run(Largest(self.chunks().as_flattened()))
    }

    /// The columns after that many become -inf.
    pub fn exclude_beyond(&mut self, columns: usize) {
        self.chunks_mut().as_flattened_mut()[columns..].fill(f32::NEG_INFINITY);
    }

    /// For that many columns.
    fn resize(&mut self, columns: usize) -> &mut [Chunk] {
        self.used = columns.div_ceil(LANES);
        self.chunks_mut()
    }
}

/// The columns of the block after these.
pub(super) fn next(columns: &Range<usize>, all: usize) -> Range<usize> {
    columns.end..all.min(columns.end + BLOCK)
}

/// Memory that the next block will need, asked for while this one is computed.
///
/// Widening reads a block at once, more lines than a core can wait for: where it also asks for those of the
/// next block, the forward KL and its gradient take 2.7 ns a column (bf16, rows from memory), 2.1 so.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a>(pub [&'a [u8]; 3]);

impl Ahead<'_> {
    pub const NOTHING: Self = Self([&[]; 3]);

    /// The share of one chunk.
    #[inline(always)]
    pub fn prefetch<I: Isa>(self, isa: I, chunk: usize) {
        for bytes in self.0 {
            // As much for each of a block's chunks; a short block has what it has.
            let share = bytes.len().div_ceil(BLOCK / LANES).next_multiple_of(CACHE_LINE);
            // Unclamped: it may go beyond the end by less than what rounding adds for every chunk.
            let start = bytes.as_ptr().wrapping_add(chunk * share);
            for line in (0..share).step_by(CACHE_LINE) {
                isa.prefetch(start.wrapping_add(line));
            }
        }
    }
}

/// The blocks of a row.
pub(super) fn blocks(columns: usize) -> impl Iterator<Item = Range<usize>> {
    (0..columns).step_by(BLOCK).map(move |start| start..columns.min(start + BLOCK))
}

/// An element type of logits that the backend takes.
pub(super) trait Logit: Element + Lanes {
    fn row(row: &[Self]) -> Row<'_>;
    fn row_mut(row: &mut [Self]) -> RowMut<'_>;
}

#[derive(Clone, Copy)]
pub(super) enum Row<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
}

pub(super) enum RowMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    BF16(&'a mut [bf16]),
}

macro_rules! logit {
    ($type:ty, $variant:ident) => {
        impl Logit for $type {
            fn row(row: &[Self]) -> Row<'_> {
                Row::$variant(row)
            }

            fn row_mut(row: &mut [Self]) -> RowMut<'_> {
                RowMut::$variant(row)
            }
        }
    };
}

logit!(f32, F32);
logit!(f16, F16);
logit!(bf16, BF16);

macro_rules! each_type {
    ($Row:ident, $value:expr, $row:ident => $body:expr) => {
        match $value {
            $Row::F32($row) => $body,
            $Row::F16($row) => $body,
            $Row::BF16($row) => $body,
        }
    };
}

pub(super) use each_type;

impl Row<'_> {
    /// Widens some of the columns and finds their maximum; a NaN may be that.
    pub fn widen(self, simd: Simd, columns: Range<usize>, to: &mut Block) -> f32 {
        let to = to.resize(columns.len());
        each_type!(Row, self, row => simd.run(Widen { from: &row[columns], to }))
    }
}

impl<'a> Row<'a> {
    /// Stage 1 of the first columns.
    pub fn state(
        self,
        simd: Simd,
        columns: usize,
        (inverse_temperature, moments): (f64, bool),
    ) -> RowState {
        each_type!(Row, self, row => simd.row_state(&row[..columns], inverse_temperature, moments))
    }

    pub fn get(self, column: usize) -> f64 {
        each_type!(Row, self, row => row[column].to_f64())
    }

    pub fn bytes(self, columns: Range<usize>) -> &'a [u8] {
        each_type!(Row, self, row => bytemuck::cast_slice(&row[columns]))
    }
}

impl<'a> RowMut<'a> {
    fn split(self, at: usize) -> (Self, Self) {
        each_type!(RowMut, self, row => {
            let (low, high) = row.split_at_mut(at);
            (Logit::row_mut(low), Logit::row_mut(high))
        })
    }

    fn part(&mut self, range: Range<usize>) -> RowMut<'_> {
        each_type!(RowMut, self, row => Logit::row_mut(&mut row[range]))
    }
}

impl RowMut<'_> {
    pub fn view(&self) -> Row<'_> {
        match self {
            Self::F32(row) => Row::F32(row),
            Self::F16(row) => Row::F16(row),
            Self::BF16(row) => Row::BF16(row),
        }
    }

    /// Rounds a block to some of the columns, or first adds what they hold. Any NaN must have a zero low
    /// half, see [`Isa::narrow_bf16`].
    pub fn write(&mut self, simd: Simd, columns: Range<usize>, block: &Block, add: bool) {
        let from = block.chunks();
        each_type!(RowMut, self, row => {
            let to = &mut row[columns];
            match add {
                true => simd.run(Narrow::<_, true> { from, to }),
                false => simd.run(Narrow::<_, false> { from, to }),
            }
        });
    }

    pub fn fill(&mut self, columns: Range<usize>, value: f32) {
        each_type!(RowMut, self, row => row[columns].fill(Lanes::store(value)));
    }

    pub fn len(&self) -> usize {
        each_type!(RowMut, self, row => row.len())
    }
}

/// The rows of a tensor.
#[derive(Clone, Copy)]
pub(super) struct Tensor<'a> {
    data: Row<'a>,
    stride: usize,
}

impl<'a> Tensor<'a> {
    pub fn new(backend: &'static str, logits: Logits<'a>) -> Result<Self> {
        let data = logits.data();
        let data = match logits.dtype() {
            DType::F32 => Row::F32(data.host()?),
            DType::F16 => Row::F16(data.host()?),
            DType::BF16 => Row::BF16(data.host()?),
            got => return Err(Error::LogitsType { backend, expected: DTYPES, got }),
        };
        Ok(Self { data, stride: logits.shape().stride })
    }

    /// The first columns of a row.
    pub fn row(&self, token: usize, columns: usize) -> Row<'a> {
        let start = token * self.stride;
        each_type!(Row, self.data, data => Logit::row(&data[start..start + columns]))
    }
}

/// The rows of a tensor to write.
pub(super) struct TensorMut<'a> {
    data: RowMut<'a>,
    stride: usize,
}

impl<'a> TensorMut<'a> {
    pub fn new(backend: &'static str, logits: &'a mut LogitsMut<'_>) -> Result<Self> {
        let (stride, dtype) = (logits.shape().stride, logits.view().dtype());
        let data = logits.data_mut();
        let data = match dtype {
            DType::F32 => RowMut::F32(data.host()?),
            DType::F16 => RowMut::F16(data.host()?),
            DType::BF16 => RowMut::BF16(data.host()?),
            got => return Err(Error::LogitsType { backend, expected: DTYPES, got }),
        };
        Ok(Self { data, stride })
    }

    /// The first rows, and the others, of which there are some.
    pub fn split(self, rows: usize) -> (Self, Self) {
        let stride = self.stride;
        let (low, high) = self.data.split(rows * stride);
        (Self { data: low, stride }, Self { data: high, stride })
    }

    /// The first columns of a row.
    pub fn row(&mut self, row: usize, columns: usize) -> RowMut<'_> {
        let start = row * self.stride;
        self.data.part(start..start + columns)
    }
}

struct Largest<'a, E>(&'a [E]);

impl<E: Lanes> Kernel for Largest<'_, E> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let mut peak = E::Peak::NONE;
        let (chunks, tail) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            peak.raise(isa, chunk);
        }
        if !tail.is_empty() {
            peak.raise(isa, &padded(tail));
        }
        peak.value()
    }
}

struct Widen<'a, E> {
    from: &'a [E],
    to: &'a mut [Chunk],
}

impl<E: Lanes> Kernel for Widen<'_, E> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let mut peak = E::Peak::NONE;
        let (chunks, tail) = self.from.as_chunks::<LANES>();
        for (chunk, to) in chunks.iter().zip(self.to.iter_mut()) {
            *to = E::load_lanes(isa, chunk);
            peak.raise(isa, chunk);
        }
        if !tail.is_empty() {
            let last = padded(tail);
            self.to[chunks.len()] = E::load_lanes(isa, &last);
            peak.raise(isa, &last);
        }
        peak.value()
    }
}

struct Narrow<'a, E, const ADD: bool> {
    from: &'a [Chunk],
    to: &'a mut [E],
}

#[inline(always)]
fn narrow<E: Lanes, I: Isa, const ADD: bool>(isa: I, from: &Chunk, to: &[E; LANES]) -> [E; LANES] {
    if !ADD {
        return E::store_lanes(isa, from);
    }
    let mut values = E::load_lanes(isa, to);
    for lane in 0..LANES {
        values[lane] += from[lane];
    }
    E::store_lanes(isa, &values)
}

impl<E: Lanes, const ADD: bool> Kernel for Narrow<'_, E, ADD> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (chunks, tail) = self.to.as_chunks_mut::<LANES>();
        for (to, from) in chunks.iter_mut().zip(self.from) {
            *to = narrow::<E, I, ADD>(isa, from, to);
        }
        if !tail.is_empty() {
            let last = narrow::<E, I, ADD>(isa, &self.from[chunks.len()], &padded(tail));
            tail.copy_from_slice(&last[..tail.len()]);
        }
    }
}
