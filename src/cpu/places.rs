//! Where a kernel reads logits, and where it puts what it makes of them.

use crate::cpu::convert::Lanes;
use crate::cpu::rows::{LANES, padded};
use crate::cpu::simd::Isa;

/// Columns that are read, and written or not.
pub(crate) trait Place<E: Lanes> {
    fn columns(&self) -> &[E];

    /// Puts a whole chunk of lanes.
    fn put(&mut self, chunk: usize, lanes: &[E; LANES]);

    /// Puts what the last columns have of a chunk.
    fn put_last(&mut self, lanes: &[E]);

    /// Asks for the memory that a later chunk will need.
    fn prefetch<I: Isa>(&self, isa: I, chunk: usize);

    fn len(&self) -> usize {
        self.columns().len()
    }

    fn chunks(&self) -> usize {
        self.len() / LANES
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

/// Nothing is put anywhere.
pub(crate) struct Read<'a, E>(pub &'a [E]);

impl<E: Lanes> Place<E> for Read<'_, E> {
    #[inline(always)]
    fn columns(&self) -> &[E] {
        self.0
    }

    #[inline(always)]
    fn put(&mut self, _: usize, _: &[E; LANES]) {}

    #[inline(always)]
    fn put_last(&mut self, _: &[E]) {}

    #[inline(always)]
    fn prefetch<I: Isa>(&self, isa: I, chunk: usize) {
        isa.prefetch_ahead(self.chunk(chunk));
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
    fn put(&mut self, chunk: usize, lanes: &[E; LANES]) {
        self.0.as_chunks_mut().0[chunk] = *lanes;
    }

    #[inline(always)]
    fn put_last(&mut self, lanes: &[E]) {
        let (_, tail) = self.0.as_chunks_mut::<LANES>();
        tail.copy_from_slice(&lanes[..tail.len()]);
    }

    #[inline(always)]
    fn prefetch<I: Isa>(&self, isa: I, chunk: usize) {
        isa.prefetch_ahead(self.chunk(chunk));
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
    fn put(&mut self, chunk: usize, lanes: &[E; LANES]) {
        InPlace(self.to).put(chunk, lanes);
    }

    #[inline(always)]
    fn put_last(&mut self, lanes: &[E]) {
        InPlace(self.to).put_last(lanes);
    }

    #[inline(always)]
    fn prefetch<I: Isa>(&self, isa: I, chunk: usize) {
        isa.prefetch_ahead(self.chunk(chunk));
        isa.prefetch_ahead(&self.to.as_chunks::<LANES>().0[chunk]);
    }
}
