//! The logits, and where their gradient goes.

use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::memory::{Slice, SliceMut};

/// `[tokens, vocab]` logits to read. Row `t` predicts label `t`.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    data: Slice<'a>,
    shape: Shape,
}

/// `[tokens, vocab]` memory to write: logits that their own gradient will replace, or a gradient buffer.
///
/// A call that writes the gradient takes it by value, so that overwritten logits cannot be read
/// by mistake:
///
/// ```compile_fail,E0382
/// # use prefuse::batch::LogitsMut;
/// # fn logit_grads_in_place(_: LogitsMut<'_>) {}
/// # let mut data = vec![0.0_f32; 6];
/// let logits = LogitsMut::new(&mut data, 2, 3).unwrap();
/// logit_grads_in_place(logits);
/// logits.view(); // moved
/// ```
#[derive(Debug)]
pub struct LogitsMut<'a> {
    data: SliceMut<'a>,
    shape: Shape,
}

/// Rows, their length, and the distance from one to the next, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub tokens: usize,
    pub vocab: usize,
    pub stride: usize,
}

impl Shape {
    fn checked(tokens: usize, vocab: usize, stride: usize) -> Result<Self> {
        if tokens == 0 {
            return Err(Error::TooFew { what: "tokens", expected: 1, got: 0 });
        }
        if vocab == 0 {
            return Err(Error::TooFew { what: "entries of the vocabulary", expected: 1, got: 0 });
        }
        if stride < vocab {
            return Err(Error::RowStride { vocab, got: stride });
        }
        // A buffer's bytes fit in isize, so a shape that passes has offsets in range everywhere.
        match tokens.checked_mul(stride) {
            Some(elements) if elements <= isize::MAX as usize / 8 => {
                Ok(Self { tokens, vocab, stride })
            }
            _ => Err(Error::TooLarge { what: "logits", rows: tokens, stride }),
        }
    }

    pub fn size(self) -> [usize; 2] {
        [self.tokens, self.vocab]
    }

    /// The last row may end at the vocabulary, without the stride's padding.
    fn min_len(self) -> usize {
        (self.tokens - 1) * self.stride + self.vocab
    }
}

impl<'a> Logits<'a> {
    /// Contiguous rows: `data` has `tokens * vocab` elements.
    ///
    /// # Errors
    /// No tokens, no vocabulary, or another length.
    pub fn new<T: Element>(data: &'a [T], tokens: usize, vocab: usize) -> Result<Self> {
        let shape = Shape::checked(tokens, vocab, vocab)?;
        exact_length(data.len(), shape)?;
        Ok(Self { data: Slice::new(data), shape })
    }

    /// Rows that start `stride` elements apart: `data` has at least `(tokens - 1) * stride + vocab`
    /// elements. What lies between the rows is never read.
    ///
    /// # Errors
    /// No tokens, no vocabulary, a stride below the vocabulary, or too short a buffer.
    pub fn strided<T: Element>(
        data: &'a [T],
        tokens: usize,
        vocab: usize,
        stride: usize,
    ) -> Result<Self> {
        Self::from_slice(Slice::new(data), tokens, vocab, stride)
    }

    /// Rows that start `stride` elements apart, in host memory or in that of the backend that will
    /// read them.
    ///
    /// # Errors
    /// No tokens, no vocabulary, a stride below the vocabulary, or too short a buffer.
    pub fn from_slice(data: Slice<'a>, tokens: usize, vocab: usize, stride: usize) -> Result<Self> {
        let shape = Shape::checked(tokens, vocab, stride)?;
        least_length(data.len(), shape)?;
        Ok(Self { data, shape })
    }

    /// Rows.
    pub fn tokens(&self) -> usize {
        self.shape.tokens
    }

    /// Entries of a row.
    pub fn vocab(&self) -> usize {
        self.shape.vocab
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn data(&self) -> Slice<'a> {
        self.data
    }
}

impl<'a> LogitsMut<'a> {
    /// Contiguous rows: `data` has `tokens * vocab` elements.
    ///
    /// # Errors
    /// No tokens, no vocabulary, or another length.
    pub fn new<T: Element>(data: &'a mut [T], tokens: usize, vocab: usize) -> Result<Self> {
        let shape = Shape::checked(tokens, vocab, vocab)?;
        exact_length(data.len(), shape)?;
        Ok(Self { data: SliceMut::new(data), shape })
    }

    /// Rows that start `stride` elements apart: `data` has at least `(tokens - 1) * stride + vocab`
    /// elements. What lies between the rows is never read or written.
    ///
    /// # Errors
    /// No tokens, no vocabulary, a stride below the vocabulary, or too short a buffer.
    pub fn strided<T: Element>(
        data: &'a mut [T],
        tokens: usize,
        vocab: usize,
        stride: usize,
    ) -> Result<Self> {
        Self::from_slice(SliceMut::new(data), tokens, vocab, stride)
    }

    /// Rows that start `stride` elements apart, in host memory or in that of the backend that will
    /// write them.
    ///
    /// # Errors
    /// No tokens, no vocabulary, a stride below the vocabulary, or too short a buffer.
    pub fn from_slice(
        data: SliceMut<'a>,
        tokens: usize,
        vocab: usize,
        stride: usize,
    ) -> Result<Self> {
        let shape = Shape::checked(tokens, vocab, stride)?;
        least_length(data.len(), shape)?;
        Ok(Self { data, shape })
    }

    /// The same memory, to read.
    pub fn view(&self) -> Logits<'_> {
        Logits { data: self.data.as_slice(), shape: self.shape }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn data_mut(&mut self) -> &mut SliceMut<'a> {
        &mut self.data
    }
}

fn exact_length(got: usize, shape: Shape) -> Result<()> {
    let expected = shape.min_len();
    if got == expected { Ok(()) } else { Err(Error::Length { what: "logits", expected, got }) }
}

fn least_length(got: usize, shape: Shape) -> Result<()> {
    let expected = shape.min_len();
    if got >= expected {
        Ok(())
    } else {
        Err(Error::Length { what: "strided logits", expected, got })
    }
}
