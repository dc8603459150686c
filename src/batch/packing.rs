//! Where each sequence of the pack begins and ends.

use std::ops::Range;
use std::sync::Arc;

use super::with_capacity;
use crate::error::{Error, Result};
use crate::memory::Slice;

/// Sequences laid one after another: sequence `s` is tokens `cu_seqlens[s]..cu_seqlens[s + 1]`.
/// Sequences may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    offsets: Arc<[i64]>,
}

impl Packing {
    /// From `cu_seqlens`, `[sequences + 1]`, of i32, i64, u32 or usize.
    ///
    /// # Errors
    /// Fewer than 2 entries, not starting at 0, or decreasing. That it ends at the number of
    /// tokens is checked by [`Batch::new`](crate::batch::Batch::new).
    pub fn new<T: Offset>(cu_seqlens: &[T]) -> Result<Self> {
        if cu_seqlens.len() < 2 {
            let (what, got) = ("entries of cu_seqlens", cu_seqlens.len());
            return Err(Error::TooFew { what, expected: 2, got });
        }
        let first = cu_seqlens[0].offset();
        if first != 0 {
            return Err(Error::CuSeqlensStart { got: first });
        }
        let mut offsets = Vec::with_capacity(cu_seqlens.len());
        let mut previous = 0;
        for (index, &entry) in cu_seqlens.iter().enumerate() {
            let got = entry.offset();
            if got < previous {
                return Err(Error::CuSeqlensDecrease { index, previous, got });
            }
            previous = got;
            offsets.push(got);
        }
        Ok(Self { offsets: offsets.into() })
    }

    /// Sequences of equal length, as in a padded batch: mark the padding by ignored labels.
    ///
    /// # Errors
    /// No sequences, no tokens, or more tokens than fit in memory.
    pub fn padded(sequences: usize, length: usize) -> Result<Self> {
        for (what, got) in [("sequences", sequences), ("tokens of a sequence", length)] {
            if got == 0 {
                return Err(Error::TooFew { what, expected: 1, got });
            }
        }
        let too_large = Error::TooLarge { what: "packing", rows: sequences, stride: length };
        let tokens = sequences.checked_mul(length).ok_or(too_large.clone())?;
        let mut offsets = with_capacity("sequences", sequences.saturating_add(1))?;
        i64::try_from(tokens).map_err(|_| too_large)?;
        offsets.extend((0..=sequences).map(|sequence| (sequence * length) as i64));
        Ok(Self { offsets: offsets.into() })
    }

    /// The number of sequences.
    pub fn sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.offsets[self.sequences()] as usize
    }

    /// The tokens of a sequence, if there is one of this index.
    pub fn get(&self, sequence: usize) -> Option<Range<usize>> {
        (sequence < self.sequences()).then(|| self.range(sequence))
    }

    /// The tokens of each sequence, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> {
        (0..self.sequences()).map(|sequence| self.range(sequence))
    }

    pub(crate) fn range(&self, sequence: usize) -> Range<usize> {
        self.offsets[sequence] as usize..self.offsets[sequence + 1] as usize
    }

    /// The sequence of a token of the pack; empty ones have none.
    pub(crate) fn sequence_of(&self, token: usize) -> usize {
        self.offsets.partition_point(|&offset| offset as usize <= token) - 1
    }

    pub(crate) fn offsets(&self) -> Slice<'_> {
        Slice::new(&self.offsets)
    }
}

/// An integer type of `cu_seqlens`.
pub trait Offset: Copy {
    /// The number; beyond the range of i64 the largest.
    fn offset(self) -> i64;
}

macro_rules! offset {
    ($($Type:ty)*) => {$(
        impl Offset for $Type {
            fn offset(self) -> i64 {
                i64::try_from(self).unwrap_or(i64::MAX)
            }
        }
    )*};
}

offset!(i32 i64 u32 usize);
