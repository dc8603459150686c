//! Where a kernel reads logits, and where it puts what it makes of them.

use crate::cpu::convert::Lanes;
use crate::cpu::rows::{LANES, padded};
use crate::cpu::simd::Isa;

/// Columns that are read, and written or not. Numbers are in the order of [`Lanes::load_unordered`].
pub(crate) trait Place<E: Lanes> {
    fn columns(&self) -> &[E];

    /// Puts a chunk of lanes.
    fn put<I: Isa>(&mut self, isa: I, chunk: usize, values: &[f32; LANES]);

    /// Puts what the last columns have of a chunk.
    fn put_last<I: Isa>(&mut self, isa: I, values: &[f32; LANES]);

    /// Asks for the memory that a later chunk will need.
    #[inline(always)]
    fn prefetch<I: Isa>(&self, isa: I, chunk: usize) {
        isa.prefetch_ahead(self.chunk(chunk));
    }

    fn chunks(&self) -> usize {
        self.columns().len() / LANES
    }

    #[inline(always)]
    fn chunk(&self, chunk: usize) -> &[E; LANES] {
        &self.columns().as_chunks().0[chunk]
    }

    /// The columns after the whole chunks, with -inf up to one; None where there are none.
    #[inline(always)]
    fn last(&self) -> Option<[E; LANES]> {
        let (_, tail) = self.columns().as_chunks::<LANES>();
        (!tail.is_empty()).then(|| padded(tail))
    }
}

/// In place of the logits.
pub(crate) struct InPlace<'a, E>(pub &'a mut [E]);

impl<E: Lanes> Place<E> for InPlace<'_, E> {
    #[inline(always)]
    fn columns(&self) -> &[E] {
        self.0
    }

    #[inline(always)]
    fn put<I: Isa>(&mut self, isa: I, chunk: usize, values: &[f32; LANES]) {
        self.0.as_chunks_mut().0[chunk] = E::store_unordered(isa, values);
    }

    #[inline(always)]
    fn put_last<I: Isa>(&mut self, isa: I, values: &[f32; LANES]) {
        let (_, tail) = self.0.as_chunks_mut::<LANES>();
        tail.copy_from_slice(&E::store_unordered(isa, values)[..tail.len()]);
    }
}

/// Added to the columns.
pub(crate) struct AddTo<'a, E>(pub &'a mut [E]);

impl<E: Lanes> AddTo<'_, E> {
    #[inline(always)]
    fn sums<I: Isa>(isa: I, values: &[f32; LANES], to: &[E; LANES]) -> [f32; LANES] {
        let mut sums = E::load_unordered(isa, to);
        for lane in 0..LANES {
            sums[lane] += values[lane];
        }
        sums
    }
}

impl<E: Lanes> Place<E> for AddTo<'_, E> {
    #[inline(always)]
    fn columns(&self) -> &[E] {
        self.0
    }

    #[inline(always)]
    fn put<I: Isa>(&mut self, isa: I, chunk: usize, values: &[f32; LANES]) {
        let sums = Self::sums(isa, values, self.chunk(chunk));
        InPlace(&mut *self.0).put(isa, chunk, &sums);
    }

    #[inline(always)]
    fn put_last<I: Isa>(&mut self, isa: I, values: &[f32; LANES]) {
        if let Some(last) = self.last() {
            let sums = Self::sums(isa, values, &last);
            InPlace(&mut *self.0).put_last(isa, &sums);
        }
    }
}

/// Into columns elsewhere, as many.
pub(crate) struct Apart<'a, E> {
    from: &'a [E],
    to: &'a mut [E],
}

impl<'a, E> Apart<'a, E> {
    pub fn new(from: &'a [E], to: &'a mut [E]) -> Self {
        assert_eq!(from.len(), to.len(), "logits and gradient");
        Self { from, to }
    }
}

impl<E: Lanes> Place<E> for Apart<'_, E> {
    #[inline(always)]
    fn columns(&self) -> &[E] {
        self.from
    }

    #[inline(always)]
    fn put<I: Isa>(&mut self, isa: I, chunk: usize, values: &[f32; LANES]) {
        InPlace(&mut *self.to).put(isa, chunk, values);
    }

    #[inline(always)]
    fn put_last<I: Isa>(&mut self, isa: I, values: &[f32; LANES]) {
        InPlace(&mut *self.to).put_last(isa, values);
    }

    #[inline(always)]
    fn prefetch<I: Isa>(&self, isa: I, chunk: usize) {
        isa.prefetch_ahead(self.chunk(chunk));
        isa.prefetch_ahead(&self.to.as_chunks::<LANES>().0[chunk]);
    }
}
